"""From logits to tokens: each row by its own temperature, seed and restrictions."""

from __future__ import annotations

from torch import Tensor

from velollm_cuda.kernels import reference
from velollm_cuda.kernels.choice import Kernels
from velollm_cuda.state import SlotTable


def sample(
    kernels: Kernels, logits: Tensor, state: SlotTable, rows: Tensor, positions: Tensor, *, restricted: bool
) -> Tensor:
    """One token id for each of ``rows [B]`` int64 from logits ``[B, V]``; int64 ``[B]``.

    With ``restricted`` top-k, top-p and min-p are applied, which sorts every row; without, they are not looked at.
    """
    temperature = state.temperature[rows]
    if restricted:
        heat = temperature.clamp_min(1e-6)[:, None]
        kept = reference.restrict(logits.float() / heat, state.top_k[rows], state.top_p[rows], state.min_p[rows])
        logits = kept * heat
    return kernels.gumbel_sample(logits, temperature, state.seeds[rows], positions)
