"""What `velollm optimize --measure` leaves on the table: its choice against an exhaustive grid, on a real llama.cpp.

    python benchmarks/regret.py [--size medium] [--blocks 3] [--workload long --workload deep] [--pairs-seconds 120]

Each workload is measured three times over, on the llama.cpp that velollm-llamacpp brings and a model made from a seed:

- the grid: every combination of threads × flash attention × type of the KV cache × ubatch, each in as many restart
  blocks as asked for, all in random order; the engine's own defaults run along, outside the grid's time;
- the tuning: as users run it, with a third of the time that the grid took;
- the two choices against each other on fresh data, in pairs: the grid's best is the best of many noisy figures and
  therefore flattered, so that only a second look tells what was really lost.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import os
import random
import tempfile
import time
from pathlib import Path
from statistics import fmean

from attrs import asdict, frozen

from velollm_core.autopilot.experiment import Experiment, Setup
from velollm_core.autopilot.journal import Journal
from velollm_core.autopilot.outcome import conclude
from velollm_core.autopilot.shape import Shape, first_workload, fitted_workload
from velollm_core.benchmark.arm import Arm
from velollm_core.benchmark.circumstances import Circumstances
from velollm_core.benchmark.duel import Duel
from velollm_core.benchmark.pair import score
from velollm_core.benchmark.session import Session
from velollm_core.benchmark.store import RunLog
from velollm_core.benchmark.workload import Workload
from velollm_core.errors import BackendError
from velollm_core.hardware.machine import Hardware
from velollm_core.hardware.probe import detect_hardware
from velollm_core.planning.optimized import Wanted, optimize
from velollm_core.plugins import Plugins
from velollm_core.testing.test_model import write_test_model
from velollm_core.tuning.candidate import Candidate, planned, with_option
from velollm_core.tuning.search import Tuning
from velollm_core.tuning.tune import logbook_for, prepare, tune
from velollm_core.views.progress import BudgetBar

SHAPES = {"long": Shape(1500, 8), "deep": Shape(2000, 192)}
VARIED = ("threads", "attention", "ubatch")
DEFAULT = "default"


@frozen
class Grid:
    """Every candidate's times of a request, in seconds; ``seconds`` is what measuring took, the default's apart."""

    times: dict[str, list[float]]
    refused: dict[str, str]
    seconds: float
    workload: Workload

    def mean(self, name: str) -> float:
        """The geometric mean of the candidate's times."""
        return math.exp(fmean(math.log(each) for each in self.times[name]))

    @property
    def best(self) -> str:
        """The fastest candidate, the default not among them."""
        return min((name for name in self.times if name != DEFAULT), key=self.mean)


def combinations(tuning: Tuning) -> list[Candidate]:
    """Every combination of what is varied, the plan's own values among them."""
    plan = tuning.found.plan
    ways = [(None, *each.options) for each in tuning.variations if each.name in VARIED]
    found: dict[str, Candidate] = {}
    for options in itertools.product(*ways):
        candidate = planned(plan)
        for option in options:
            candidate = with_option(candidate, option, plan) if option else candidate
        found.setdefault(candidate.name, candidate)
    return list(found.values())


async def measure_grid(tuning: Tuning, under: Circumstances, candidates: list[Candidate], blocks: int) -> Grid:
    """Measure each candidate and the default in ``blocks`` restart blocks, in random order within each round."""
    session = Session(tuning.backend, first_workload(tuning.found.model.name, tuning.shape), under)
    arms = {DEFAULT: Arm(DEFAULT), **{each.name: each.arm for each in candidates}}
    plan_arm = planned(tuning.found.plan).arm
    duel = Duel(tuning.backend, tuning.found.model.spec, (arms[DEFAULT], plan_arm), session, "grid")
    times: dict[str, list[float]] = {}
    refused: dict[str, str] = {}
    spent = 0.0
    try:
        await duel.start(plan_arm)
        session.workload = await fitted_workload(session, tuning.shape)
        for number in range(blocks):
            order = sorted(arms.values(), key=lambda arm: random.Random(f"{number}/{arm.name}").random())
            for arm in order:
                if arm.name in refused:
                    continue
                began = time.monotonic()
                try:
                    await duel.start(arm)
                    found = score(await session.measure_block(f"grid {number + 1}/{blocks}: {arm.name}"))
                    if found is None:
                        refused[arm.name] = "no answer could be timed"
                    else:
                        times.setdefault(arm.name, []).append(found.seconds)
                except BackendError as error:
                    refused[arm.name] = str(error)
                if arm.name != DEFAULT:
                    spent += time.monotonic() - began
    finally:
        await tuning.backend.close()
    return Grid(times, refused, spent, session.workload)


def second_look(tuning: Tuning, under: Circumstances, grid: Grid, arms: tuple[Arm, Arm], seconds: float) -> str:
    """The two arms in pairs on fresh data, as one line."""
    if arms[0].settings == arms[1].settings:
        return "the grid's best and the choice are the same settings"
    model = tuning.found.model
    setup = Setup(tuning.backend, tuning.status, model.spec, model.name, arms, tuning.shape, seconds)
    with tempfile.TemporaryDirectory() as folder:
        asked = RunLog("grid", {"workload": asdict(grid.workload)})
        experiment = Experiment(setup, Journal(Path(folder) / "look.jsonl", (asked,)), under)
        asyncio.run(experiment.run())
    comparison = conclude(setup, experiment.findings).comparison
    if comparison is None:
        return "nothing was compared"
    low, high = (comparison.interval.low, comparison.interval.high) if comparison.interval else (0.0, math.inf)
    return f"{comparison.ratio:.3f} ({low:.3f} to {high:.3f}), {comparison.pairs} pairs: {comparison.verdict}"


def judge(name: str, tuning: Tuning, hardware: Hardware, options: argparse.Namespace) -> None:
    """Grid, tuning and second look for one workload, printed."""
    under = Circumstances(status=tuning.status, hardware=hardware)
    candidates = combinations(tuning)
    print(f"\n{name}: {tuning.shape.prompt_tokens} tokens in, {tuning.shape.answer_tokens} out", flush=True)
    grid = asyncio.run(measure_grid(tuning, under, candidates, options.blocks))
    for each in sorted(grid.times, key=grid.mean):
        print(f"  {grid.mean(each):8.3f} s  {each}  [{' '.join(f'{value:.3f}' for value in grid.times[each])}]")
    for each, reason in grid.refused.items():
        print(f"  refused: {each}: {reason}")
    if set(grid.times) <= {DEFAULT}:
        return
    budget = grid.seconds * options.share
    began = time.monotonic()
    found = prepare(tuning.found, hardware, tuning.shape, budget)
    with BudgetBar(budget) as bar:
        tuned, _ = tune(found, hardware, logbook_for(found, fresh=True), bar)
    took = time.monotonic() - began
    known = tuned.winner in grid.times
    arms = {DEFAULT: Arm(DEFAULT), **{each.name: each.arm for each in candidates}}
    print(f"  grid: {len(candidates)} settings × {options.blocks} blocks, {grid.seconds:.0f} s; best: {grid.best}")
    print(f"  tuning: {took:.0f} s = {took / grid.seconds:.1%} of the grid's time, {len(tuned.trials)} trials")
    print(f"  winner: {tuned.winner}; chosen: {tuned.chosen} ({tuned.reason})")
    for label, each in (("winner", tuned.winner), ("chosen", tuned.chosen)):
        if each in grid.times:
            print(f"  {label} / best by the grid's own figures: {grid.mean(grid.best) / grid.mean(each):.3f}")
    if known and options.pairs_seconds:
        both = (arms[grid.best], Arm("choice", arms[tuned.chosen].settings))
        look = second_look(tuning, under, grid, both, options.pairs_seconds)
        print(f"  chosen / best on fresh data: {look}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["small", "medium"], default="medium")
    parser.add_argument("--blocks", type=int, default=3, help="restart blocks for each setting of the grid")
    parser.add_argument("--share", type=float, default=1 / 3, help="the tuning's part of the grid's time")
    parser.add_argument("--pairs-seconds", type=float, default=120.0, help="time for the second look; 0: none")
    parser.add_argument("--workload", action="append", choices=sorted(SHAPES), help="default: both")
    parser.add_argument("--prompt-tokens", type=int, help="instead of the workload's own")
    parser.add_argument("--answer-tokens", type=int, help="instead of the workload's own")
    options = parser.parse_args()
    os.environ.setdefault("VELOLLM_LLAMACPP_BINARY", "embedded")
    hardware, plugins = detect_hardware(), Plugins.load()
    with tempfile.TemporaryDirectory() as folder:
        model = str(write_test_model(Path(folder) / "model.gguf", options.size))
        for name in options.workload or SHAPES:
            own = SHAPES[name]
            shape = Shape(options.prompt_tokens or own.prompt_tokens, options.answer_tokens or own.answer_tokens)
            context = 1024 * math.ceil((shape.prompt_tokens * 1.2 + shape.answer_tokens) / 1024)
            found = optimize(plugins, hardware, Wanted("llamacpp", model, context, 1))
            judge(name, prepare(found, hardware, shape, budget=1.0), hardware, options)


if __name__ == "__main__":
    main()
