"""Where a plan's bytes come from: our formula, the engine's own allocator, or both against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import evolve, field, frozen

from velollm_core.ask import ask
from velollm_core.backends.backend import Backend, MeasuresMemory
from velollm_core.errors import BackendError, VeloError
from velollm_core.models.fit import with_overhead
from velollm_core.models.memory import KnownWeights, memory
from velollm_core.models.pick import gpu_shares
from velollm_core.models.reconcile import reconcile
from velollm_core.models.scaling import AS_BY_FORMULA, Scaling

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from velollm_core.models.breakdown import MemoryBreakdown
    from velollm_core.models.devices import Device
    from velollm_core.models.load import LoadSettings
    from velollm_core.models.spec import ModelSpec

Basis = Literal["both", "formula", "allocator"]
ALLOCATOR_SECONDS = 20.0


@frozen
class Engine:
    """A backend that can be asked what it would allocate, by both of its faces."""

    backend: Backend
    allocator: MeasuresMemory


@frozen
class Sources:
    """Both ways to the bytes of one model on one machine; ``engine`` None means that there is no allocator to ask.

    ``note`` says why the allocator stayed silent, where it did. ``local`` is False for a machine that is not this one.
    """

    spec: ModelSpec
    devices: tuple[Device, ...]
    engine: Engine | None = None
    scaling: Scaling = AS_BY_FORMULA
    note: str | None = None
    local: bool = True
    _weights: KnownWeights = field(factory=dict, repr=False, eq=False)

    def formula(self, load: LoadSettings) -> MemoryBreakdown:
        """The formula's bytes with every device's overhead, moved by what the allocator taught.

        Raises:
            ModelRefused: the engine would not load the model so.
        """
        return with_overhead(self.scaling.apply(self._plain(load)), self.devices)

    def answer(self, load: LoadSettings, basis: Basis) -> tuple[MemoryBreakdown, Sources]:
        """The bytes of ``load`` by ``basis``, and these sources with what was learnt on the way.

        Raises:
            ModelRefused: the engine would not load the model so.
            BackendError: the allocator was insisted on, and did not answer.
        """
        if basis == "formula" or (basis == "both" and self.engine is None):
            return self.formula(load), self
        if self.engine is None:
            raise VeloError("no installed backend can ask its allocator; `pip install velollm[llamacpp]` brings one")
        formula = self._plain(load)
        try:
            known = self._ask(load)
        except BackendError as error:
            if basis == "allocator":
                raise
            return with_overhead(formula, self.devices), evolve(self, note=f"by formula alone: {error}")
        return self._settled(load, formula, known, basis)

    def _settled(
        self, load: LoadSettings, formula: MemoryBreakdown, known: MemoryBreakdown, basis: Basis
    ) -> tuple[MemoryBreakdown, Sources]:
        if _names(known) == _names(formula):
            settled = known if basis == "allocator" else reconcile(formula, known)
            learnt = evolve(self, scaling=Scaling.between(formula, known))
            return with_overhead(settled, self.devices), learnt
        # The library here knows no GPU: its figures for the host carry over, the placement is ours.
        on_host = self._plain(evolve(load, gpu_layers=0, cpu_moe_layers=0))
        note = "the allocator was asked about main memory only: its figures were carried over to the GPUs"
        learnt = evolve(self, scaling=Scaling.between(on_host, known), note=note)
        moved = learnt.formula(load)
        return evolve(moved, notes=(*moved.notes, *reconcile(on_host, known).notes)), learnt

    def _plain(self, load: LoadSettings) -> MemoryBreakdown:
        return memory(self.spec, load, gpu_shares(self.devices), self._weights)

    def _ask(self, load: LoadSettings) -> MemoryBreakdown:
        engine = self.engine
        assert engine is not None, "answer() has looked"
        on_host = evolve(load, gpu_layers=0, cpu_moe_layers=0)
        # The library here would place layers on the GPUs here.
        tries = dict.fromkeys((load, on_host) if self.local else (on_host,))
        for attempt in tries:
            try:
                return ask(
                    engine.backend,
                    _question(engine.allocator, self.spec, attempt),
                    "what it would allocate",
                    ALLOCATOR_SECONDS,
                )
            except BackendError as error:
                failure = error
        raise failure


def _question(
    allocator: MeasuresMemory, spec: ModelSpec, load: LoadSettings
) -> Callable[[], Awaitable[MemoryBreakdown]]:
    return lambda: allocator.memory(spec, load)


def _names(memory: MemoryBreakdown) -> set[str]:
    return {device.device for device in memory.devices}


def find_engine(backends: Sequence[Backend]) -> Engine | None:
    """The first of ``backends`` whose engine can be asked for its memory."""
    return next((Engine(backend, backend) for backend in backends if isinstance(backend, MeasuresMemory)), None)
