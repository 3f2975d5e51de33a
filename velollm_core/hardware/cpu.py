"""The processor, and how much of it this process may use."""

from __future__ import annotations

from attrs import frozen

from velollm_core.figures import Rate


@frozen
class Cpu:
    """One machine's processors. ``None`` means unknown, never a guess.

    ``physical_cores`` and ``threads`` count the machine; ``allowed_threads`` are the logical CPUs that affinity and
    cpuset leave to this process, ``allowed_cores`` the physical cores behind them (``allowed_performance_cores`` the
    fast ones among these), ``quota`` the cores' worth of time that the cgroup grants. ``performance_cores`` and
    ``efficiency_cores`` stay None where all cores are of one kind. ``frequency_hz`` is the first allowed processor's
    at the moment of asking; ``bandwidth`` is in bytes a second over all allowed cores.
    """

    model: str | None
    vendor: str | None
    architecture: str
    physical_cores: int | None
    threads: int | None
    allowed_threads: int | None
    allowed_cores: int | None
    quota: float | None
    performance_cores: int | None
    efficiency_cores: int | None
    frequency_hz: int | None
    max_frequency_hz: int | None
    instruction_sets: tuple[str, ...]
    bandwidth: Rate | None = None
    allowed_performance_cores: int | None = None

    @property
    def usable_cores(self) -> int:
        """Physical (performance, where known) cores to start a compute-bound pool with: at least one."""
        cores = self.allowed_cores or self.allowed_threads or self.physical_cores or self.threads or 1
        if self.allowed_performance_cores:
            cores = min(cores, self.allowed_performance_cores)
        if self.quota is not None:
            cores = min(cores, int(self.quota))
        return max(1, cores)
