"""The quality guard: do the two configurations of a comparison give the same answers?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core.backends.backend import AltersAnswers
from velollm_core.benchmark.duel import ArmRefused
from velollm_core.benchmark.quality import Guarded, compare_answers, greedy_answers, same_answers
from velollm_core.errors import BackendError

if TYPE_CHECKING:
    from velollm_core.backends.setting import Value
    from velollm_core.benchmark.arm import Arm
    from velollm_core.benchmark.duel import Duel

# Each of up to three passes over the prompts may take so much of the budget; a slow machine asks fewer of them.
SHARE = 0.08


async def guard(duel: Duel, model: str, budget: float) -> Guarded:
    """Compare the greedy answers of both arms where their settings differ in what changes answers.

    Today's arm answers a second time only where the answers differ. ``budget`` are the seconds of the whole comparison.

    Raises:
        ArmRefused: the engine does not start with one of the arms' settings.
    """
    today, other = duel.arms
    if not _may_alter(duel, today, other):
        return Guarded()
    for arm in (today, other):
        if arm.name not in duel.started:
            await duel.start(arm)
    altered = altered_settings(duel)
    if not altered:
        return Guarded()
    clock, limit = duel.session.now, SHARE * budget
    try:
        if duel.session.arm != other.name:
            await duel.start(other)
        found = await greedy_answers(duel.backend, model, seconds=limit, clock=clock)
        await duel.start(today)
        wanted = await greedy_answers(duel.backend, model, len(found))
        again = wanted if same_answers(wanted, found) else await greedy_answers(duel.backend, model, len(found))
    except ArmRefused:
        raise
    except BackendError as error:
        return Guarded(problem=str(error))
    return Guarded(compare_answers(altered, wanted, again, found))


def altered_settings(duel: Duel) -> tuple[str, ...]:
    """Names of the settings in which the arms, as the engine reads them back, differ and that change answers."""
    values = [_values(duel, arm) for arm in duel.arms]
    names = dict.fromkeys(name for each in values for name in each)
    return tuple(name.lstrip("-") for name in names if values[0].get(name) != values[1].get(name))


def _may_alter(duel: Duel, today: Arm, other: Arm) -> bool:
    asked = [{each.name: each.value for each in arm.settings if _alters(duel, each.name)} for arm in (today, other)]
    return asked[0] != asked[1]


def _values(duel: Duel, arm: Arm) -> dict[str, Value]:
    """What ``arm`` runs with, of what changes answers: as read back, else as asked for."""
    asked = {each.name: each.value for each in arm.settings}
    return {name: value for name, value in {**asked, **duel.started[arm.name].read_back}.items() if _alters(duel, name)}


def _alters(duel: Duel, name: str) -> bool:
    # A backend that does not say which settings change answers may have any of them do so.
    return not isinstance(duel.backend, AltersAnswers) or name in duel.backend.altering
