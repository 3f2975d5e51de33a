"""The machine a plan is made for: this one, or one that `velollm detect --json` described."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from velollm_core.hardware.machine import Hardware


def machine(file: Path | None) -> Hardware:
    """This machine, or the one in ``file``.

    Raises:
        VeloError: the file is not what `velollm detect --json` writes.
    """
    if file is not None:
        from velollm_core.hardware.machine import Hardware
        from velollm_core.render import read_document

        return read_document(file, "detect", "hardware", Hardware)
    from velollm_core.hardware.probe import detect_hardware

    return detect_hardware()
