"""One set of settings in the race."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from velollm_core.backends.setting import Plan, Setting
from velollm_core.benchmark.arm import Arm

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from velollm_core.backends.variation import Option
    from velollm_core.models.load import LoadSettings

PLANNED = "planned"


@frozen
class Candidate:
    """``settings`` as a whole, and the same in the engine's terms; ``name`` says what differs from the plan."""

    name: str
    settings: tuple[Setting, ...]
    load: LoadSettings | None = None

    @property
    def arm(self) -> Arm:
        """What a comparison calls it."""
        return Arm(self.name, self.settings)


def planned(plan: Plan) -> Candidate:
    """The plan as it is: where the race begins."""
    return Candidate(PLANNED, plan.settings, plan.load)


def with_option(candidate: Candidate, option: Option, plan: Plan) -> Candidate:
    """``candidate`` with the settings of ``option`` in place of its own; those that it lacks are added."""
    chosen = {setting.name: setting for setting in option.settings}
    kept = [_replaced(setting, chosen.pop(setting.name, None)) for setting in candidate.settings]
    settings = (*kept, *chosen.values())
    load = candidate.load
    if load is not None and option.load:
        load = evolve(load, **dict(option.load))  # type: ignore[arg-type]  # the backend names fields of its own loads
    return Candidate(_name(settings, plan), settings, load)


def measured_plan(plan: Plan, candidate: Candidate, raced: Sequence[str]) -> Plan:
    """``plan`` with the settings of ``candidate``; those called ``raced`` rest on measurement now."""
    settings = tuple(evolve(each, evidence="measured") if each.name in raced else each for each in candidate.settings)
    return evolve(plan, settings=settings, load=candidate.load)


def _replaced(setting: Setting, other: Setting | None) -> Setting:
    return setting if other is None or other.value == setting.value else other


def _name(settings: Iterable[Setting], plan: Plan) -> str:
    before = {setting.name: setting.value for setting in plan.settings}
    changed = [each for each in settings if each.name not in before or before[each.name] != each.value]
    return " ".join(f"{each.name}={each.value}" for each in changed) or PLANNED
