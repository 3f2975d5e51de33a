"""Stop strings over the wire whose characters come in several tokens, combine with others, or lie beyond 16 bits."""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from attrs import frozen
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models
from velollm_cuda import LLM, SamplingParams
from velollm_cuda.testing import TINY, write_configuration

SIZE, START = 400, 399
LETTERS = 256
SPECIAL = ("<s>", "</s>")

# A combining accent, an emoji, two that are joined, a flag, Hangul, a line separator.
TEXT = "ae\u0301 b🎉c 👩\u200d💻 d🇩🇪 e한글 f\u2028g done"
# Of no byte twice: SentencePiece's tokens for bytes are one each.
BARE = "a e\u0301b🎉한글!"
ASKED: dict[str, Any] = {"model": "parrot", "prompt": [START], "max_tokens": 60, "temperature": 0}


@frozen
class Parrot:
    """A server whose every answer is ``text``, in the tokens ``pieces``."""

    url: str
    folder: Path
    text: str
    pieces: tuple[bytes, ...]

    def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.url, api_key="none", max_retries=0, timeout=60)

    @property
    def stops(self) -> list[str]:
        """Code points in a row that are not all ASCII: whole characters, and halves of what is drawn as one."""
        found = (self.text[at : at + size] for size in (1, 3) for at in range(len(self.text) - size + 1))
        return [stop for stop in dict.fromkeys(found) if not stop.isascii()]

    def tokens_up_to(self, stop: str) -> int:
        """Tokens after which ``stop`` is there to be read."""
        decoder, said = codecs.getincrementaldecoder("utf-8")(), ""
        for count, piece in enumerate(self.pieces, 1):
            said += decoder.decode(piece)
            if stop in said:
                return count
        raise AssertionError(f"{stop!r} is not said")


def cut(text: str) -> tuple[bytes, ...]:
    """Pieces of one to three bytes and, where one has been before, longer: many end in the middle of a character."""
    rest, pieces = text.encode(), list[bytes]()
    while rest:
        size = 1 + len(pieces) % 3
        while rest[:size] in pieces:
            size += 1
        pieces.append(rest[:size])
        rest = rest[size:]
    return tuple(pieces)


def letters(text: str, whole: str) -> tuple[bytes, ...]:
    """A token for each byte, but one for the character ``whole``."""
    before, after = (half.encode() for half in text.split(whole))
    return (*(bytes([byte]) for byte in before), whole.encode(), *(bytes([byte]) for byte in after))


KINDS = {
    "bytes": (TEXT, cut(TEXT), False),
    "fallback": (BARE, letters(BARE, whole="한"), True),
}


@pytest.fixture(scope="module", params=KINDS)
def parrot(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parrot]:
    text, pieces, fallback = KINDS[request.param]
    assert b"".join(pieces).decode() == text
    folder = write_parrot(tmp_path_factory.mktemp("unicode") / "model", pieces, fallback=fallback)
    sizes = ["--max-model-len", "128", "--max-num-seqs", "8", "--kv-cache-bytes", "8000000"]
    command = [sys.executable, "-m", "velollm_core", "cuda", "serve", str(folder), "--port", "0", "--name", "parrot"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, *sizes], **pipes, text=True, env=dict(os.environ)) as process:
        assert process.stdout
        said = process.stdout.readline()
        assert said.startswith("Serving parrot"), process.communicate()
        yield Parrot(said.split()[-1], folder, text, pieces)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")


async def streamed(client: openai.AsyncOpenAI, **asked: Any) -> tuple[str, str | None]:
    events = [event.choices[0] async for event in await client.completions.create(**ASKED, **asked, stream=True)]
    return "".join(event.text for event in events), events[-1].finish_reason


def test_an_answer_comes_whole(parrot: Parrot) -> None:
    async def ask() -> None:
        async with parrot.client() as client:
            assert await streamed(client) == (parrot.text, "stop")

    asyncio.run(ask())


def test_every_stop_string_ends_the_answer_where_it_comes_first(parrot: Parrot) -> None:
    async def ask(client: openai.AsyncOpenAI, stop: str) -> None:
        wanted = parrot.text[: parrot.text.index(stop)]
        answer = await client.completions.create(**ASKED, stop=["never", stop])
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == (wanted, "stop"), ascii(stop)
        assert answer.usage
        assert answer.usage.completion_tokens == parrot.tokens_up_to(stop), ascii(stop)
        if len(stop) == 1:
            assert await streamed(client, stop=stop) == (wanted, "stop"), ascii(stop)

    async def all_of_them() -> None:
        async with parrot.client() as client:
            await asyncio.gather(*(ask(client, stop) for stop in parrot.stops))

    asyncio.run(all_of_them())


def test_a_stop_string_that_only_looks_alike_does_not(parrot: Parrot) -> None:
    """The same letter in one code point, half of an emoji's bytes, another flag: other strings."""

    async def ask() -> None:
        async with parrot.client() as client:
            for stop in ("\u00e9", "\u00f0\u009f", "🎊", "\ufffd", "🇪🇩", "e\u0301\u0301"):
                assert await streamed(client, stop=stop) == (parrot.text, "stop"), ascii(stop)

    asyncio.run(ask())


def test_a_stop_string_counts_once_enough_tokens_are_there(parrot: Parrot) -> None:
    """Also where its first bytes came before."""
    stop, text = "🎉", parrot.text
    needed, before = parrot.tokens_up_to(stop), text[: text.index(stop)]

    async def ask() -> None:
        async with parrot.client() as client:
            for least, wanted in ((0, before), (needed - 1, before), (needed, text)):
                assert await streamed(client, stop=stop, extra_body={"min_tokens": least}) == (wanted, "stop"), least

    asyncio.run(ask())


def test_the_library_stops_where_the_server_does(parrot: Parrot) -> None:
    with LLM(parrot.folder, max_model_len=128, kv_cache_bytes=4 << 20) as llm:
        params = [SamplingParams(max_tokens=60, stop=stop) for stop in parrot.stops]
        answers = llm.generate([[START]] * len(params), params)
    for stop, answer in zip(parrot.stops, answers, strict=True):
        assert answer.text == parrot.text[: parrot.text.index(stop)], ascii(stop)
        assert answer.outputs[0].stop_reason == stop
        assert len(answer.token_ids) == parrot.tokens_up_to(stop)


@pytest.mark.parametrize("half", ["\ud83c", "\udf89 and more", "🎉\ud83c"])
def test_half_of_a_character_is_refused_in_one_line(parrot: Parrot, half: str) -> None:
    """A client that cuts its strings in UTF-16 sends it; no tokenizer reads it."""
    turns = [{"role": "user", "content": half}]
    for path, asked in (
        ("completions", {"prompt": half}),
        ("completions", {"prompt": "x", "stop": [half]}),
        ("chat/completions", {"messages": turns}),
    ):
        request = urllib.request.Request(f"{parrot.url}/{path}", json.dumps(asked).encode())
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=60)
        message = json.load(caught.value)["error"]["message"]
        assert (caught.value.code, message.count("half of a character"), message.count("\n")) == (400, 1, 0)


def write_parrot(folder: Path, pieces: Sequence[bytes], *, fallback: bool = False) -> Path:
    """A llama of no attention whose answer to token `START` is ``pieces``, a token each, then its end of text.

    With ``fallback`` the tokenizer is like SentencePiece's: what is no whole character comes in tokens of one byte.
    No piece may come twice, since each token knows only the one that follows it.
    """
    changes = {"vocab_size": SIZE, "hidden_size": SIZE, "num_hidden_layers": 1, "tie_word_embeddings": False}
    write_configuration(folder, {**TINY, **changes})
    vocabulary = _fallback_words(pieces) if fallback else _byte_words(pieces)
    tokenizer = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(vocabulary)}, merges=[]))
    spaces = decoders.Replace("▁", " ")
    tokenizer.decoder = (
        decoders.Sequence([spaces, decoders.ByteFallback(), decoders.Fuse()]) if fallback else decoders.ByteLevel()
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    write = _fallback_word if fallback else _byte_word
    said = [START, *(vocabulary.index(write(piece)) for piece in pieces), vocabulary.index("</s>")]
    assert len({*said}) == len(said)
    save_file(_weights(said), folder / "model.safetensors", {"format": "pt"})
    return folder


def _byte_words(pieces: Iterable[bytes]) -> list[str]:
    """A token for each byte, one for each longer piece."""
    return _filled([_byte_word(bytes([byte])) for byte in range(LETTERS)], map(_byte_word, pieces))


def _fallback_words(pieces: Iterable[bytes]) -> list[str]:
    return _filled([f"<0x{byte:02X}>" for byte in range(LETTERS)], map(_fallback_word, pieces))


def _filled(letters: list[str], words: Iterable[str]) -> list[str]:
    known = list(dict.fromkeys([*letters, *SPECIAL, *words]))
    return known + [f"filler{number}" for number in range(SIZE - len(known))]


def _byte_word(piece: bytes) -> str:
    """``piece`` in GPT-2's alphabet, where the unprintable bytes are the letters from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(LETTERS) if byte not in printable]
    return "".join(chr(byte if byte in printable else LETTERS + others.index(byte)) for byte in piece)


def _fallback_word(piece: bytes) -> str:
    try:
        return piece.decode().replace(" ", "▁")
    except UnicodeDecodeError:
        (byte,) = piece
        return f"<0x{byte:02X}>"


def _weights(said: Sequence[int]) -> dict[str, torch.Tensor]:
    follows = torch.zeros(SIZE, SIZE)
    for before, after in pairwise(said):
        follows[after, before] = 1.0
    shapes = {
        "self_attn.q_proj": 32,
        "self_attn.k_proj": 16,
        "self_attn.v_proj": 16,
        "mlp.gate_proj": 64,
        "mlp.up_proj": 64,
    }
    layer = {name: torch.zeros(rows, SIZE) for name, rows in shapes.items()}
    layer |= {"self_attn.o_proj": torch.zeros(SIZE, 32), "mlp.down_proj": torch.zeros(SIZE, 64)}
    layer |= {name: torch.ones(SIZE) for name in ("input_layernorm", "post_attention_layernorm")}
    return {
        "model.embed_tokens.weight": torch.eye(SIZE),
        "model.norm.weight": torch.ones(SIZE),
        "lm_head.weight": follows,
        **{f"model.layers.0.{name}.weight": tensor for name, tensor in layer.items()},
    }
