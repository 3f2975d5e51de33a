"""Thousands of simulated experiments: how often verdicts are wrong, on machines that drift, correlate and jump."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from velollm_core.autopilot.duration import duration
from velollm_core.autopilot.experiment import Experiment, Setup
from velollm_core.autopilot.journal import Journal
from velollm_core.autopilot.outcome import conclude
from velollm_core.autopilot.shape import Shape
from velollm_core.backends.setting import Setting
from velollm_core.backends.status import Status
from velollm_core.benchmark.arm import Arm
from velollm_core.benchmark.circumstances import Circumstances
from velollm_core.benchmark.comparison import DELTA, Comparison, Verdict, compare_pairs, compare_strata
from velollm_core.benchmark.duel import Duel
from velollm_core.benchmark.side import ONE_RUN
from velollm_core.commands.benchmark import command

EXPERIMENTS = 2000
# What the default budget of three minutes gives with the test model: blocks of seven seconds.
PAIRS = 12


def steady(rng: random.Random) -> Callable[[], float]:
    """Independent noise of 3%."""
    return lambda: rng.gauss(0, 0.03)


def drifting(rng: random.Random) -> Callable[[], float]:
    """AR(1) noise of 2.5% on a machine that heats up or cools down by up to a fifth meanwhile."""
    state, slope = [rng.gauss(0, 0.025), 0.0], rng.uniform(-0.2, 0.2) / (2 * PAIRS)

    def draw() -> float:
        state[0] = 0.7 * state[0] + math.sqrt(1 - 0.49) * rng.gauss(0, 0.025)
        state[1] += slope
        return state[0] + state[1] + rng.gauss(0, 0.015)

    return draw


def jumping(rng: random.Random) -> Callable[[], float]:
    """The drifting machine, with other work that takes up to half of it in one block of fifteen."""
    calm = drifting(rng)
    return lambda: calm() + (rng.uniform(0.1, 0.7) if rng.random() < 1 / 15 else 0.0)


def turning(rng: random.Random) -> Callable[[], float]:
    """A slow wave of 10%, such as a fan or a neighbour makes, whose length nobody knows."""
    phase, step = rng.uniform(0, 6.3), rng.uniform(0.1, 3.1)
    state = [phase]

    def draw() -> float:
        state[0] += step
        return 0.1 * math.sin(state[0]) + rng.gauss(0, 0.01)

    return draw


MACHINES = {"steady": steady, "drifting": drifting, "jumping": jumping, "turning": turning}


def experiment(rng: random.Random, machine: str, effect: float, pairs: int) -> Comparison:
    """The comparison with a planned arm that is truly ``effect`` (a log-ratio) faster, by the duel's own coins."""
    duel = Duel(None, None, (Arm("default"), Arm("planned")), None, seed=str(rng.random()))  # type: ignore[arg-type]
    noise = MACHINES[machine](rng)
    ratios = []
    for index in range(pairs):
        seconds = {arm.name: noise() - (effect if arm.name == "planned" else 0.0) for arm in duel.order(index)}
        ratios.append(seconds["default"] - seconds["planned"])
    return compare_pairs("speed", ratios)


def verdicts(machine: str, effect: float, *, pairs: int = PAIRS, experiments: int = EXPERIMENTS) -> Counter[Verdict]:
    rng = random.Random(f"{machine}/{effect}/{pairs}")
    return Counter(experiment(rng, machine, effect, pairs).verdict for _ in range(experiments))


@pytest.mark.parametrize(("machine", "pairs"), [*((name, PAIRS) for name in MACHINES), ("drifting", 6)])
def test_the_same_against_the_same_is_rarely_called_different(machine: str, pairs: int) -> None:
    found = verdicts(machine, 0.0, pairs=pairs)
    assert found["faster"] + found["slower"] <= 0.05 * EXPERIMENTS


@pytest.mark.parametrize("machine", ["steady", "drifting", "jumping"])
def test_students_t_below_six_pairs_keeps_its_promise_where_noise_is_near_normal(machine: str) -> None:
    """2 000 experiments tell a rate to one percent."""
    found = verdicts(machine, 0.0, pairs=4)
    assert found["faster"] + found["slower"] <= 0.06 * EXPERIMENTS


@pytest.mark.parametrize("machine", ["steady", "drifting"])
def test_five_percent_are_found_within_the_default_budget(machine: str) -> None:
    found = verdicts(machine, math.log(1.05))
    assert found["faster"] >= 0.9 * EXPERIMENTS
    assert found["slower"] == 0


def test_wild_blocks_cost_evidence_but_not_truth() -> None:
    found = verdicts("jumping", math.log(1.05), pairs=24, experiments=500)
    assert found["faster"] >= 0.9 * 500
    assert found["slower"] <= 0.01 * 500


@pytest.mark.parametrize("machine", MACHINES)
def test_just_beyond_the_margin_is_rarely_called_equivalent(machine: str) -> None:
    found = verdicts(machine, math.log(1 + DELTA) + 1e-9, pairs=40, experiments=300)
    assert found["equivalent"] <= 0.05 * 300


@pytest.mark.parametrize("machine", ["steady", "drifting", "jumping"])
def test_what_is_called_equivalent_is_so(machine: str) -> None:
    """Effects of up to 6% either way, pairs enough to claim: of the claims 95% are true."""
    rng = random.Random(machine)
    claims = []
    for _ in range(500):
        effect = rng.uniform(-0.06, 0.06)
        if experiment(rng, machine, effect, 40).verdict == "equivalent":
            claims.append(abs(effect) <= math.log(1 + DELTA))
    assert len(claims) >= 25
    assert sum(claims) >= 0.95 * len(claims)


@pytest.mark.parametrize("machine", ["steady", "drifting", "jumping"])
def test_a_gain_within_the_margin_is_rarely_accepted(machine: str) -> None:
    rng = random.Random(machine)
    accepted = sum(experiment(rng, machine, math.log(1 + DELTA), PAIRS).accepted for _ in range(EXPERIMENTS))
    assert accepted <= 0.04 * EXPERIMENTS


@pytest.mark.parametrize("machine", ["steady", "drifting"])
def test_what_is_detectable_is_detected_four_times_out_of_five(machine: str) -> None:
    """Each experiment names an effect that its pairs would show; planted in the next one, it mostly shows."""
    rng = random.Random(machine)
    shown = 0
    for _ in range(500):
        effect = experiment(rng, machine, 0.0, PAIRS).minimum_detectable_effect
        assert effect is not None
        shown += experiment(rng, machine, math.log1p(effect), PAIRS).verdict == "faster"
    assert 0.7 * 500 <= shown <= 0.9 * 500


def files(rng: random.Random, starts: float, runs: int) -> Verdict:
    """The verdict on two files of the same, whose ``runs`` differ by ``starts`` and whose requests by 2%."""
    sides = [
        [[level + rng.gauss(0, 0.02) for _ in range(5)] for level in (rng.gauss(0, starts) for _ in range(runs))]
        for _ in range(2)
    ]
    first, second = (side[0] if runs == 1 else [sum(run) / 5 for run in side] for side in sides)
    return compare_strata("speed", [(first, second)], extra=ONE_RUN if runs == 1 else 0.0).verdict


@pytest.mark.parametrize(("starts", "runs"), [(0.02, 1), (0.02, 3), (0.1, 4), (0.0, 3)])
def test_files_of_the_same_are_rarely_called_different(starts: float, runs: int) -> None:
    rng = random.Random(f"{starts}/{runs}")
    found = Counter(files(rng, starts, runs) for _ in range(EXPERIMENTS))
    assert found["faster"] + found["slower"] <= 0.05 * EXPERIMENTS


@pytest.mark.parametrize(("factor", "verdict"), [(1 / 1.05, "faster"), (1.05, "slower")])
def test_the_default_budget_holds_so_many_pairs_and_the_whole_way_finds_the_effect(
    virtually: Any, loop_clock: Any, quiet: Any, paced: Any, tmp_path: Path, factor: float, verdict: str
) -> None:
    """From loads and warm-ups to the verdict, at the pace that the test model of 204 MiB has on two cores."""
    default = next(each for each in command.params if each.name == "budget").default
    budget = duration(None, None, default)  # type: ignore[arg-type]
    backend = paced(ttft=0.45, gap=0.0125, sigma=0.03, load_delay=0.3, slower={1: factor})
    arms = (Arm("default"), Arm("planned", (Setting("threads", 1, "flag", "why", "rule"),)))
    setup = Setup(backend, Status(reachable=True), None, "m", arms, Shape(), budget)  # type: ignore[arg-type]
    run = Experiment(setup, Journal(tmp_path / "e.jsonl"), Circumstances(clock=loop_clock, sources=quiet))
    virtually(run.run())
    comparison = conclude(setup, run.findings).comparison
    assert comparison is not None
    assert comparison.pairs >= PAIRS
    assert comparison.verdict == verdict
