"""Which Ollama answers: its settings and its engine changed between versions."""

from __future__ import annotations

import re
from typing import Literal

from attrs import frozen

Engine = Literal["runners", "llama-server"]
Triple = tuple[int, int, int]

LLAMA_SERVER_SINCE: Triple = (0, 30, 0)
CACHED_COUNT_SINCE: Triple = (0, 33, 3)
OLDEST_READ: Triple = (0, 5, 0)
NEWEST_READ: Triple = (0, 33, 0)

_PATTERN = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(.*)", re.ASCII)


@frozen
class Version:
    """One release. ``suffix`` (``-rc2``) does not count: a release candidate already has its release's settings."""

    major: int
    minor: int
    patch: int
    suffix: str = ""

    @property
    def triple(self) -> Triple:
        """The three numbers, to compare."""
        return (self.major, self.minor, self.patch)

    @property
    def development(self) -> bool:
        """Whether this is a build from source, which calls itself 0.0.0: taken for newer than every release."""
        return self.triple == (0, 0, 0)

    @property
    def newer_than_read(self) -> bool:
        """Whether its settings may differ from the tables here, which end with 0.33."""
        return self.development or self.triple[:2] > NEWEST_READ[:2]

    @property
    def engine(self) -> Engine:
        """Who runs a GGUF: Ollama's own runners before 0.30, a llama-server child since."""
        return "llama-server" if self.at_least(LLAMA_SERVER_SINCE) else "runners"

    def at_least(self, triple: Triple) -> bool:
        """Whether this version has what came with ``triple``."""
        return self.development or self.triple >= triple

    def __str__(self) -> str:
        """The version as Ollama writes it."""
        return f"{self.major}.{self.minor}.{self.patch}{self.suffix}"


NEWEST = Version(*NEWEST_READ)


def parse_version(text: str | None) -> Version | None:
    """The version in ``/api/version``'s answer or a log line; None where the text is none."""
    match = _PATTERN.fullmatch((text or "").strip())
    if match is None:
        return None
    return Version(int(match[1]), int(match[2]), int(match[3]), match[4])
