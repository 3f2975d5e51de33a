"""From a machine to the settings of one backend and model: the steps of `velollm optimize`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from velollm_core.backends.setting import Plan
from velollm_core.backends.status import Status
from velollm_core.benchmark.workload import Workload
from velollm_core.choose import BackendChoice, ModelChoice, choose_backend, choose_model
from velollm_core.config import load_config
from velollm_core.errors import BackendError, VeloError
from velollm_core.models.devices import devices
from velollm_core.models.fit import fit
from velollm_core.planning.advice import advice
from velollm_core.planning.asked import Asked
from velollm_core.planning.lessons import corrected_prediction
from velollm_core.planning.sources import Sources, find_engine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.correction import Observation
    from velollm_core.plugins import Plugins


@frozen
class Wanted:
    """What `optimize` was asked for; None leaves it to VeloLLM."""

    backend: str | None = None
    model: str | None = None
    context: int | None = None
    parallel: int = 1


@frozen
class Optimized:
    """The plan, and what it is for. ``choice`` is None where no backend can be used: the plan is then advice.

    ``statuses`` are those of all backends.
    """

    choice: BackendChoice | None
    model: ModelChoice
    plan: Plan
    statuses: Mapping[str, Status]


def optimize(plugins: Plugins, hardware: Hardware, wanted: Wanted, lessons: Sequence[Observation] = ()) -> Optimized:
    """Look at the backends, choose one and a model, and let its plugin plan; without any backend, advise.

    Raises:
        VeloError: there is no such backend or model, or the backend's plugin plans nothing.
    """
    backends = plugins.detect(hardware)
    statuses = plugins.statuses(backends)
    choice = choose_backend(backends, statuses, asked=wanted.backend, default=load_config().default_backend)
    model = choose_model(choice, asked=wanted.model)
    asked = Asked(context=wanted.context, parallel=wanted.parallel)
    if choice is None:
        return Optimized(None, model, advice(model.spec, hardware, asked, find_engine(backends)), statuses)
    context = asked.request_context(model.spec) if wanted.context else None
    workload = Workload("optimize", model.name, concurrency=wanted.parallel, context=context)
    plan = plugins.optimize(choice.backend, model.spec, hardware, workload)
    if plan is None:
        raise VeloError(f"{choice.backend.name}: its plugin plans no settings for {model.name}")
    return Optimized(choice, model, complete(plan, model, hardware, choice, lessons), statuses)


def complete(
    plan: Plan, model: ModelChoice, hardware: Hardware, choice: BackendChoice, lessons: Sequence[Observation] = ()
) -> Plan:
    """``plan`` with what the plugin could not know: the engine's own bytes, the fit, predictions that have learnt.

    ``lessons`` are this machine's earlier measurements.
    """
    load = plan.load
    if load is None:
        return plan
    found = devices(hardware)
    try:
        sources = Sources(model.spec, found, find_engine([choice.backend]))
        memory, learnt = sources.answer(load, "both")
    except BackendError as error:
        return evolve(plan, notes=(*plan.notes, f"memory: {error}"))
    depth = min(1024, memory.context_per_sequence)
    expected = corrected_prediction(model.spec, load, hardware, lessons, backend=plan.backend, depth=depth)
    notes = dict.fromkeys((*plan.notes, *memory.notes, *filter(None, [learnt.note])))
    return evolve(
        plan,
        memory=memory,
        fits=fit(memory, found).sure,
        prediction=expected if lessons else plan.prediction or expected,
        notes=tuple(notes),
    )
