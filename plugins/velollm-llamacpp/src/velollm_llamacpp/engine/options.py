"""How an engine is set up."""

from __future__ import annotations

from attrs import frozen

from velollm_core.errors import VeloError
from velollm_llamacpp.engine.messages import SEQUENCE_IDS

CELL_PADDING = 256


@frozen
class EngineOptions:
    """``parallel`` requests run at a time, each of at most ``context`` tokens, in a pool of ``total_context`` cells.

    ``context`` None is the model's own, cut to the pool. ``batch`` bounds the tokens of a step, ``ubatch`` those that
    llama.cpp computes at once. ``threads`` 0 leaves their number to llama.cpp. ``swap_bytes`` of memory may hold the
    state of preempted requests; 0 computes it again. With ``prefix_cache`` the blocks of earlier requests are kept
    under ``lanes`` spare sequence ids. ``margins`` reports how clear each choice was, for tests.
    """

    total_context: int = 4096
    context: int | None = None
    parallel: int = 8
    batch: int = 512
    ubatch: int = 512
    threads: int = 0
    gpu_layers: int = -1
    flash_attn: str = "auto"
    type_k: str = "f16"
    type_v: str = "f16"
    block_size: int = 16
    swap_bytes: int = 0
    prefix_cache: bool = True
    lanes: int = 32
    margins: bool = False
    step_seconds: float = 600.0

    def __attrs_post_init__(self) -> None:
        ids = self.num_live + self.num_lanes
        if self.parallel < 1 or ids > SEQUENCE_IDS:
            raise VeloError(
                f"parallel is {self.parallel}: with {self.num_lanes} lanes that is 2 × {self.parallel} + "
                f"{self.num_lanes} = {ids} sequence ids, and llama.cpp has {SEQUENCE_IDS}; lower one of them"
            )
        if self.total_context < 2 * self.block_size:
            raise VeloError(f"total_context is {self.total_context}: two blocks of {self.block_size} must fit")
        if self.context is not None and self.context > self.num_blocks * self.block_size:
            raise VeloError(
                f"context is {self.context}: all requests together have {self.num_blocks * self.block_size} tokens; "
                "lower it or raise total_context"
            )
        if self.batch < self.parallel:
            raise VeloError(f"batch is {self.batch}: each of {self.parallel} requests computes a token a step")

    @property
    def num_live(self) -> int:
        """Sequence ids for requests that run, and for those that leave while others come."""
        return 2 * self.parallel

    @property
    def num_lanes(self) -> int:
        """Sequence ids for kept blocks."""
        return self.lanes if self.prefix_cache else 0

    @property
    def num_blocks(self) -> int:
        """Blocks that requests can hold."""
        return self.total_context // self.block_size

    @property
    def cells(self) -> int:
        """Cells that llama.cpp is asked for: whole blocks, padded as it would."""
        return -(-self.num_blocks * self.block_size // CELL_PADDING) * CELL_PADDING
