"""Which kernels run: Triton's on a GPU, plain torch elsewhere; the names are the same."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Kernels(Protocol):
    """The kernels of a forward pass but for attention, and the sampler; see `reference` for what each computes."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x @ weight.T + bias``."""

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float, residual: Tensor | None = None) -> Tensor:
        """``x / rms(x) * weight``; a residual is first increased by ``x`` in place."""

    def silu_mul(self, x: Tensor) -> Tensor:
        """``silu(gate) * up``."""

    def gelu_mul(self, x: Tensor) -> Tensor:
        """``gelu_tanh(gate) * up``."""

    def rope_store(
        self, qkv: Tensor, cosine: Tensor, sine: Tensor, positions: Tensor, slots: Tensor, key_cache: Tensor,
        value_cache: Tensor, heads: int, *, query_norm: Tensor | None = None, key_norm: Tensor | None = None,
        epsilon: float = 1e-6, key_scale: float = 1.0, value_scale: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """Norm, rotate and store; the queries come back."""

    def floors(self, logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
        """The lowest logit of each row that may be drawn."""

    def gumbel_sample(
        self, logits: Tensor, temperature: Tensor, seeds: Tensor, positions: Tensor, floors: Tensor | None = None
    ) -> Tensor:
        """One token a row."""

    def next_slots(self, rows: Tensor, lengths: Tensor, table: Tensor, block_size: int, slots: Tensor) -> None:
        """Where the next token of each row goes."""

    def begin_decode(
        self, rows: Tensor, last_tokens: Tensor, lengths: Tensor, tokens: Tensor, positions: Tensor, grown: Tensor
    ) -> None:
        """Each row's last token, its position, and its length with it."""

    def end_decode(self, rows: Tensor, last_tokens: Tensor, lengths: Tensor, tokens: Tensor, grown: Tensor) -> None:
        """Keep each row's new token and length."""


def kernels_for(device: torch.device) -> Kernels:
    """Triton's kernels on a CUDA device, `reference` on any other."""
    if device.type == "cuda":
        from velollm_cuda.kernels import fast

        return fast
    from velollm_cuda.kernels import reference

    return reference
