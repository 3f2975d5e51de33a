"""Rotary embedding tables, computed once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from velollm_cuda.models.config import RopeConfig


def rope_tables(rope: RopeConfig, size: int, positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine ``[positions, size / 2]`` in fp32, for heads of ``size`` (RoFormer, Su et al., 2021)."""
    frequencies = _scaled(rope, rope.theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size))
    angles = torch.outer(torch.arange(positions, dtype=torch.float64), frequencies)
    return angles.cos().float().to(device), angles.sin().float().to(device)


def _scaled(rope: RopeConfig, frequencies: Tensor) -> Tensor:
    if rope.kind == "linear":
        return frequencies / rope.factor
    if rope.kind == "llama3":
        wavelength = 2 * math.pi / frequencies
        smooth = (rope.original / wavelength - rope.low) / (rope.high - rope.low)
        smooth = smooth.clamp(0, 1)
        return frequencies * (smooth + (1 - smooth) / rope.factor)
    return frequencies
