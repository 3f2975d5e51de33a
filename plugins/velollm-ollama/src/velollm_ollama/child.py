"""The llama-server that Ollama starts for a model, as its command line tells it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from attrs import frozen

_WITH_VALUE = frozenset(
    {
        "--model", "--port", "--host", "-c", "--ctx-size", "-np", "--parallel", "--log-verbosity", "--chat-template",
        "--mmproj", "--spec-type", "--spec-draft-n-max", "--spec-draft-model", "--lora", "--load-mode",
        "--cache-type-k", "--cache-type-v", "--flash-attn", "-b", "-ub", "-ngl", "-t", "--split-mode", "--main-gpu",
        "--keep", "-m", "-fa", "-ctk", "-ctv",
    }
)  # fmt: skip


@frozen
class Child:
    """One child's settings. ``context`` is ``-c``: tokens over all slots; None is what the line does not say.

    ``batch`` None leaves it to llama.cpp, ``gpu_layers`` None lets it fit them, ``threads`` None lets it choose.
    """

    model: str
    port: int | None = None
    context: int | None = None
    slots: int | None = None
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attention: str = "auto"
    batch: int | None = None
    ubatch: int | None = None
    gpu_layers: int | None = None
    threads: int | None = None
    load_mode: str | None = None
    main_gpu: int | None = None
    context_shift: bool = False

    @property
    def context_per_slot(self) -> int | None:
        """Tokens that one request may use: Ollama gives each slot a cache of its own."""
        return self.context // self.slots if self.context is not None and self.slots else None


def parse_command(command: str | Sequence[str]) -> Child | None:
    """The settings of a llama-server's command line; None where the line is none of Ollama's."""
    words = _words(command) if isinstance(command, str) else list(command)
    if not words or "llama-server" not in words[0].replace("\\", "/").rsplit("/", 1)[-1]:
        return None
    flags = _flags(words[1:])
    model = flags.get("--model", flags.get("-m"))
    if not model:
        return None
    return Child(
        model=model,
        port=_number(flags.get("--port")),
        context=_number(flags.get("-c", flags.get("--ctx-size"))),
        slots=_number(flags.get("-np", flags.get("--parallel"))),
        type_k=flags.get("--cache-type-k", "f16"),
        type_v=flags.get("--cache-type-v", "f16"),
        flash_attention=flags.get("--flash-attn", "auto"),
        batch=_number(flags.get("-b")),
        ubatch=_number(flags.get("-ub")),
        gpu_layers=_number(flags.get("-ngl")),
        threads=_number(flags.get("-t")),
        load_mode=flags.get("--load-mode"),
        main_gpu=_number(flags.get("--main-gpu")),
        context_shift="--context-shift" in flags,
    )


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _flags(words: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    position = 0
    while position < len(words):
        name = words[position]
        takes = name in _WITH_VALUE and position + 1 < len(words)
        found[name] = words[position + 1] if takes else ""
        position += 2 if takes else 1
    return found


def _number(text: str | None) -> int | None:
    try:
        return int(text) if text else None
    except ValueError:
        return None
