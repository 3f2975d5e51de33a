"""A plan where no backend can be used: llama-server's settings, for whoever installs one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core.backends.setting import Plan, Setting
from velollm_core.errors import VeloError
from velollm_core.models.devices import devices
from velollm_core.planning.answer import make_answer
from velollm_core.planning.server_command import server_command
from velollm_core.planning.sources import Engine, Sources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.pick import Pick
    from velollm_core.models.spec import ModelSpec
    from velollm_core.planning.asked import Asked

BACKEND = "llama-server"


def advice(spec: ModelSpec, hardware: Hardware, asked: Asked, engine: Engine | None = None) -> Plan:
    """The settings that the formulas, and ``engine`` if it answers, recommend for ``spec`` on ``hardware``."""
    answer = make_answer(Sources(spec, devices(hardware), engine), asked)
    pick = next(iter(answer.alternatives.picks), answer.pick)
    notes = ["no backend can be used here: these are llama-server's flags, for when one is installed", *answer.notes]
    if pick.command:
        notes.append(f"start it so: {pick.command}")
    if not answer.alternatives.picks:
        notes.append(f"this does not fit: {pick.fit.reason}")
    return Plan(
        backend=BACKEND,
        model=spec.name,
        settings=tuple(_settings(pick, hardware)),
        load=pick.load,
        memory=pick.memory,
        fits=pick.fit.sure,
        prediction=pick.start,
        notes=tuple(notes),
    )


def _settings(pick: Pick, hardware: Hardware) -> Iterator[Setting]:
    load = pick.load
    slots = load.parallel or 1
    yield Setting(
        "--ctx-size", load.total_context, "flag", f"{pick.context} tokens for each of {slots} requests", "rule"
    )
    yield Setting("--parallel", slots, "flag", "the requests at a time that were asked for", "rule")
    cores = hardware.cpu.usable_cores
    yield Setting("--threads", cores, "flag", "physical cores that this process may use; a start, measure", "rule")
    placed = "what surely fits in the GPUs' free memory" if hardware.visible_gpus else "there is no GPU here"
    yield Setting("--n-gpu-layers", load.gpu_layers, "flag", placed, "predicted")
    if load.cpu_moe_layers:
        yield Setting("--n-cpu-moe", load.cpu_moe_layers, "flag", "experts that do not fit on the GPU", "predicted")
    if load.type_k != "f16" or load.type_v != "f16":
        yield Setting("--cache-type-k", load.type_k, "flag", pick.trade, "predicted")
        yield Setting("--cache-type-v", load.type_v, "flag", pick.trade, "predicted")
        yield Setting("--flash-attn", load.flash_attn, "flag", "a quantized V cache needs it", "rule")


def script(spec: ModelSpec, plan: Plan) -> str:
    """A shell script that starts llama-server so.

    Raises:
        VeloError: llama-server cannot load the model as it is.
    """
    command = server_command(spec, plan.load) if plan.load else None
    if command is None:
        raise VeloError(f"{spec.source}: llama-server cannot load this as it is; write the plan as .json")
    return f"#!/bin/sh\nexec {command}\n"
