"""What the server counts, read as Prometheus reads it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

Serve = Callable[..., None]
SAMPLE = re.compile(r"(\w[\w:]*)\{([^}]*)\} (\S+)")


async def read(served: Any) -> dict[str, float]:
    """Samples by name and by the labels beside the model's."""
    async with served.session.get(served.url + "/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        page = await response.text()
    assert page.endswith("\n")
    found = {}
    for line in page.splitlines():
        if line.startswith("#"):
            assert re.match(r"# (HELP|TYPE) \w[\w:]* \S", line)
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        labels = match[2].removeprefix('model_name="letters"').lstrip(",")
        found[match[1] + (f"{{{labels}}}" if labels else "")] = float(match[3])
    return found


def test_tokens_requests_and_seconds_are_counted(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        assert set((await read(served)).values()) == {0}
        body = {"prompt": "hello", "max_tokens": 8}
        await asyncio.gather(*(served.ask("/v1/completions", body) for _ in range(3)))
        await served.ask("/v1/completions", {**body, "n": 2})
        found = await read(served)
        assert found["vllm:prompt_tokens_total"] == 4 * 5
        assert found["vllm:generation_tokens_total"] == 5 * 8
        assert found['vllm:request_success_total{finished_reason="length"}'] == 5
        assert found['vllm:request_success_total{finished_reason="abort"}'] == 0
        for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds"):
            assert found[f"vllm:{name}_count"] == found[f'vllm:{name}_bucket{{le="+Inf"}}'] == 5
            assert found[f"vllm:{name}_sum"] > 0
        assert found["vllm:num_requests_running"] == found["vllm:kv_cache_usage_perc"] == 0
        assert found["vllm:prefix_cache_queries_total"] > 0

    serve(scenario)


def test_buckets_add_up(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        await served.ask("/v1/completions", {"prompt": "hello", "max_tokens": 20})
        found = await read(served)
        buckets = [value for name, value in found.items() if name.startswith("vllm:inter_token_latency_seconds_bucket")]
        assert len(buckets) == 22
        assert buckets == sorted(buckets)
        assert buckets[-1] == found["vllm:inter_token_latency_seconds_count"] > 0

    serve(scenario, pause=0.001)


def test_who_leaves_is_counted_as_one_who_left(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        body = {"prompt": "hello", "max_tokens": 400, "stream": True}
        async with served.session.post(served.url + "/v1/completions", json=body) as response:
            await response.content.readany()
            found = await read(served)
            assert found["vllm:num_requests_running"] == 1
            assert found["vllm:kv_cache_usage_perc"] > 0
        await served.idle()
        for _ in range(1000):
            found = await read(served)
            if found['vllm:request_success_total{finished_reason="abort"}']:
                break
            await asyncio.sleep(0.002)
        assert found['vllm:request_success_total{finished_reason="abort"}'] == 1
        assert 0 < found["vllm:generation_tokens_total"] < 400

    serve(scenario, pause=0.002)


def test_a_refusal_is_no_request(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        status, _ = await served.ask("/v1/completions", {"prompt": "hello", "max_tokens": 4000})
        assert status == 400
        assert set((await read(served)).values()) == {0}

    serve(scenario)
