"""RMSNorm, with the residual addition before it where there is one."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor, empty_like

from velollm_cuda.kernels.overlap import follow, overlapping


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, residual: Tensor | None = None) -> Tensor:
    """``x [T, N]`` normalised and scaled; ``residual [T, N]`` is first increased by ``x`` in place. See `reference`."""
    tokens, size = x.shape
    out = empty_like(x)
    width = triton.next_power_of_2(size)
    _rms_norm[(tokens,)](
        out, x, weight, residual if residual is not None else x, size, epsilon, x.stride(0),
        WIDTH=width, ADD=residual is not None, num_warps=min(16, max(1, width // 256)),
        **overlapping(x.device),
    )  # fmt: skip
    return out


@triton.jit
def _rms_norm(
    out, x, weight, residual, size, epsilon, stride, WIDTH: tl.constexpr, ADD: tl.constexpr, OVERLAP: tl.constexpr
):
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    inside = column < size
    weights = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    follow(OVERLAP)
    value = tl.load(x + token * stride + column, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        kept = residual + token * size + column
        value += tl.load(kept, mask=inside, other=0.0).to(tl.float32)
        # What is kept is what is normalised: the sum as the residual's type rounds it.
        rounded = value.to(residual.dtype.element_ty)
        tl.store(kept, rounded, mask=inside)
        value = rounded.to(tl.float32)
    scale = 1.0 / tl.sqrt_rn(tl.sum(value * value) / size + epsilon)
    tl.store(out + token * size + column, (value * scale * weights).to(out.dtype.element_ty), mask=inside)
