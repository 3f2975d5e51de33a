"""Writing down what was chosen, for people to start their server with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from velollm_core.backends.backend import Backend, Emits
from velollm_core.config import state_dir
from velollm_core.errors import VeloError
from velollm_core.render import write_text

if TYPE_CHECKING:
    from velollm_core.backends.setting import Plan


def check_output(backend: Backend, output: Path | None) -> None:
    """Refuse a file that the backend cannot write before anything is measured.

    Raises:
        VeloError: the suffix is none of the backend's.
    """
    if output is None:
        return
    known = tuple(backend.suffixes) if isinstance(backend, Emits) else ()
    if not known:
        raise VeloError(f"-o {output.name}: {backend.name} writes no settings to files; see `velollm optimize --json`")
    if output.suffix and output.suffix not in known:
        raise VeloError(f"-o {output.name}: {backend.name} writes {', '.join(known)}")


def write_chosen(backend: Backend, plan: Plan, output: Path | None, *, planned: bool) -> Path | None:
    """Write the settings to ``output``, or to the state directory where nothing was asked for.

    Without ``planned`` the engine's own defaults are written, and only where ``output`` asks for them. Returns the
    file, None where there is none to write.
    """
    if not isinstance(backend, Emits) or not (planned or output):
        return None
    if not planned:
        note = "measured against a plan, and kept"
        plan = evolve(plan, settings=(), load=None, memory=None, prediction=None, notes=(*plan.notes, note))
    suffix = output.suffix if output is not None and output.suffix else backend.suffixes[0]
    path = output or state_dir() / "autopilot" / f"{backend.name}-{_plain(plan.model)}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, backend.emit(plan, suffix))
    if suffix == ".sh":
        path.chmod(path.stat().st_mode | 0o111)
    return path


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in Path(name).name)
