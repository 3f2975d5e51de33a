"""Settings as files and commands, one form for each place where Ollama's server gets its environment from.

Nothing is written that the running version would not read as it stands: a name it does not know or a value it would
misread is an error here.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from velollm_core.errors import VeloError
from velollm_ollama.lint import lint
from velollm_ollama.version import Version

_HEADER: Final = "Ollama settings, written by velollm"


def write(settings: Mapping[str, str], form: str, version: Version | None = None) -> str:
    """``settings`` in the form called by its suffix (`FORMS`).

    Raises:
        VeloError: an unknown form, a name or value that Ollama would not read as written, or one that the form
            cannot hold.
    """
    if form not in FORMS:
        raise VeloError(f"no form {form!r} for Ollama's settings; there are {' '.join(FORMS)}")
    check_writable(settings, version)
    return FORMS[form](settings)


def check_writable(settings: Mapping[str, str], version: Version | None = None) -> None:
    """Raise `VeloError` with everything that Ollama would refuse, ignore or misread."""
    wrong = [f"{name} is not one of Ollama's variables" for name in settings if not _name(name)]
    wrong += [f"{name} holds a line break" for name, value in settings.items() if any(c in value for c in "\n\r\0")]
    wrong += [
        f"{finding.name}={finding.value}: {finding.message}"
        for finding in lint(settings, version)
        if finding.severity == "error" or "has no effect" in finding.message
    ]
    if wrong:
        raise VeloError(f"not written: {'; '.join(wrong)}")


def shell(settings: Mapping[str, str]) -> str:
    """Exports for a shell that then starts ``ollama serve``; they do not reach a service that already runs."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in settings.items()]
    return _text(
        [
            "#!/bin/sh",
            f"# {_HEADER}.",
            "# Source this in the shell that starts `ollama serve`; a service that runs already does not see it.",
            *lines,
        ]
    )


def env_file(settings: Mapping[str, str]) -> str:
    """A file for ``docker run --env-file``, which takes everything behind the first ``=`` as it is."""
    return _text([f"# {_HEADER}", *(f"{name}={value}" for name, value in settings.items())])


def systemd(settings: Mapping[str, str]) -> str:
    """A drop-in for ollama.service; without its ``[Service]`` header systemd would ignore every line."""
    lines = [f'Environment="{_systemd_escape(f"{name}={value}")}"' for name, value in settings.items()]
    return _text(
        [
            f"# {_HEADER}.",
            "# Place: /etc/systemd/system/ollama.service.d/velollm.conf; then",
            "#   sudo systemctl daemon-reload && sudo systemctl restart ollama",
            "[Service]",
            *lines,
        ]
    )


def launchctl(settings: Mapping[str, str]) -> str:
    """Commands for the macOS app; they hold until the next reboot."""
    lines = [f"launchctl setenv {name} {shlex.quote(value)}" for name, value in settings.items()]
    return _text(
        ["#!/bin/sh", f"# {_HEADER}; lost at the next reboot. Quit Ollama and start it again afterwards.", *lines]
    )


def windows(settings: Mapping[str, str]) -> str:
    """A PowerShell script that sets the user's environment; Ollama must be quit and started again."""
    lines = [
        f"[Environment]::SetEnvironmentVariable('{name}', '{_powershell_escape(value)}', 'User')"
        for name, value in settings.items()
    ]
    return _text([f"# {_HEADER}. Quit Ollama in the tray and start it again afterwards.", *lines])


def docker(settings: Mapping[str, str]) -> str:
    """Options of ``docker run``, on one line."""
    return " ".join(f"-e {shlex.quote(f'{name}={value}')}" for name, value in settings.items())


def compose(settings: Mapping[str, str], service: str = "ollama") -> str:
    """A compose file to lay over another: only the environment of ``service``."""
    lines = [
        f"      {name}: {json.dumps(value.replace('$', '$$'), ensure_ascii=False)}" for name, value in settings.items()
    ]
    return _text([f"# {_HEADER}", "services:", f"  {service}:", "    environment:" + ("" if lines else " {}"), *lines])


FORMS: Final[dict[str, Callable[[Mapping[str, str]], str]]] = {
    ".sh": shell,
    ".env": env_file,
    ".conf": systemd,
    ".service": systemd,
    ".launchctl": launchctl,
    ".ps1": windows,
    ".docker": docker,
    ".yaml": compose,
    ".yml": compose,
}
"""Writers by suffix; the first is the default."""


def _name(text: str) -> bool:
    return text.isidentifier() and text.isascii()


def _systemd_escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def _powershell_escape(text: str) -> str:
    # PowerShell takes typographic quotes for quotes too.
    return "".join(character * 2 if character in "'‘’‚‛" else character for character in text)


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"
