"""The real client of OpenAI against the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest

Serve = Callable[..., None]


def client(served: Any, key: str = "secret") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=served.url + "/v1", api_key=key, max_retries=0)


def test_models_completions_and_chats(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        async with client(served) as ask:
            assert [model.id async for model in ask.models.list()] == ["letters"]
            completion = await ask.completions.create(
                model="letters", prompt="hey", max_tokens=8, temperature=0, seed=0
            )
            assert completion.choices[0].text == served.expect(served.model.encode("hey"), 8)
            chat = await ask.chat.completions.create(
                model="letters", messages=[{"role": "user", "content": "hey"}], max_tokens=8, temperature=0, seed=0
            )
            assert chat.choices[0].message.content == served.expect(served.model.encode("uheya"), 8)
            assert chat.usage
            assert chat.usage.completion_tokens == 8

    serve(scenario, api_key="secret")


def test_streams_with_usage(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        async with client(served) as ask:
            text, usage = "", None
            async for event in await ask.chat.completions.create(
                model="letters",
                messages=[{"role": "user", "content": "hey"}],
                max_tokens=20,
                seed=0,
                stream=True,
                stream_options={"include_usage": True},
            ):
                text += "".join(choice.delta.content or "" for choice in event.choices)
                usage = event.usage or usage
            assert text == served.expect(served.model.encode("uheya"), 20)
            assert usage
            assert usage.total_tokens == 25

    serve(scenario, api_key="secret")


def test_errors_are_the_clients_own(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        async with client(served, "wrong") as ask:
            with pytest.raises(openai.AuthenticationError, match="API key"):
                await ask.completions.create(model="letters", prompt="x")
        async with client(served) as ask:
            with pytest.raises(openai.NotFoundError, match="only 'letters'"):
                await ask.completions.create(model="other", prompt="x")
            with pytest.raises(openai.BadRequestError, match="lower max_tokens") as caught:
                await ask.completions.create(model="letters", prompt="x", max_tokens=1000)
            assert caught.value.code == "context_length_exceeded"

    serve(scenario, api_key="secret")
