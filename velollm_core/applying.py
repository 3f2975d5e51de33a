"""Set a plan, read it back from the engine itself, and return to what was before where the two differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import frozen

from velollm_core.backends.backend import Applies, Backend
from velollm_core.backends.setting import Value
from velollm_core.errors import VeloError
from velollm_core.interruptible import run_interruptibly

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from velollm_core.backends.setting import Plan, Setting
    from velollm_core.models.spec import ModelSpec

Verdict = Literal["equal", "different", "not reported"]


@frozen
class ReadBack:
    """One setting as it was ``wanted`` and as the engine says it runs."""

    name: str
    wanted: Value
    found: Value
    verdict: Verdict


@frozen
class Applied:
    """What came of an apply; with ``rolled_back`` the settings of before are in force again."""

    backend: str
    model: str
    settings: tuple[ReadBack, ...]
    rolled_back: bool

    @property
    def ok(self) -> bool:
        """Whether everything that the engine reports is as wanted."""
        return all(setting.verdict != "different" for setting in self.settings)


def apply_plan(backend: Backend, model: ModelSpec, plan: Plan) -> Applied:
    """Load ``model`` with the settings of ``plan``, compare with what the engine reports, roll back on a difference.

    Raises:
        VeloError: the backend cannot be set, or failed; it has then rolled back by itself.
    """
    if not isinstance(backend, Applies):
        raise VeloError(f"{backend.name}: its settings cannot be set from here; write them with -o FILE")
    try:
        return run_interruptibly(_apply(backend, backend, model, plan))
    except KeyboardInterrupt:
        raise VeloError(f"{backend.name}: stopped before the settings were confirmed") from None


def compare(settings: Sequence[Setting], found: Mapping[str, Value]) -> tuple[ReadBack, ...]:
    """Each setting beside what the engine reports under its name."""
    return tuple(
        ReadBack(setting.name, setting.value, found.get(setting.name), _verdict(setting, found)) for setting in settings
    )


async def _apply(applies: Applies, backend: Backend, model: ModelSpec, plan: Plan) -> Applied:
    try:
        await applies.apply(model, plan.settings)
        settings = compare(plan.settings, await applies.read_back())
        different = any(setting.verdict == "different" for setting in settings)
        if different:
            await applies.roll_back()
        return Applied(backend.name, plan.model, settings, rolled_back=different)
    finally:
        await backend.close()


def _verdict(setting: Setting, found: Mapping[str, Value]) -> Verdict:
    if setting.name not in found:
        return "not reported"
    return "equal" if _same(setting.value, found[setting.name]) else "different"


def _same(wanted: Value, found: Value) -> bool:
    """Whether two values say the same: numbers by value, truth in any of its spellings, text without its case."""
    if wanted == found:
        return True
    if isinstance(wanted, bool) or isinstance(found, bool):
        return _text(wanted) == _text(found)
    try:
        return float(str(wanted)) == float(str(found))
    except ValueError:
        return _text(wanted) == _text(found)


def _text(value: Value) -> str:
    text = str(value).strip().lower()
    return {"true": "on", "1": "on", "enabled": "on", "false": "off", "0": "off", "disabled": "off"}.get(text, text)
