"""How many floating-point operations a second a device can do at best, as an interval; None where nothing says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core.figures import Interval, Rate

if TYPE_CHECKING:
    from velollm_core.hardware.cpu import Cpu
    from velollm_core.hardware.gpu import Gpu

# Dense FP16 operations a clock and multiprocessor (tensor cores, FP32 accumulation), and the clocks that cards of the
# generation boost to, in GHz. Together they give each data sheet's figure: 71 TFLOP/s for a 3090, 989 for an H100.
_NVIDIA: dict[str, tuple[int, float, float]] = {
    "6.0": (256, 1.3, 1.5),
    "6.1": (256, 1.5, 1.9),
    "7.0": (1024, 1.4, 1.6),
    "7.5": (1024, 1.5, 1.9),
    "8.0": (2048, 1.2, 1.41),
    "8.6": (512, 1.4, 1.9),
    "8.7": (512, 0.9, 1.3),
    "8.9": (512, 2.0, 2.7),
    "9.0": (4096, 1.5, 1.98),
    "10.0": (8192, 1.6, 2.0),
    "12.0": (512, 2.0, 2.9),
}
_APPLE = (256, 1.3, 1.6)
# FP32 operations a cycle and core: two fused multiply-adds on the widest registers that every build uses.
_CPU_WIDTH = (("avx512f", 32, 64), ("avx2", 32, 32), ("avx", 16, 16), ("neon", 16, 32), ("asimd", 16, 32))


def gpu_peak(gpu: Gpu) -> Rate | None:
    """Peak of one GPU, FLOP/s: by generation, multiprocessors and clock range; None for a vendor without a table."""
    entry = _APPLE if gpu.vendor == "apple" else _NVIDIA.get(gpu.compute_capability or "")
    if entry is None or not gpu.multiprocessors or gpu.vendor not in ("nvidia", "apple"):
        return None
    operations, slowest, fastest = entry
    low, high = (gpu.multiprocessors * operations * clock * 1e9 for clock in (slowest, fastest))
    return Rate((low + high) / 2, "nominal", Interval(low, high))


def cpu_peak(cpu: Cpu) -> Rate | None:
    """Peak over the cores that this process may use, FLOP/s; None where the frequency or the registers are unknown."""
    width = next((entry[1:] for entry in _CPU_WIDTH if entry[0] in cpu.instruction_sets), None)
    frequencies = [frequency for frequency in (cpu.frequency_hz, cpu.max_frequency_hz) if frequency]
    if width is None or not frequencies:
        return None
    low = cpu.usable_cores * min(frequencies) * width[0]
    high = cpu.usable_cores * max(frequencies) * width[1]
    return Rate(cpu.usable_cores * max(frequencies) * width[0], "nominal", Interval(low, high))
