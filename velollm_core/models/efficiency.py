"""What part of a device's bandwidth and arithmetic engines really reach: priors, until a run on this machine corrects
them.

Read from public measurements with the bytes defined as here (file bytes without the embedding rows, GB = 10**9); not a
standard. The interval holds most of them, builds and models included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from velollm_core.models.span import Span

if TYPE_CHECKING:
    from velollm_core.models.devices import Device


@frozen
class Efficiency:
    """Parts of ``bandwidth`` (decode) and of the arithmetic peak (``compute``, prefill) that are reached.

    ``step`` is the time of a step that no byte explains: launches, sampling, HTTP; in seconds.
    """

    bandwidth: Span
    compute: Span
    step: Span
    why: str


_HALVED = ("6.1", "8.6", "8.7", "8.9", "12.0")
_GPU_STEP = Span(5e-4, 3e-4, 1.5e-3)
_CPU_STEP = Span(2e-4, 5e-5, 1e-3)
_CPU_COMPUTE = Span(0.5, 0.2, 1.0)

CUDA = Efficiency(Span(0.68, 0.45, 0.90), Span(0.45, 0.15, 0.8), _GPU_STEP, "CUDA: 45–90% of bandwidth seen")
# Cards that halve FP16 with FP32 accumulation reach more than that peak with the 8-bit integers of quantized weights.
CUDA_HALVED = evolve(CUDA, compute=Span(0.9, 0.35, 1.25))
ROCM = Efficiency(Span(0.45, 0.30, 0.75), Span(0.35, 0.2, 0.6), _GPU_STEP, "ROCm: 30–75% of bandwidth seen")
ARC = Efficiency(Span(0.50, 0.30, 0.70), Span(0.3, 0.15, 0.5), _GPU_STEP, "Intel GPU: 30–70% of bandwidth assumed")
INTEGRATED = Efficiency(Span(0.75, 0.55, 0.87), Span(0.3, 0.15, 0.6), _GPU_STEP, "integrated GPU: 55–87% seen")
METAL = Efficiency(Span(0.80, 0.65, 0.93), Span(0.7, 0.5, 0.85), _GPU_STEP, "Metal, base or Pro chip: 65–93% seen")
METAL_MAX = Efficiency(Span(0.62, 0.50, 0.78), Span(0.7, 0.5, 0.85), _GPU_STEP, "Metal, Max chip: 50–78% seen")
METAL_ULTRA = Efficiency(Span(0.45, 0.30, 0.65), Span(0.6, 0.4, 0.8), _GPU_STEP, "Metal, Ultra chip: 30–65% seen")
CPU_MEASURED = Efficiency(Span(0.6, 0.35, 0.95), _CPU_COMPUTE, _CPU_STEP, "CPU: 35–95% of measured bandwidth seen")
CPU_NOMINAL = Efficiency(Span(0.45, 0.25, 0.65), _CPU_COMPUTE, _CPU_STEP, "CPU: 25–65% of nominal bandwidth seen")
# Routed experts are read in small pieces.
MIXTURE = Span(0.65, 0.5, 1.0)
# Attention over a quantized cache on a processor: between no cost and a sixth of the speed, by build.
QUANTIZED_CACHE = Span(0.8, 0.16, 1.0)
# Weights that stay on the host are streamed to the GPU for a large batch: PCIe 3 ×8 to PCIe 5 ×16, bytes a second.
BUS = Span(20e9, 6e9, 50e9)


def efficiency(device: Device) -> Efficiency:
    """The prior for ``device``."""
    gpu = device.gpu
    if gpu is None:
        measured = device.bandwidth is not None and device.bandwidth.basis == "measured"
        return CPU_MEASURED if measured else CPU_NOMINAL
    if gpu.vendor == "nvidia":
        return CUDA_HALVED if gpu.compute_capability in _HALVED else CUDA
    if gpu.vendor == "apple":
        name = gpu.name or ""
        return METAL_ULTRA if "Ultra" in name else METAL_MAX if "Max" in name else METAL
    if device.shared:
        return INTEGRATED
    return ROCM if gpu.vendor == "amd" else ARC
