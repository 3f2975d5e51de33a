"""The environment of one Ollama server, as written and as Ollama reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import field, frozen

from velollm_core.errors import VeloError
from velollm_ollama import catalogue
from velollm_ollama.finding import Finding
from velollm_ollama.lint import is_ours, lint
from velollm_ollama.reading import as_read, as_written
from velollm_ollama.version import NEWEST, Version

if TYPE_CHECKING:
    from velollm_ollama.log import ServerLog


@frozen
class OllamaConfig:
    """``typed`` holds the text of each variable that somebody set, ``logged`` what a start log says became of it.

    ``origin`` says where this was read. ``version`` None means unknown: the newest tables are used.
    """

    origin: str
    version: Version | None = None
    typed: Mapping[str, str] = field(factory=dict)
    logged: Mapping[str, str] = field(factory=dict)

    @classmethod
    def from_env(
        cls, environment: Mapping[str, str] | None = None, version: Version | None = None, origin: str = "this shell"
    ) -> OllamaConfig:
        """The variables of ``environment`` (this process's own by default) that are Ollama's or pass through it."""
        source = os.environ if environment is None else environment
        return cls(origin, version, {name: text for name, text in source.items() if is_ours(name)})

    @classmethod
    def from_server_log(cls, text: str, origin: str = "server log") -> OllamaConfig:
        """What the last start in a server's log says; raises `VeloError` where the log holds none."""
        from velollm_ollama.log import read_log

        return cls.from_log(read_log(text), origin)

    @classmethod
    def from_log(cls, log: ServerLog, origin: str = "server log") -> OllamaConfig:
        """The same from a log already read."""
        if not log.values:
            raise VeloError(f'{origin}: holds no start of an Ollama server (no line with msg="server config")')
        version = log.version
        read = {name: value for name, value in log.values.items() if catalogue.find(name)}
        typed = {warning.name: warning.value for warning in log.warnings}
        for name, value in read.items():
            variable = catalogue.variables_in(version).get(name)
            written = as_written(variable, value, version or NEWEST) if variable else None
            if written is not None:
                typed.setdefault(name, written)
        return cls(origin, version, typed, read)

    @classmethod
    def from_process(cls, pid: int, version: Version | None = None) -> OllamaConfig:
        """The environment that process ``pid`` was started with; raises `VeloError` where it may not be read."""
        from velollm_ollama.process import environment_of

        return cls.from_env(environment_of(pid), version, origin=f"process {pid}")

    @property
    def read(self) -> dict[str, str]:
        """What Ollama makes of it: every variable of the version, as the start log prints it."""
        version = self.version or NEWEST
        computed = {
            name: as_read(variable, self.typed.get(name), version)
            for name, variable in catalogue.variables_in(version).items()
        }
        return computed | dict(self.logged)

    @property
    def settings(self) -> dict[str, str]:
        """The variables that are set to something, sorted by name."""
        return {name: text for name, text in sorted(self.typed.items()) if text.strip()}

    def merge(self, other: OllamaConfig) -> OllamaConfig:
        """Both, ``other`` winning; what the log said no longer holds once something is changed."""
        return OllamaConfig(
            f"{self.origin} + {other.origin}", other.version or self.version, {**self.typed, **other.typed}
        )

    def lint(self) -> tuple[Finding, ...]:
        """Everything that Ollama would misread, ignore or fall over."""
        return lint(self.typed, self.version)

    def to_env_exports(self) -> str:
        """A shell script of exports; raises `VeloError` where a setting would not do what it says."""
        from velollm_ollama.writers import write

        return write(self.settings, ".sh", self.version)
