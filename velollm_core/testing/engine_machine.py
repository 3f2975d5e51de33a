"""The engine's properties as a state machine: hypothesis looks for the sequence of calls that breaks them."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.layout import KVCacheLayout, KVGroup
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.testing.engine_rig import EngineRig, MakeBlocks, MakeScheduler

TOKENS = st.integers(0, 49)
WINDOWS = st.sampled_from([(None,), (None,), (None,), (None, 5), (None, 3, 9), (4,)])
SEARCH = settings(max_examples=60, stateful_step_count=30, deadline=None)
STEM = [17 * index % 50 for index in range(40)]


@st.composite
def layouts(draw: st.DrawFn) -> KVCacheLayout:
    """Small caches: any block size, with and without windows."""
    groups = tuple(KVGroup(1, draw(st.sampled_from([4, 12])), window) for window in draw(WINDOWS))
    return KVCacheLayout(groups, draw(st.sampled_from([1, 2, 3, 4, 8])), typical_tokens=24)


@st.composite
def limits(draw: st.DrawFn, *, drafts: bool) -> SchedulerLimits:
    """Tight limits: few sequences, small budgets, with and without swap and speculation."""
    num_seqs = draw(st.integers(1, 6))
    return SchedulerLimits(
        max_num_seqs=num_seqs,
        max_num_batched_tokens=num_seqs + draw(st.integers(0, 20)),
        max_model_len=draw(st.integers(10, 90)),
        watermark=draw(st.sampled_from([0.0, 0.01, 0.2])),
        max_draft_tokens=draw(st.sampled_from([0, 1, 3])) if drafts else 0,
        swap_tokens=draw(st.sampled_from([0, 0, 30, 1000])),
        patience=draw(st.sampled_from([0, 3, 1000])),
    )


def engine_machine(make_blocks: MakeBlocks, make_scheduler: MakeScheduler) -> type[RuleBasedStateMachine]:
    """The state machine over an `EngineRig` made of these two."""

    class EngineMachine(RuleBasedStateMachine):
        rig: EngineRig

        @initialize(data=st.data(), layout=layouts(), blocks=st.integers(10, 40), lateness=st.integers(0, 2))
        def start(self, data: st.DataObject, layout: KVCacheLayout, blocks: int, lateness: int) -> None:
            plain = all(group.window is None for group in layout.groups)
            bounds = data.draw(limits(drafts=plain))
            memory = blocks * sum(layout.bytes_per_block)
            self.rig = EngineRig(make_blocks, make_scheduler, layout, memory, bounds, lateness)

        @rule(
            shared=st.integers(0, 30),
            own=st.lists(TOKENS, min_size=1, max_size=6),
            max_tokens=st.integers(1, 25),
            seed=st.integers(0, 2),
            priority=st.integers(0, 2),
            stop=st.none() | TOKENS,
        )
        def add(self, shared: int, own: list[int], max_tokens: int, seed: int, priority: int, stop: int | None) -> None:
            sampling = SamplingParams(max_tokens=max_tokens, seed=seed)
            self.rig.add(STEM[:shared] + own, sampling, priority=priority, stop=stop)

        @precondition(lambda self: self.rig.live)
        @rule(data=st.data(), seed=st.integers(3, 5))
        def fork(self, data: st.DataObject, seed: int) -> None:
            self.rig.fork(data.draw(st.sampled_from(list(self.rig.live.values()))), seed)

        @precondition(lambda self: self.rig.live)
        @rule(data=st.data())
        def abort(self, data: st.DataObject) -> None:
            self.rig.abort(data.draw(st.sampled_from(list(self.rig.live.values()))))

        @rule(count=st.integers(1, 12))
        def steps(self, count: int) -> None:
            for _ in range(count):
                self.rig.step()

        def teardown(self) -> None:
            if hasattr(self, "rig"):
                self.rig.drain()

    return EngineMachine
