"""What `velollm optimize --measure` leaves on the table: its choice against an exhaustive grid, on a real llama.cpp.

    python benchmarks/regret.py --state DIR [--blocks 3] [--slice 300] [--workload long --workload deep]

Each workload is measured three times over, on the llama.cpp that velollm-llamacpp brings and a model made from a seed:

- the grid: every combination of threads × flash attention × type of the KV cache × ubatch, each in as many restart
  blocks as asked for, all in random order; the engine's own defaults run along, outside the grid's time;
- the tuning: as users run it, with a third of the time that the grid took;
- the two choices against each other on fresh data, in pairs: the grid's best is the best of many noisy figures and
  therefore flattered, so that only a second look tells what was really lost.

The model has many heads over few KV heads and little else, so that attention decides its speed: flash attention is then
right for a long prompt and wrong for a long answer. All samples stay in DIR. With ``--slice`` a call stops after so
many seconds, with exit code 75, and the next one goes on where it stopped: so that it can be run in the quiet minutes
of a machine. A tuning is never cut in two.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import os
import random
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from attrs import asdict, define, frozen

from velollm_core.autopilot.experiment import Experiment, Setup
from velollm_core.autopilot.journal import Journal
from velollm_core.autopilot.outcome import conclude
from velollm_core.autopilot.shape import Shape, first_workload, fitted_workload
from velollm_core.benchmark.arm import Arm
from velollm_core.benchmark.circumstances import Circumstances
from velollm_core.benchmark.comparison import Comparison
from velollm_core.benchmark.duel import Duel
from velollm_core.benchmark.environment import describe
from velollm_core.benchmark.listener import Chorus, Silent
from velollm_core.benchmark.pair import score
from velollm_core.benchmark.session import Session
from velollm_core.benchmark.store import RunLog, SampleFile, read_runs
from velollm_core.errors import BackendError
from velollm_core.hardware.machine import Hardware
from velollm_core.hardware.probe import detect_hardware
from velollm_core.planning.optimized import Wanted, optimize
from velollm_core.plugins import Plugins
from velollm_core.render import to_json, write_text
from velollm_core.testing.test_model import ModelShape, write_test_model
from velollm_core.tuning.candidate import Candidate, planned, with_option
from velollm_core.tuning.search import Tuning
from velollm_core.tuning.tune import logbook_for, prepare, tune

MODEL = ModelShape(3, 1024, 16, 4, 768, 2048, 8192, quantized=True, seed=3, later_volume=0.15)
SHAPES = {"long": Shape(2000, 8), "deep": Shape(2000, 1000)}
VARIED = ("threads", "attention", "ubatch")
DEFAULT = "default"
BAR = 0.97
GO_ON = 75


class SliceOver(Exception):
    """The call's seconds are spent."""


@define
class Slice:
    """One call's share of the time."""

    seconds: float
    began: float

    def check(self, needed: float = 0.0) -> None:
        """Go on only where ``needed`` seconds more are left, or nothing was done yet.

        Raises:
            SliceOver: they are not.
        """
        spent = time.monotonic() - self.began
        if spent + needed > self.seconds and spent > 20:
            raise SliceOver


@frozen
class Grid:
    """Every candidate's times of a request, in seconds; ``seconds`` is what measuring took, the default's apart."""

    times: dict[str, list[float]]
    refused: dict[str, str]
    seconds: float

    def mean(self, name: str) -> float:
        """The geometric mean of the candidate's times."""
        return math.exp(fmean(math.log(each) for each in self.times[name]))

    @property
    def best(self) -> str:
        """The fastest candidate, the default not among them."""
        return min((name for name in self.times if name != DEFAULT), key=self.mean)


@define
class Judge:
    """One workload: its ``folder`` keeps what was measured."""

    name: str
    tuning: Tuning
    hardware: Hardware
    options: argparse.Namespace
    slice: Slice
    folder: Path

    @property
    def arms(self) -> dict[str, Arm]:
        """Every combination of what is varied, the plan's own values among them, and the engine's default."""
        plan = self.tuning.found.plan
        ways = [(None, *each.options) for each in self.tuning.variations if each.name in VARIED]
        found: dict[str, Candidate] = {}
        for options in itertools.product(*ways):
            candidate = planned(plan)
            for option in options:
                candidate = with_option(candidate, option, plan) if option else candidate
            found.setdefault(candidate.name, candidate)
        return {DEFAULT: Arm(DEFAULT), **{each.name: each.arm for each in found.values()}}

    def entries(self) -> Iterator[dict[str, Any]]:
        """The blocks of the grid so far."""
        path = self.folder / "grid.jsonl"
        yield from (json.loads(line) for line in path.read_text().splitlines()) if path.exists() else ()

    def grid(self) -> Grid:
        """The grid as far as it is measured."""
        times: dict[str, list[float]] = {}
        refused: dict[str, str] = {}
        spent = 0.0
        for entry in self.entries():
            if entry["seconds"] is None:
                refused[entry["arm"]] = entry["reason"]
            else:
                times.setdefault(entry["arm"], []).append(entry["seconds"])
            spent += entry["took"] if entry["arm"] != DEFAULT else 0.0
        return Grid(times, refused, spent)

    async def measure_grid(self) -> None:
        """Measure what of the grid is missing, in random order within each round."""
        done = {(entry["round"], entry["arm"]) for entry in self.entries()}
        gone = {entry["arm"] for entry in self.entries() if entry["seconds"] is None}
        missing = [
            (number, arm)
            for number in range(self.options.blocks)
            for arm in sorted(self.arms.values(), key=lambda arm: random.Random(f"{number}/{arm.name}").random())
            if (number, arm.name) not in done and arm.name not in gone
        ]
        if not missing:
            return
        under = Circumstances(status=self.tuning.status, hardware=self.hardware)
        samples = self.folder / "grid-samples.jsonl"
        earlier = read_runs(samples) if samples.exists() else []
        workload = Journal(samples, tuple(earlier)).workload
        session = Session(
            self.tuning.backend, workload or first_workload(self.tuning.found.model.name, self.tuning.shape), under
        )
        plan_arm = planned(self.tuning.found.plan).arm
        duel = Duel(self.tuning.backend, self.tuning.found.model.spec, (Arm(DEFAULT), plan_arm), session, "grid")
        with SampleFile(samples, secrets.token_hex(4)) as file:
            try:
                if workload is None:
                    await duel.start(plan_arm)
                    session.workload = await fitted_workload(session, self.tuning.shape)
                file.begin(session.workload, describe("llamacpp", self.tuning.status, self.hardware))
                session.restart(Chorus(file, Silent()))
                for number, arm in missing:
                    self.slice.check()
                    await self._block(duel, number, arm)
            finally:
                await self.tuning.backend.close()

    async def _block(self, duel: Duel, number: int, arm: Arm) -> None:
        began, reason, found = time.monotonic(), None, None
        try:
            await duel.start(arm)
            found = score(await duel.session.measure_block(f"grid {number + 1}: {arm.name}"))
            reason = None if found else "no answer could be timed"
        except BackendError as error:
            reason = str(error)
        entry = {"round": number, "arm": arm.name, "seconds": found.seconds if found else None, "reason": reason}
        with (self.folder / "grid.jsonl").open("a") as file:
            noise = duel.session.blocks[-1].noise if found else None
            took = time.monotonic() - began
            file.write(json.dumps({**entry, "took": took, "noise": noise.verdict if noise else None}) + "\n")

    def tuned(self, grid: Grid) -> dict[str, Any]:
        """What the tuning chose, and how long it took; measured where it was not yet."""
        path = self.folder / "tuned.json"
        if path.exists():
            kept: dict[str, Any] = json.loads(path.read_text())
            return kept
        budget = grid.seconds * self.options.share
        self.slice.check(1.1 * budget)
        began = time.monotonic()
        found = prepare(self.tuning.found, self.hardware, self.tuning.shape, budget)
        tuned, _ = tune(found, self.hardware, logbook_for(found, fresh=True), Silent())
        took = time.monotonic() - began
        comparison = tuned.comparison
        chosen = {
            "winner": tuned.winner,
            "chosen": tuned.chosen,
            "reason": tuned.reason,
            "took": took,
            "budget": budget,
            "trials": [
                [each.stage, each.candidate, each.score.seconds if each.score else None] for each in tuned.trials
            ],
            "unfinished": tuned.unfinished,
            "final": asdict(comparison) if comparison else None,
            "quality": asdict(tuned.quality) if tuned.quality else None,
            "samples": str(tuned.samples),
        }
        write_text(path, to_json(chosen))
        return chosen

    def second_look(self, best: Arm, choice: Arm) -> Comparison | None:
        """The two in pairs on fresh data; None where they are the same settings."""
        if best.settings == choice.settings:
            return None
        path = self.folder / f"look-{self.options.pairs_seconds:.0f}.jsonl"
        model, asked = self.tuning.found.model, RunLog("grid", {"workload": asdict(self._workload())})
        arms = (Arm("best", best.settings), Arm("choice", choice.settings))
        setup = Setup(
            self.tuning.backend,
            self.tuning.status,
            model.spec,
            model.name,
            arms,
            self.tuning.shape,
            self.options.pairs_seconds,
        )
        earlier = tuple(read_runs(path)) if path.exists() else ()
        experiment = Experiment(
            setup,
            Journal(path, (*earlier, asked)),
            Circumstances(status=self.tuning.status, hardware=self.hardware),
        )
        if not earlier:
            self.slice.check(self.options.pairs_seconds)
            asyncio.run(experiment.run())
        return conclude(setup, experiment.findings).comparison

    def _workload(self) -> Any:
        workload = Journal(Path(), tuple(read_runs(self.folder / "grid-samples.jsonl"))).workload
        assert workload is not None, "the grid was measured"
        return workload

    def judge(self) -> str:
        """Grid, tuning and second look, printed; the grid's best."""
        self.folder.mkdir(parents=True, exist_ok=True)
        asyncio.run(self.measure_grid())
        grid = self.grid()
        tuned = self.tuned(grid)
        choice = self.arms[DEFAULT if tuned["chosen"] == self.tuning.today else tuned["chosen"]]
        look = self.second_look(self.arms[grid.best], choice)
        for line in self._lines(grid, tuned, choice, look):
            print(line, flush=True)
        return grid.best

    def _lines(self, grid: Grid, tuned: dict[str, Any], choice: Arm, look: Comparison | None) -> Iterator[str]:
        shape = self.tuning.shape
        yield f"\n{self.name}: {shape.prompt_tokens} tokens in, {shape.answer_tokens} out"
        for each in sorted(grid.times, key=grid.mean):
            yield f"  {grid.mean(each):8.3f} s  {each}  [{' '.join(f'{value:.3f}' for value in grid.times[each])}]"
        for each, reason in grid.refused.items():
            yield f"  refused: {each}: {reason}"
        blocks = len(self.arms) - 1
        yield f"  grid: {blocks} settings × {self.options.blocks} blocks, {grid.seconds:.0f} s; best: {grid.best}"
        share = tuned["took"] / grid.seconds
        yield f"  tuning: {tuned['took']:.0f} s = {share:.1%} of the grid's time, {len(tuned['trials'])} trials"
        yield f"  winner: {tuned['winner']}; chosen: {tuned['chosen']} ({tuned['reason']})"
        for label, name in (("winner", tuned["winner"]), ("chosen", choice.name)):
            if name in grid.times:
                yield f"  {label} / best by the grid's own figures: {grid.mean(grid.best) / grid.mean(name):.3f}"
        yield f"  chosen / best on fresh data: {_told(look)}"
        yield f"  at most a third of the grid's time: {'yes' if share <= 1 / 3 else 'NO'}"


def _told(look: Comparison | None) -> str:
    if look is None:
        return f"the same settings: at least {BAR:.0%} of the best: yes"
    if look.interval is None:
        return f"{look.ratio:.3f}, one pair: at least {BAR:.0%} of the best: undecided"
    low, high = look.interval.low, look.interval.high
    held = "yes" if low >= BAR else "NO" if high < BAR else "undecided"
    figures = f"{look.ratio:.3f} ({low:.3f} to {high:.3f}), {look.pairs} pairs: {look.verdict.replace('_', ' ')}"
    return f"{figures}; at least {BAR:.0%} of the best: {held}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, required=True, help="folder of the samples; a call goes on with its own")
    parser.add_argument("--blocks", type=int, default=3, help="restart blocks for each setting of the grid")
    parser.add_argument("--share", type=float, default=0.32, help="the tuning's budget, as a part of the grid's time")
    parser.add_argument("--pairs-seconds", type=float, default=120.0, help="time for the second look")
    parser.add_argument("--slice", type=float, default=math.inf, help="seconds after which to stop with exit code 75")
    parser.add_argument("--workload", action="append", choices=sorted(SHAPES), help="default: both")
    options = parser.parse_args()
    os.environ.setdefault("VELOLLM_LLAMACPP_BINARY", "embedded")
    os.environ["XDG_STATE_HOME"] = str((options.state / "state").resolve())
    slice_ = Slice(options.slice, time.monotonic())
    model = options.state / "model.gguf"
    if not model.exists():
        write_test_model(model, MODEL)
    hardware = detect_hardware()
    best = []
    try:
        for name in options.workload or SHAPES:
            found = optimize(Plugins.load(), hardware, Wanted("llamacpp", str(model), 4096, 1))
            tuning = prepare(found, hardware, SHAPES[name], budget=1.0)
            best.append(Judge(name, tuning, hardware, options, slice_, options.state / name).judge())
    except SliceOver:
        print("the slice is over: the same command goes on", file=sys.stderr)
        sys.exit(GO_ON)
    if len(best) > 1:
        print(f"\nthe best settings differ: {'yes' if len(set(best)) > 1 else 'NO'}")


if __name__ == "__main__":
    main()
