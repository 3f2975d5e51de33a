"""The race over a running engine: from the first load to the winner."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from velollm_core.autopilot.shape import first_workload, fitted_workload
from velollm_core.benchmark.arm import Arm
from velollm_core.benchmark.duel import ArmRefused, Duel
from velollm_core.benchmark.environment import describe
from velollm_core.benchmark.listener import Chorus
from velollm_core.benchmark.pair import score
from velollm_core.benchmark.session import Session
from velollm_core.benchmark.store import SampleFile
from velollm_core.tuning.candidate import Candidate, planned, with_option
from velollm_core.tuning.logbook import kept_scores, kept_workload
from velollm_core.tuning.pruning import Pruner
from velollm_core.tuning.race import Race
from velollm_core.tuning.trial import Trial

if TYPE_CHECKING:
    from velollm_core.autopilot.shape import Shape
    from velollm_core.backends.status import Status
    from velollm_core.backends.variation import Variation
    from velollm_core.benchmark.circumstances import Circumstances
    from velollm_core.benchmark.duel import Restartable
    from velollm_core.benchmark.pair import Score
    from velollm_core.benchmark.workload import Workload
    from velollm_core.planning.optimized import Optimized
    from velollm_core.tuning.logbook import Logbook

# The rest of the budget is the final's, whose figures are the ones that count.
RACE_SHARE = 0.6


@frozen
class Tuning:
    """What is tuned: the plan in ``found`` by ``variations``, against the settings called ``today``."""

    backend: Restartable
    status: Status
    found: Optimized
    variations: tuple[Variation, ...]
    shape: Shape
    budget: float
    today: str


@define
class Search:
    """One race, resumed from its logbook; what it has found is always up to date.

    ``winner`` is None until a candidate was measured. ``spent`` are this run's seconds.
    """

    tuning: Tuning
    logbook: Logbook
    under: Circumstances
    pruner: Pruner
    trials: list[Trial] = field(factory=list)
    unfinished: list[str] = field(factory=list)
    winner: Candidate | None = None
    workload: Workload | None = None
    spent: float = 0.0
    _kept: dict[str, list[Score]] = field(factory=dict, init=False)

    async def run(self) -> None:
        """Race until a winner is found or the race's part of the budget is spent.

        Raises:
            BackendError: neither the plan nor today's settings start, or nothing can be timed.
        """
        earlier = self.logbook.race_runs()
        self._kept, self.workload = kept_scores(earlier), kept_workload(earlier)
        backend, plan = self.tuning.backend, self.tuning.found.plan
        with SampleFile(self.logbook.race_path, secrets.token_hex(4)) as file:
            session = Session(backend, self.workload or self._first_workload(), self.under)
            arms = (Arm(self.tuning.today), planned(plan).arm)
            duel = Duel(backend, self.tuning.found.model.spec, arms, session, seed=self.logbook.seed)
            try:
                await self._begin(duel, session, file)
                await self._race(duel)
            finally:
                self.spent = session.now()
                await self._restore()

    async def _begin(self, duel: Duel, session: Session, file: SampleFile) -> None:
        if self.workload is None:
            try:
                await duel.start(duel.arms[1])
            except ArmRefused:
                await duel.start(duel.arms[0])
            session.workload = self.workload = await fitted_workload(session, self.tuning.shape)
        environment = describe(self.tuning.backend.name, self.tuning.status, self.under.hardware)
        file.begin(session.workload, environment, stage="race")
        session.restart(Chorus(file, self.under.listener))

    async def _race(self, duel: Duel) -> None:
        async def measure(candidate: Candidate, stage: str, number: int) -> float | None:
            trial = self._taken_over(candidate, stage, number) or await self._try(duel, candidate, stage, number)
            self.trials.append(trial)
            return trial.score.seconds if trial.score else None

        limit = RACE_SHARE * self.tuning.budget
        race = Race(measure, lambda: duel.session.now() < limit, self.logbook.seed)
        plan = self.tuning.found.plan
        leader: Candidate | None = planned(plan)
        for variation in self.tuning.variations:
            base = leader or planned(plan)
            options = {each.name: each for each in (with_option(base, option, plan) for option in variation.options)}
            options.pop(base.name, None)
            leader = await race.best(variation.name, self.pruner.keep([base, *options.values()])) or leader
            if race.unfinished:
                break
        self.unfinished, self.winner = race.unfinished, leader

    def _taken_over(self, candidate: Candidate, stage: str, number: int) -> Trial | None:
        # Decisions follow from scores and seed alone, so the k-th question about a candidate is the same again.
        kept = self._kept.get(candidate.name)
        return Trial(candidate.name, stage, number, kept.pop(0), resumed=True) if kept else None

    async def _try(self, duel: Duel, candidate: Candidate, stage: str, number: int) -> Trial:
        session = duel.session
        try:
            await duel.start(candidate.arm)
        except ArmRefused as error:
            return Trial(candidate.name, stage, number, None, str(error))
        for _ in range(2):
            samples = await session.measure_block(f"{stage}, round {number + 1}: {candidate.name}")
            if session.blocks[-1].noise.verdict != "invalid":
                break
        found = score(samples)
        failed = next((sample.timing.failure.message for sample in samples if sample.timing.failure), "no answer timed")
        return Trial(candidate.name, stage, number, found, None if found else failed)

    def _first_workload(self) -> Workload:
        return first_workload(self.tuning.found.model.name, self.tuning.shape)

    async def _restore(self) -> None:
        try:
            # A server of our own only has to end; one that ran before gets back what it ran with.
            if self.tuning.status.running:
                await self.tuning.backend.roll_back()
        finally:
            await self.tuning.backend.close()
