"""Triton's kernels under the names of `reference`."""

from velollm_cuda.kernels.floors import floors
from velollm_cuda.kernels.gate import gelu_mul, silu_mul
from velollm_cuda.kernels.gemv import linear
from velollm_cuda.kernels.norm import rms_norm
from velollm_cuda.kernels.rope_store import rope_store
from velollm_cuda.kernels.sample import gumbel_sample
from velollm_cuda.kernels.slots import begin_decode, end_decode, next_slots

__all__ = [
    "begin_decode",
    "end_decode",
    "floors",
    "gelu_mul",
    "gumbel_sample",
    "linear",
    "next_slots",
    "rms_norm",
    "rope_store",
    "silu_mul",
]
