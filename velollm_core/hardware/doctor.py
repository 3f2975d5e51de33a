"""The report for a bug: every raw answer a machine gave, without what names its owner, in one JSON object.

`detect` reads such a report as it reads a machine, so that each can become a test.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from velollm_core.errors import VeloError
from velollm_core.hardware.loose import at
from velollm_core.hardware.recording import KINDS, Recording
from velollm_core.hardware.redact import Redactor

SCHEMA = "velollm.doctor/1"
PACKAGES = ("velollm", "psutil", "nvidia-ml-py", "attrs", "cattrs", "pluggy", "aiohttp", "rich", "click")


def redactor_here() -> Redactor:
    """One that knows this machine's home folder, user and host."""
    import getpass

    try:
        user: str | None = getpass.getuser()
    except (OSError, KeyError):
        user = None
    try:
        home: str | None = str(Path.home())
    except RuntimeError:
        home = None
    return Redactor(home=home, user=user, host=platform.node() or None)


def doctor_report(kept: Mapping[str, Mapping[str, object]], redactor: Redactor, **fields: object) -> dict[str, object]:
    """The report over a `Recorder`'s answers; ``fields`` (plain JSON: the hardware, the backends) are redacted too."""
    redactor.learn([dict(kept), fields])
    values = {
        name: redactor.complete(value)
        if name.endswith("_VISIBLE_DEVICES") and isinstance(value, str)
        else redactor.value(value)
        for name, value in kept.get("values", {}).items()
    }
    return {
        "schema": SCHEMA,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "evidence": {**{kind: redactor.value(answers) for kind, answers in kept.items()}, "values": values},
        **{name: redactor.value(value) for name, value in fields.items()},
    }


def read_report(path: Path) -> Recording:
    """The evidence in a report that ``velollm detect --doctor`` wrote.

    Raises:
        VeloError: the file is missing, no JSON, or no such report.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise VeloError(f"{path}: cannot be read as JSON ({error})") from error
    evidence = at(found, "evidence")
    if at(found, "schema") != SCHEMA or not isinstance(evidence, dict):
        raise VeloError(f"{path}: is no report; write one with `velollm detect --doctor FILE`")
    if any(not isinstance(evidence.get(kind), dict) for kind in KINDS):
        raise VeloError(f"{path}: its evidence lacks one of {', '.join(KINDS)}")
    return Recording(evidence)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
