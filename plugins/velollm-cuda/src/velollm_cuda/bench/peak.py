"""The most memory that a request list holds in the KV cache."""

from __future__ import annotations

from collections.abc import Sequence

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.sequence import Sequence as EngineSequence
from velollm_cuda.bench.workloads import PromptOfLength
from velollm_cuda.engine import Engine


def peak_bytes(engine: Engine, listed: Sequence[PromptOfLength]) -> int:
    """Bytes of the blocks that ``listed``, all at once, hold at most; nothing is timed here."""
    for number, request in enumerate(listed):
        sampling = SamplingParams(max_tokens=request.output, ignore_eos=True)
        sequence = EngineSequence(f"peak-{number}", list(request.token_ids), sampling, use_cache=False)
        engine.loop.scheduler.add(sequence)
    return max(engine.blocks.usage().bytes_used for _ in engine.loop.run())
