"""Restart blocks in pairs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from velollm_core.backends.setting import Setting
from velollm_core.benchmark.arm import Arm
from velollm_core.benchmark.circumstances import Circumstances
from velollm_core.benchmark.duel import ArmRefused, Duel
from velollm_core.benchmark.pair import pair_up, speed
from velollm_core.benchmark.session import Session
from velollm_core.benchmark.suites import conversation
from velollm_core.errors import BackendError

ARMS = (Arm("default"), Arm("planned", (Setting("threads", 1, "flag", "why", "rule"),)))


@pytest.fixture
def duel_of(virtually: Any, loop_clock: Any, quiet: Any) -> Any:
    def fight(backend: Any, budget: float = 30.0, seed: str = "s") -> Duel:
        async def go() -> Duel:
            under = Circumstances(clock=loop_clock, sources=quiet)
            session = Session(backend, conversation("m", "say it", 11), under)
            duel = Duel(backend, None, ARMS, session, seed)  # type: ignore[arg-type]
            await duel.run(budget)
            return duel

        return virtually(go())  # type: ignore[no-any-return]

    return fight


def test_it_finds_the_ratio_and_keeps_to_the_budget(duel_of: Any, paced: Any) -> None:
    duel = duel_of(paced(slower={1: 0.8}, load_delay=1.0))
    pairs = pair_up(duel.session.samples, duel.session.blocks)
    assert len(pairs) >= 6
    assert max(sample.timing.ended for sample in duel.session.samples) <= 30.0
    ratios = [pair.log_ratio("default", "planned", speed) for pair in pairs]
    assert ratios == [pytest.approx(0.2231, abs=1e-3)] * len(pairs)


def test_every_block_is_a_restart_read_back_and_warmed_up(duel_of: Any, paced: Any) -> None:
    backend = paced(load_delay=1.0)
    duel = duel_of(backend)
    assert len(backend.applied) == len(duel.session.blocks)
    assert duel.started["planned"].read_back == {"threads": 1}
    assert duel.started["default"].load_seconds == pytest.approx(1.0)
    by_block = Counter(sample.block for sample in duel.session.samples if sample.warm_up)
    assert set(by_block.values()) == {1}


def test_coins_decide_the_order_and_the_seed_decides_the_coins(duel_of: Any, paced: Any) -> None:
    orders = [[block.arm for block in duel_of(paced(), seed=seed).session.blocks] for seed in ("a", "a", "b")]
    assert orders[0] == orders[1] != orders[2]
    firsts = Counter(orders[0][::2])
    assert min(firsts.values()) > len(orders[0]) / 2 * 0.2
    assert all({one, two} == {"default", "planned"} for one, two in zip(orders[0][::2], orders[0][1::2], strict=True))


def test_settings_that_do_not_load_are_a_constraint(duel_of: Any, paced: Any) -> None:
    with pytest.raises(ArmRefused, match="cannot load with threads=1") as caught:
        duel_of(paced(refuses={1}))
    assert caught.value.arm == "planned"


def test_blocks_that_all_fail_end_it(duel_of: Any, paced: Any) -> None:
    with pytest.raises(BackendError, match="2 pairs of blocks in a row gave no figures"):
        duel_of(paced(failures=[BackendError("gone")] * 99), budget=1e6)


def test_a_budget_too_small_gives_one_pair(duel_of: Any, paced: Any) -> None:
    duel = duel_of(paced(load_delay=20.0), budget=5.0)
    assert len(duel.session.blocks) == 2
