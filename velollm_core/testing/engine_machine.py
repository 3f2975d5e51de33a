"""The engine's properties as a state machine: hypothesis looks for the sequence of calls that breaks them."""

from __future__ import annotations

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.layout import KVCacheLayout, KVGroup
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.testing.engine_rig import EngineRig, MakeBlocks, MakeScheduler

SEARCH = settings(max_examples=150, stateful_step_count=40, deadline=None)
STEM = [17 * index % 50 for index in range(40)]
SEEDS = st.integers(0, 2**32 - 1).map(Random)


def some_rig(
    random: Random, make_blocks: MakeBlocks, make_scheduler: MakeScheduler, rig: type[EngineRig] = EngineRig
) -> EngineRig:
    """An engine that is tight somewhere: blocks, budget, places, or none; with or without windows, swap, drafts."""
    windows = random.choice([(None,), (None,), (None,), (None, 5), (None, 3, 9), (4,)])
    groups = tuple(KVGroup(1, random.choice([4, 12]), window) for window in windows)
    layout = KVCacheLayout(groups, random.choice([1, 2, 3, 4, 8]), typical_tokens=24)
    places = random.randint(1, 6)
    limits = SchedulerLimits(
        max_num_seqs=places,
        max_num_batched_tokens=places + random.randint(0, 20),
        max_model_len=random.randint(20, 100),
        watermark=random.choice([0.0, 0.01, 0.2]),
        max_draft_tokens=random.choice([0, 0, 1, 3]) if windows == (None,) else 0,
        swap_tokens=random.choice([0, 0, 30, 1000]),
        patience=random.choice([0, 3, 1000]),
    )
    memory = random.randint(6, 30) * sum(layout.bytes_per_block) + sum(layout.bytes_per_block) * 4 * (len(groups) - 1)
    return rig(make_blocks, make_scheduler, layout, memory, limits, lateness=random.randint(0, 2))


def some_request(random: Random, rig: EngineRig) -> None:
    """A request that may share a prefix with others."""
    rig.add(
        STEM[: random.randint(0, 30)] + random.choices(range(50), k=random.randint(1, 5)),
        SamplingParams(
            max_tokens=random.randint(1, 30), min_tokens=random.choice([0, 0, 3]), seed=random.randint(0, 2)
        ),
        priority=random.randint(0, 2),
        stop=random.choice([None, None, random.randrange(50)]),
    )


def engine_machine(
    make_blocks: MakeBlocks, make_scheduler: MakeScheduler, rig: type[EngineRig] = EngineRig
) -> type[RuleBasedStateMachine]:
    """The state machine over an `EngineRig` made of these two."""
    kind = rig

    class EngineMachine(RuleBasedStateMachine):
        rig: EngineRig

        @initialize(random=SEEDS)
        def start(self, random: Random) -> None:
            self.rig = some_rig(random, make_blocks, make_scheduler, kind)

        @rule(random=SEEDS, count=st.integers(1, 4))
        def add(self, random: Random, count: int) -> None:
            for _ in range(count):
                some_request(random, self.rig)

        @precondition(lambda self: self.rig.live)
        @rule(random=SEEDS)
        def fork(self, random: Random) -> None:
            self.rig.fork(random.choice(list(self.rig.live.values())), seed=random.randint(3, 5))

        @precondition(lambda self: self.rig.live)
        @rule(random=SEEDS)
        def abort(self, random: Random) -> None:
            self.rig.abort(random.choice(list(self.rig.live.values())))

        @rule(count=st.integers(1, 12))
        def steps(self, count: int) -> None:
            for _ in range(count):
                self.rig.step()

        def teardown(self) -> None:
            if hasattr(self, "rig"):
                self.rig.drain()

    return EngineMachine
