"""A block manager under test, and what a scheduler does with one."""

from __future__ import annotations

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.blocks import BlockManager
from velollm_core.engine.layout import KVCacheLayout, KVGroup
from velollm_core.engine.sequence import Sequence

BLOCK = 4


def sequence(name: str, tokens: list[int], *, salt: str = "", use_cache: bool = True) -> Sequence:
    """A sequence of these prompt tokens, unknown to any manager."""
    return Sequence(name, list(tokens), SamplingParams(max_tokens=8), cache_salt=salt, use_cache=use_cache)


def fill(blocks: BlockManager, seq: Sequence, *, match: bool = True) -> int:
    """Do what a scheduler does for a prompt: match, allocate, compute, commit; return the tokens that were cached."""
    hit = blocks.match(seq) if match else 0
    assert blocks.allocate(seq, len(seq.token_ids))
    seq.num_computed = len(seq.token_ids)
    blocks.commit(seq, len(seq.token_ids))
    return hit


class BlocksUnderTest:
    """Makes the managers that a contract judges."""

    def make_blocks(self, layout: KVCacheLayout, memory: int) -> BlockManager:
        """The manager under test."""
        raise NotImplementedError

    def blocks(self, count: int, *, window: int | None = None, second_window: int | None = None) -> BlockManager:
        """A manager of ``count`` blocks of four tokens, the null block included."""
        groups = [KVGroup(2, 8, window)]
        if second_window:
            groups.append(KVGroup(1, 4, second_window))
        layout = KVCacheLayout(tuple(groups), BLOCK, typical_tokens=BLOCK)
        return self.make_blocks(layout, count * sum(layout.bytes_per_block))
