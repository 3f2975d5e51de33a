"""Plugins made on the fly, and the command run as its users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen


@frozen
class Outcome:
    """What a command left behind: its two streams, and its exit code."""

    stdout: str
    stderr: str
    code: int


def install_plugin(
    folder: Path,
    name: str,
    source: str,
    *,
    distribution: str | None = None,
    version: str = "1.0",
    summary: str = "A plugin made for a test.",
    commands: Mapping[str, str] | None = None,
) -> Path:
    """Install a plugin of one module ``source`` under ``folder``, to be put on the path; returns that folder.

    ``name`` is the entry point's; the module is ``velollm_NAME``, the distribution ``velollm-NAME`` unless given.
    ``commands`` maps command names to objects of the module.
    """
    module, project = f"velollm_{name}".replace("-", "_"), distribution or f"velollm-{name}"
    info = folder / f"{project.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\nSummary: {summary}\n")
    lines = ["[velollm]", f"{name} = {module}", "[velollm.commands]"]
    lines += [f"{command} = {module}:{target}" for command, target in (commands or {}).items()]
    (info / "entry_points.txt").write_text("\n".join([*lines, ""]))
    (info / "RECORD").write_text(f"{module}.py,,\n{info.name}/METADATA,,\n{info.name}/entry_points.txt,,\n")
    return folder


def run_cli(
    *arguments: str | Path,
    plugins: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    home: Path | None = None,
    timeout: float = 120.0,
    stdin: str = "",
) -> Outcome:
    """Run ``velollm ARGUMENTS`` in a process of its own.

    ``plugins`` are folders of `install_plugin`; ``home`` holds configuration, cache and state instead of the user's;
    ``timeout`` in seconds ends a command that hangs.
    """
    path = os.pathsep.join([*map(str, plugins), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    places = (
        {f"XDG_{place}_HOME": str(home / place.lower()) for place in ("CONFIG", "CACHE", "STATE", "DATA")}
        if home
        else {}
    )
    done = subprocess.run(
        [sys.executable, "-m", "velollm_core", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=timeout,
        input=stdin,
        cwd=folder,
        env={**os.environ, **places, **(environment or {}), **({"PYTHONPATH": path} if path else {})},
    )
    return Outcome(done.stdout, done.stderr, done.returncode)
