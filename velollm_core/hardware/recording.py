"""Evidence kept as one JSON object, and answered from it again: how a bug report becomes a test."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from attrs import define, field, frozen

from velollm_core.hardware.evidence import Evidence, ToolRun
from velollm_core.hardware.loose import at, whole

KINDS = ("files", "directories", "links", "tools", "values")


@define
class Recorder:
    """Passes every question on to ``source`` and keeps the answer; safe to use from several threads."""

    source: Evidence
    kept: dict[str, dict[str, object]] = field(factory=lambda: {kind: {} for kind in KINDS})

    def read(self, path: str) -> str | None:
        answer = self.kept["files"][path] = self.source.read(path)
        return answer

    def names(self, path: str) -> tuple[str, ...]:
        answer = self.source.names(path)
        self.kept["directories"][path] = list(answer)
        return answer

    def link(self, path: str) -> str | None:
        answer = self.kept["links"][path] = self.source.link(path)
        return answer

    def run(self, *argv: str) -> ToolRun:
        answer = self.source.run(*argv)
        self.kept["tools"][_key(argv)] = {
            "exit_code": answer.exit_code,
            "stdout": answer.stdout,
            "stderr": answer.stderr,
            "error": answer.error,
        }
        return answer

    def value(self, name: str, compute: Callable[[], object]) -> object:
        answer = self.kept["values"][name] = self.source.value(name, compute)
        return answer


@frozen
class Recording:
    """The answers of a `Recorder`, read back from JSON. What was never asked is absent; nothing is computed."""

    kept: Mapping[str, object]

    def read(self, path: str) -> str | None:
        return _kept_text(at(self.kept, "files", path))

    def names(self, path: str) -> tuple[str, ...]:
        answer = at(self.kept, "directories", path)
        return tuple(name for name in answer if isinstance(name, str)) if isinstance(answer, list) else ()

    def link(self, path: str) -> str | None:
        return _kept_text(at(self.kept, "links", path))

    def run(self, *argv: str) -> ToolRun:
        answer = at(self.kept, "tools", _key(argv))
        if answer is None:
            return ToolRun(argv, None, error="not found")
        stdout, stderr, error = (_kept_text(at(answer, name)) for name in ("stdout", "stderr", "error"))
        return ToolRun(argv, whole(at(answer, "exit_code")), stdout or "", stderr or "", error)

    def value(self, name: str, compute: Callable[[], object]) -> object:
        return at(self.kept, "values", name)


def _kept_text(answer: object) -> str | None:
    return answer if isinstance(answer, str) else None


def _key(argv: Sequence[str]) -> str:
    return json.dumps(list(argv))
