"""Settings read back from the files that people keep them in: shell exports, env files, systemd drop-ins, compose."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

from velollm_core.errors import VeloError
from velollm_ollama.config import OllamaConfig
from velollm_ollama.lint import is_ours
from velollm_ollama.version import Version

_ASSIGNMENT: Final = re.compile(r"^(?:export\s+)?([A-Za-z_]\w*)=(.*)$", re.ASCII)
_LAUNCHCTL: Final = re.compile(r"^launchctl\s+setenv\s+(\w+)\s+(.*)$", re.ASCII)
_COMPOSE: Final = re.compile(r"^\s*-?\s*([A-Za-z_]\w*)\s*[:=]\s*(.*)$", re.ASCII)
_LOG_MARK: Final = 'msg="server config"'


def read_settings(path: Path, version: Version | None = None) -> OllamaConfig:
    """The settings in ``path``, whose content tells its form; raises `VeloError` where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise VeloError(f"{path}: cannot be read ({error.strerror or error})") from error
    if _LOG_MARK in text:
        return OllamaConfig.from_server_log(text, str(path))
    return OllamaConfig.from_env(parse_settings(text, path.suffix), version, str(path))


def parse_settings(text: str, suffix: str = "") -> dict[str, str]:
    """Ollama's variables in ``text``; the last of a name wins. Lines of any other kind are skipped."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        line = line.strip()
        if line and not line.startswith(("#", ";")):
            found.update(_pairs(line, suffix))
    return {name: value for name, value in found.items() if is_ours(name)}


def _pairs(line: str, suffix: str) -> dict[str, str]:
    if line.startswith("Environment="):
        return _systemd(line.removeprefix("Environment="))
    if match := _LAUNCHCTL.match(line) or _ASSIGNMENT.match(line):
        return {match[1]: match[2] if suffix == ".env" else _word(match[2])}
    if match := _COMPOSE.match(line):
        return {match[1]: _word(match[2]).replace("$$", "$")}
    return {}


def _systemd(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in _words(text):
        name, separator, value = word.replace("%%", "%").partition("=")
        if separator:
            pairs[name] = value
    return pairs


def _word(text: str) -> str:
    words = _words(text, comments=True)
    return words[0] if words else ""


def _words(text: str, *, comments: bool = False) -> list[str]:
    try:
        return shlex.split(text, comments=comments)
    except ValueError:
        return [text.strip()]
