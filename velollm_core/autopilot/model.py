"""The model to measure with: where there is none, a test model big enough for settings to matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core.choose import ModelChoice
from velollm_core.config import cache_dir
from velollm_core.target import find_model

if TYPE_CHECKING:
    from velollm_core.target import Pick, Target


def measurable_model(target: Target, asked: str | None, pick: Pick | None = None) -> ModelChoice:
    """The model ``asked`` for or found; else the test model of 204 MiB, which is said to be one.

    Raises:
        VeloError: there is no such model.
    """
    chosen = find_model(target, asked, pick)
    if chosen.origin != "test":
        return chosen
    from velollm_core.models.source import load_spec
    from velollm_core.testing.test_model import write_test_model

    path = cache_dir() / "test-model-medium.gguf"
    if not path.is_file():
        write_test_model(path, size="medium")
    return ModelChoice(str(path), load_spec(str(path)), "test", f"{chosen.reason}, of a size at which settings matter")
