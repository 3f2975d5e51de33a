"""Two configurations measured in pairs of restart blocks, in an order that coins decide."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from attrs import define, field, frozen

from velollm_core.backends.backend import Applies, Backend
from velollm_core.benchmark.warmup import BRIEF, WarmUp
from velollm_core.errors import BackendError

if TYPE_CHECKING:
    from velollm_core.backends.setting import Value
    from velollm_core.benchmark.arm import Arm
    from velollm_core.benchmark.session import Session
    from velollm_core.models.spec import ModelSpec

SPARE = 1.2
BAD_PAIRS = 2


class Restartable(Backend, Applies, Protocol):
    """A backend that VeloLLM can load a model into with settings of its choice."""


class ArmRefused(BackendError):
    """The engine does not start with this arm's settings; ``arm`` is its name."""

    def __init__(self, arm: str, error: BackendError) -> None:
        super().__init__(str(error), status=error.status, kind=error.kind)
        self.arm = arm


@frozen
class Started:
    """An arm that runs: what the engine reads back, the seconds its start took, and its warm-up."""

    read_back: Mapping[str, Value]
    load_seconds: float
    warm_up: WarmUp


@define
class Duel:
    """Measures ``arms`` against each other on ``backend``, which it restarts for every block.

    Each pair's order is decided by a coin of its own, tossed from ``seed``: under equal speeds every sign of a pair's
    log-ratio is then a coin's, whatever the machine drifts, which is what the sign-flip test assumes. (Mirroring every
    second pair, strict ABBA, would make neighbours alike under correlated noise, and verdicts too bold.)
    """

    backend: Restartable
    model: ModelSpec
    arms: tuple[Arm, Arm]
    session: Session
    seed: str
    started: dict[str, Started] = field(factory=dict)

    async def run(self, budget: float) -> int:
        """Measure pairs until another one like those so far might pass ``budget`` seconds; returns how many were begun.

        How many fit is all that decides the number: nobody looks at the figures before the end.

        Raises:
            ArmRefused: the engine does not start with one of the arms' settings.
            BackendError: blocks fail again and again.
        """
        began, pairs, bad, spent = self.session.now(), 0, 0, 0.0
        while spent + SPARE * spent / max(pairs, 1) <= budget:
            bad = 0 if await self._pair(pairs) else bad + 1
            pairs += 1
            spent = self.session.now() - began
            if bad >= BAD_PAIRS:
                raise BackendError(
                    f"{self.backend.name}: {bad} pairs of blocks in a row gave no figures", kind="failed"
                )
        return pairs

    async def start(self, arm: Arm) -> None:
        """Load the model with the settings of ``arm`` and warm it up.

        Raises:
            ArmRefused: the engine does not start with them.
        """
        began = self.session.now()
        self.session.arm = arm.name
        try:
            await self.backend.apply(self.model, arm.settings)
            read_back = await self.backend.read_back()
        except BackendError as error:
            raise ArmRefused(arm.name, error) from error
        loaded = self.session.now() - began
        self.started[arm.name] = Started(dict(read_back), loaded, await self.session.warm_up(BRIEF))

    def order(self, pair: int) -> tuple[Arm, Arm]:
        """The arms as the coin of pair number ``pair`` fell."""
        first, second = self.arms
        return (first, second) if random.Random(f"{self.seed}/{pair}").random() < 0.5 else (second, first)

    async def _pair(self, index: int) -> bool:
        self.session.block = 2 * index
        good = True
        for arm in self.order(index):
            await self.start(arm)
            samples = await self.session.measure_block(f"pair {index + 1}, {arm.name}")
            good = good and any(sample.counts for sample in samples)
        return good
