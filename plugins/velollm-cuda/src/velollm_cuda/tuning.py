"""How to serve a model on this machine for a workload: settings with their reasons. No I/O, nothing is measured."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.backends.setting import Plan, Setting
from velollm_core.engine.layout import KVCacheLayout
from velollm_core.errors import BackendError, ModelRefused
from velollm_core.figures import Bytes, Interval
from velollm_core.models.breakdown import DeviceMemory, MemoryBreakdown
from velollm_core.models.devices import HOST, Device, devices
from velollm_core.models.fit import fit

if TYPE_CHECKING:
    from velollm_core.benchmark.workload import Workload
    from velollm_core.hardware.gpu import Gpu
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.spec import ModelSpec

NAME = "cuda"
CONVERSATION = 8192
TEMPLATE_TOKENS = 64
UTILIZATION = 0.9
BATCHED_TOKENS = 8192
FEWEST_SEQUENCES, MOST_SEQUENCES = 8, 256
GRAPHS = 512 << 20
ACTIVATION_BYTES, LOGIT_BYTES = 4, 24
ON_CPU = "without a card this engine runs by plain torch: for tests and for reading along, not for speed"


@frozen
class Serving:
    """What is planned: ``tokens`` a request, ``sequences`` at a time, on ``device``, in ``width`` bytes an element."""

    model: ModelSpec
    device: Device
    tokens: int
    users: int
    sequences: int
    width: int

    @property
    def layout(self) -> KVCacheLayout:
        """The cache as the engine lays it out."""
        return KVCacheLayout.from_spec(self.model, bytes_per_element=self.width)

    @property
    def on_card(self) -> bool:
        """Whether a card does the work."""
        return self.device.name != HOST

    @property
    def cache(self) -> int:
        """Bytes that the users' conversations take at their longest, the null blocks among them."""
        return self.users * self.layout.bytes_for(self.tokens) + sum(self.layout.bytes_per_block)


def plan(model: ModelSpec, hardware: Hardware, workload: Workload, card: Gpu | None) -> Plan:
    """The plan for ``model`` under ``workload``, on ``card`` or, without one, on the CPU.

    Raises:
        ModelRefused: it is no folder of safetensors, or its layers are none that this engine runs.
    """
    if model.format != "safetensors":
        raise ModelRefused(f"{NAME}: {model.name} is {model.format}; this engine runs folders of safetensors")
    if any(layer.recurrent or layer.k_only or layer.expert_feed_forward for layer in model.main_layers):
        raise ModelRefused(f"{NAME}: {model.name} has layers that this engine does not run ({model.architecture})")
    found = devices(hardware)
    device = next((each for each in found if card is not None and each.gpu == card), found[0])
    tokens, why = _context(model, workload)
    users = max(1, workload.concurrency)
    sequences = min(MOST_SEQUENCES, max(FEWEST_SEQUENCES, 2 * users))
    serving = Serving(model, device, tokens, users, max(sequences, users), 2 if device.name != HOST else 4)
    memory = _memory(serving)
    return Plan(
        backend=NAME,
        model=model.source,
        settings=_settings(serving, why),
        memory=memory,
        fits=fit(memory, found).sure,
        notes=_notes(serving, memory),
    )


def emit(plan: Plan, suffix: str) -> str:
    """``plan`` as a shell script that serves the model.

    Raises:
        BackendError: ``suffix`` is not ``.sh``.
    """
    if suffix != ".sh":
        raise BackendError(f"{NAME}: cannot write a plan as {suffix or 'a file without suffix'}: .sh")
    comments = [f"# {each.name} {each.value}: {each.reason}" for each in plan.settings]
    words = ["velollm", "cuda", "serve", plan.model]
    for each in plan.settings:
        words += [each.name, str(each.value)]
    return "\n".join(["#!/bin/sh", *comments, f'exec {shlex.join(words)} "$@"', ""])


def _context(model: ModelSpec, workload: Workload) -> tuple[int, str]:
    trained = model.context_length or CONVERSATION
    if workload.context is not None:
        return min(workload.context, trained), f"{workload.context} tokens a request were asked for"
    longest = max((len(task.prompt.encode()) + TEMPLATE_TOKENS + task.max_tokens for task in workload.tasks), default=0)
    if longest > CONVERSATION:
        return min(longest, trained), f"the workload's longest request takes up to {longest} tokens"
    if trained <= CONVERSATION:
        return trained, f"the trained context of {trained}"
    return CONVERSATION, f"room for a conversation ({CONVERSATION}); the model was trained for {trained}"


def _settings(serving: Serving, why: str) -> tuple[Setting, ...]:
    users = f"{serving.users} at a time {'were' if serving.users > 1 else 'was'} asked for"
    settings = [
        Setting("--max-model-len", serving.tokens, "flag", why, "rule"),
        Setting("--max-num-seqs", serving.sequences, "flag", f"{users}, and a burst need not wait", "rule"),
    ]
    if serving.on_card:
        reason = "what is left of the card after the weights becomes cache; a tenth stays for others"
        settings.append(Setting("--gpu-memory-utilization", UTILIZATION, "flag", reason, "default"))
    else:
        reason = f"{serving.users} of {serving.tokens} tokens, whole, in blocks of {serving.layout.block_size}"
        settings.append(Setting("--kv-cache-bytes", serving.cache, "flag", reason, "rule"))
    return tuple(settings)


def _memory(serving: Serving) -> MemoryBreakdown:
    model, card = serving.model, serving.on_card
    width = 1 if card else 4 * model.parameters / max(model.tensor_bytes, 1)
    layers = model.main_layers
    widest = max(
        (2 * each.feed_forward + 2 * (each.heads + each.kv_heads) * each.key_length for each in layers), default=0
    )
    step = ACTIVATION_BYTES * BATCHED_TOKENS * (widest + 4 * model.embedding_length)
    logits = LOGIT_BYTES * serving.sequences * model.vocab_size
    nothing = Bytes(0, "formula")
    part = DeviceMemory(
        device=serving.device.name,
        weights=Bytes(round(model.tensor_bytes * width), "formula"),
        kv=Bytes(serving.cache, "formula"),
        recurrent=nothing,
        compute=Bytes(step, "formula", Interval(step // 4, step)) if card else nothing,
        output=Bytes(logits, "formula", Interval(logits // 6, logits)) if card else nothing,
        overhead=_overhead(serving.device) if card else serving.device.overhead,
    )
    return MemoryBreakdown(
        (part,), serving.users * serving.tokens, serving.tokens, serving.users, BATCHED_TOKENS, BATCHED_TOKENS
    )


def _overhead(device: Device) -> Bytes:
    """The driver's own, and the graphs."""
    own = device.overhead
    return Bytes(own.value + GRAPHS, "formula", Interval(own.low, own.high + GRAPHS))


def _notes(serving: Serving, memory: MemoryBreakdown) -> tuple[str, ...]:
    model, device = serving.model, serving.device
    notes = []
    if not model.tensor_bytes:
        notes.append("the weights are not here, so their bytes are not known")
    if not serving.on_card:
        return (*notes, ON_CPU)
    if device.free is not None and device.gpu is not None and model.tensor_bytes:
        kept = (1 - UTILIZATION) * (device.gpu.memory_total or device.free)
        others = memory.total - serving.cache
        rooms = int((device.free - kept - others) // serving.layout.bytes_for(serving.tokens))
        if rooms > 0:
            notes.append(f"what is free now holds about {rooms} conversations of {serving.tokens} tokens at a time")
    return tuple(notes)
