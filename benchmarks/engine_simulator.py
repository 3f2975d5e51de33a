"""How much faster than real time the simulator is: `python -m benchmarks.engine_simulator`.

1 024 requests at once, 256 at a time, with the step times of an 8B model in 16 bits on a card of 3 TB/s.
"""

from __future__ import annotations

import gc
import statistics
import time

from velollm_core.engine.defaults import default_block_manager, default_scheduler
from velollm_core.engine.layout import KVCacheLayout
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.loads import Lengths, burst
from velollm_core.engine.simulated import SimulatedExecutor
from velollm_core.engine.simulator import simulate
from velollm_core.engine.step_times import StepTimes

TIMES = StepTimes.roofline(
    weight_bytes=16e9, kv_bytes_per_token=131_072, flops_per_token=16e9, bandwidth=3.03e12, flops=6e14
)
ROUNDS = 7


def main() -> None:
    """Print the ratio of simulated to real seconds; exit 1 below 100."""
    load = burst(1024, Lengths())
    ratios = []
    gc.freeze()
    for _ in range(ROUNDS):
        blocks = default_block_manager(KVCacheLayout.uniform(32, 8, 128), 60 * 10**9)
        scheduler = default_scheduler(SchedulerLimits(256, 8192, 8192), blocks)
        begin = time.perf_counter()
        found = simulate(load, scheduler, SimulatedExecutor(TIMES, depth=2))
        ratios.append(found.seconds / (time.perf_counter() - begin))
    middle = statistics.median(ratios)
    print(
        f"{found.seconds:.1f} s simulated ({found.steps} steps, {found.throughput:.0f} tokens/s): "
        f"{middle:.0f}× real time, {min(ratios):.0f} to {max(ratios):.0f}; bar 100"
    )
    raise SystemExit(middle < 100)


if __name__ == "__main__":
    main()
