"""Rotary embedding tables, computed once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from velollm_cuda.models.config import RopeConfig


def rope_tables(rope: RopeConfig, size: int, positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine ``[positions, size / 2]`` in fp32, for heads of ``size`` (RoFormer, Su et al., 2021)."""
    frequencies = _scaled(rope, size, rope.theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size))
    angles = torch.outer(torch.arange(positions, dtype=torch.float64), frequencies)
    cosine, sine = (rope.magnitude * each for each in (angles.cos(), angles.sin()))
    return cosine.float().to(device), sine.float().to(device)


def _scaled(rope: RopeConfig, size: int, frequencies: Tensor) -> Tensor:
    if rope.kind == "linear":
        return frequencies / rope.factor
    if rope.kind == "llama3":
        wavelength = 2 * math.pi / frequencies
        smooth = (rope.original / wavelength - rope.low) / (rope.high - rope.low)
        smooth = smooth.clamp(0, 1)
        return frequencies * (smooth + (1 - smooth) / rope.factor)
    if rope.kind == "yarn":
        slowed = _slowed(rope, size)
        return frequencies * (1 - slowed + slowed / rope.factor)
    return frequencies


def _slowed(rope: RopeConfig, size: int) -> Tensor:
    """How much each of ``size / 2`` frequencies is slowed down by YaRN: 0 not at all, 1 by the whole factor."""

    def dimension(turns: float) -> float:
        return size * math.log(rope.original / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    first, last = dimension(rope.fast), dimension(rope.slow)
    if rope.whole:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, size - 1)
    return ((torch.arange(size // 2, dtype=torch.float64) - first) / max(last - first, 0.001)).clamp(0, 1)
