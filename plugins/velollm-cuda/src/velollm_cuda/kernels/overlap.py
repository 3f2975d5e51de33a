"""Kernels that start while the one before them still runs: programmatic dependent launch, on Hopper and later.

A kernel's programs are placed as soon as all those of the kernel before it have begun or ended, and wait in `follow`
for what it wrote. So the launch, and whatever a kernel does before `follow`, costs no time of its own. Each kernel
lets the next begin only after its own wait, hence two rules:

- before `follow`, read only what was written two launches ago or earlier, and write nothing;
- every program calls it, also one that has nothing to do: otherwise the end of a kernel would not mean that the one
  before it has ended.

CUDA C++ Programming Guide, "Programmatic Dependent Launch and Synchronization".
"""

from __future__ import annotations

from functools import cache
from typing import TypedDict

import torch
import triton
import triton.language as tl
from triton.language.extra import cuda

CAPABILITY = (9, 0)


class Launch(TypedDict, total=False):
    """The arguments of a launch that make it overlap with the one before."""

    OVERLAP: bool
    launch_pdl: bool


@cache
def overlapping(device: torch.device) -> Launch:
    """How kernels that call `follow` are launched on ``device``."""
    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= CAPABILITY
    if able and torch.version.hip is None and hasattr(cuda, "gdc_wait"):
        return {"OVERLAP": True, "launch_pdl": True}
    return {"OVERLAP": False}


@triton.jit
def follow(OVERLAP: tl.constexpr):
    """Wait for all that was launched before, then let the next kernel begin."""
    if OVERLAP:
        cuda.gdc_wait()
        cuda.gdc_launch_dependents()
