"""The engine's properties over a long run: `python -m benchmarks.engine_properties [--steps 1000000]`.

Hypothesis drives the same state machine as the tests do, until the engine has made that many steps; every one of them
is followed by every check. It stops at the first that fails, with the calls that lead there.
"""

from __future__ import annotations

import argparse
import time

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from velollm_core.engine.defaults import default_block_manager, default_scheduler
from velollm_core.testing.engine_machine import engine_machine
from velollm_core.testing.engine_rig import EngineRig

ROUND = settings(
    max_examples=500,
    stateful_step_count=60,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class Count(EngineRig):
    """A rig that counts over all its instances."""

    steps_made = ended_well = preempted = refused = 0

    def drain(self, limit: int = 100_000) -> None:
        """The end of one engine: add up what it did."""
        super().drain(limit)
        Count.steps_made += self.steps
        Count.ended_well += self.ended
        Count.preempted += self.scheduler.stats().preemptions
        Count.refused += len(self.refusals)


def main() -> None:
    """Run until enough steps were made; say how many sequences lived through them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    wanted = parser.parse_args().steps
    begin = time.perf_counter()
    machine = engine_machine(default_block_manager, default_scheduler, rig=Count)
    while wanted > Count.steps_made:
        run_state_machine_as_test(machine, settings=ROUND)
        seconds = time.perf_counter() - begin
        print(
            f"{Count.steps_made} steps, {Count.ended_well} sequences as the model alone would, "
            f"{Count.preempted} preempted, {Count.refused} refused, {seconds:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
