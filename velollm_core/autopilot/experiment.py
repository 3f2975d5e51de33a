"""Measuring two configurations of one backend, from the first load to the last block."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from velollm_core.autopilot.shape import first_workload, fitted_workload
from velollm_core.benchmark.duel import ArmRefused, Duel
from velollm_core.benchmark.environment import describe
from velollm_core.benchmark.guard import guard
from velollm_core.benchmark.listener import Chorus
from velollm_core.benchmark.pair import Pair, pair_up
from velollm_core.benchmark.quality import Guarded
from velollm_core.benchmark.session import Session
from velollm_core.benchmark.store import SampleFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velollm_core.autopilot.journal import Journal
    from velollm_core.autopilot.shape import Shape
    from velollm_core.backends.status import Status
    from velollm_core.benchmark.arm import Arm
    from velollm_core.benchmark.block import Block
    from velollm_core.benchmark.circumstances import Circumstances
    from velollm_core.benchmark.duel import Restartable, Started
    from velollm_core.benchmark.sample import Sample
    from velollm_core.benchmark.workload import Workload
    from velollm_core.models.spec import ModelSpec

WANTED_PAIRS = 7
OVERHEAD = 2.5
"""How many times a request's own time a block takes, with load and warm-up, where a machine is so slow that one is all
it holds.
"""


@frozen
class Setup:
    """What is compared: the first of ``arms`` is what runs today, the second what was planned."""

    backend: Restartable
    status: Status
    model: ModelSpec
    name: str
    arms: tuple[Arm, Arm]
    shape: Shape
    budget: float


@define
class Findings:
    """Everything an experiment has seen so far; it grows while the experiment runs.

    ``refused`` names the arm that the engine would not start with, ``reason`` says why. ``resumed`` counts the pairs
    of earlier runs among ``pairs``; ``pair_seconds`` is what a pair took in this one. ``guarded`` is whether the arms
    give the same answers.
    """

    workload: Workload
    pairs: list[Pair] = field(factory=list)
    blocks: list[Block] = field(factory=list)
    samples: list[Sample] = field(factory=list)
    started: dict[str, Started] = field(factory=dict)
    resumed: int = 0
    refused: str | None = None
    reason: str | None = None
    seconds: float = 0.0
    pair_seconds: float | None = None
    guarded: Guarded = field(factory=Guarded)


@define
class Experiment:
    """One comparison, resumed from its journal where it was stopped before; ``findings`` are always up to date."""

    setup: Setup
    journal: Journal
    under: Circumstances
    findings: Findings = field(init=False)

    def __attrs_post_init__(self) -> None:
        workload = self.journal.workload or first_workload(self.setup.name, self.setup.shape)
        self.findings = Findings(workload)
        for run in self.journal.earlier:
            self._add(run.samples, run.blocks)
        self.findings.resumed = len(self.findings.pairs)

    async def run(self) -> None:
        """Measure until the budget is spent. However it ends, what was there before is back and nothing is left open.

        Raises:
            BackendError: today's settings do not start, or nothing can be measured.
        """
        run = secrets.token_hex(4)
        with SampleFile(self.journal.path, run) as file:
            session = Session(self.setup.backend, self.findings.workload, self.under)
            duel = Duel(self.setup.backend, self.setup.model, self.setup.arms, session, seed=run)
            try:
                await self._fly(duel, session, file)
            except ArmRefused as error:
                self.findings.refused, self.findings.reason = error.arm, str(error)
            finally:
                self.findings.started = dict(duel.started)
                self.findings.seconds += session.now()
                self._add(session.samples, session.blocks)
                await self._restore()

    async def _fly(self, duel: Duel, session: Session, file: SampleFile) -> None:
        if self.journal.workload is None:
            await self._begin(duel, session)
        self.findings.guarded = await guard(duel, self.setup.name, self.setup.budget)
        environment = describe(self.setup.backend.name, self.setup.status, self.under.hardware)
        arms = {arm.name: {each.name: each.value for each in arm.settings} for arm in self.setup.arms}
        # The rule by which it will stop, on record before the first pair: when the budget is spent, whatever was found.
        file.begin(session.workload, environment, arms=arms, budget_seconds=self.setup.budget)
        file.quality(self.findings.guarded)
        session.restart(Chorus(file, self.under.listener))
        before = session.now()
        pairs = await duel.run(self.setup.budget - before)
        self.findings.pair_seconds = (session.now() - before) / max(pairs, 1)

    async def _begin(self, duel: Duel, session: Session) -> None:
        today, planned = self.setup.arms
        try:
            await duel.start(today)
        except ArmRefused:
            # Only if the plan does start is there anything to choose.
            await duel.start(planned)
            raise
        limit = (self.setup.budget - session.now()) / (2 * WANTED_PAIRS) / OVERHEAD
        session.workload = await fitted_workload(session, self.setup.shape, limit=limit)
        self.findings.workload = session.workload

    async def _restore(self) -> None:
        try:
            # A server of our own only has to end; one that ran before gets back what it ran with.
            if self.setup.status.running:
                await self.setup.backend.roll_back()
        finally:
            await self.setup.backend.close()

    def _add(self, samples: Sequence[Sample], blocks: Sequence[Block]) -> None:
        for pair in pair_up(samples, blocks):
            self.findings.pairs.append(pair)
        self.findings.blocks.extend(blocks)
        self.findings.samples.extend(samples)
