"""What a model takes by formula, per device and component: exact where llama.cpp's rules are exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from velollm_core.figures import Bytes, Interval
from velollm_core.models.breakdown import DeviceMemory, MemoryBreakdown
from velollm_core.models.compute import compute_bytes
from velollm_core.models.context import Context, used_context
from velollm_core.models.devices import HOST
from velollm_core.models.kv import kv_bytes
from velollm_core.models.load import LoadSettings
from velollm_core.models.placement import Placement, place
from velollm_core.models.refusals import check
from velollm_core.models.spec import ModelSpec
from velollm_core.models.state import state_bytes
from velollm_core.models.weights import weight_bytes

GPU_OVERHEAD = Bytes(450 << 20, "nominal", Interval(300 << 20, 800 << 20))
"""What the driver's context and the matrix library take on a GPU besides: 450 MiB on one card, 749 on another."""
LOGIT = 4


KnownWeights = dict[tuple[Placement, bool], Mapping[str, int]]
"""Weights by device for each placement already summed, mapped or not: for whoever compares many settings."""


def memory(
    spec: ModelSpec, load: LoadSettings, shares: Sequence[float] = (1.0,), known: KnownWeights | None = None
) -> MemoryBreakdown:
    """What ``spec`` takes when loaded with ``load``; ``shares`` are the GPUs' parts of the offloaded layers.

    Weights, KV, recurrent state and output are exact to the byte; compute is an interval around an estimate.
    ``known`` (of this spec only) spares summing the weights of the same placement again.

    Raises:
        ModelRefused: llama.cpp would refuse it; the text gives its reason.
    """
    context = used_context(spec, load)
    check(spec, load, context)
    placement = place(spec, load, shares)
    weights = _weights(spec, placement, load.mmap, {} if known is None else known)
    kv = _by_device(kv_bytes(spec, load, context), placement)
    state = _by_device(state_bytes(spec, context), placement)
    compute = compute_bytes(spec, context, placement, swa_full=load.swa_full)
    output = context.sequences * spec.vocab_size * LOGIT
    devices = tuple(
        DeviceMemory(
            device=name,
            weights=_exact(weights.get(name, 0)),
            kv=_exact(kv.get(name, 0)),
            recurrent=_exact(state.get(name, 0)),
            compute=compute.get(name, _exact(0)),
            output=_exact(output if name == HOST else 0),
            overhead=_exact(0) if name == HOST else GPU_OVERHEAD,
        )
        for name in placement.devices
    )
    return MemoryBreakdown(
        devices=devices,
        context=context.total,
        context_per_sequence=context.per_sequence,
        sequences=context.sequences,
        batch=context.batch,
        ubatch=context.ubatch,
        notes=spec.notes + _notes(spec, context),
    )


def _weights(spec: ModelSpec, placement: Placement, mmap: bool, known: KnownWeights) -> Mapping[str, int]:
    if (placement, mmap) not in known:
        known[placement, mmap] = weight_bytes(spec, placement, mmap=mmap)
    return known[placement, mmap]


def _exact(count: int) -> Bytes:
    return Bytes(count, "formula")


def _by_device(layers: Mapping[int, int], placement: Placement) -> dict[str, int]:
    total: dict[str, int] = {}
    for layer, count in layers.items():
        device = placement.layers[layer]
        total[device] = total.get(device, 0) + count
    return total


def _notes(spec: ModelSpec, context: Context) -> tuple[str, ...]:
    notes = []
    if context.per_sequence > spec.context_length:
        notes.append(f"{context.per_sequence} tokens a request, but the model was trained for {spec.context_length}")
    if not spec.tensors:
        notes.append("no tensor table: weights are the sum that the source names, not padded")
    return tuple(notes)
