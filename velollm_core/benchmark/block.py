"""A stretch of a run between two looks at the machine."""

from __future__ import annotations

from attrs import frozen

from velollm_core.benchmark.conditions import Conditions
from velollm_core.benchmark.gpu_watch import GpuRecord
from velollm_core.benchmark.noise import Noise


@frozen
class Block:
    """Block number ``index``, measured with the configuration ``arm``; ``began`` in seconds since the run began.

    ``gpus`` are empty where none can be watched."""

    index: int
    arm: str
    began: float
    before: Conditions
    after: Conditions
    noise: Noise
    gpus: tuple[GpuRecord, ...] = ()
