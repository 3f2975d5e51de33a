"""One variable of the server's environment, and one that merely passes through it."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from velollm_ollama.version import OLDEST_READ, Triple, Version

Kind = Literal["bool", "tristate", "uint", "duration", "level", "host", "kv_type", "list", "text"]


@frozen
class Variable:
    """One variable that Ollama's server reads.

    ``defaults`` are (since, default) pairs, oldest first, as the start log prints them; ``since`` is the first release
    read here that has it (0.5.0: it is older), ``until`` the first one without it. ``unit`` belongs to a number.
    ``trap`` is what goes wrong in practice, ``instead`` what to use where it is gone. ``logged`` says whether the
    start log shows it, ``tunes`` whether it changes speed or memory, ``inert_since`` the release from which a GGUF
    model no longer notices it.
    """

    name: str
    kind: Kind
    effect: str
    defaults: tuple[tuple[Triple, str], ...] = ((OLDEST_READ, ""),)
    since: Triple = OLDEST_READ
    until: Triple | None = None
    unit: str = ""
    trap: str = ""
    instead: str = ""
    logged: bool = True
    tunes: bool = False
    inert_since: Triple | None = None

    def exists_in(self, version: Version) -> bool:
        """Whether that version reads it."""
        if self.until is not None and version.at_least(self.until):
            return False
        return version.at_least(self.since)

    def default_in(self, version: Version) -> str:
        """Its default in that version, as the start log prints it."""
        fitting = [default for since, default in self.defaults if version.at_least(since)]
        return fitting[-1] if fitting else self.defaults[0][1]


@frozen
class PassThrough:
    """A variable of llama.cpp's server that Ollama's environment carries to the child, from 0.30 on.

    ``effective`` is False where Ollama always passes the flag itself, which wins. ``condition`` says when it acts.
    """

    name: str
    effect: str
    effective: bool = True
    unit: str = ""
    condition: str = ""
    documented: bool = False
