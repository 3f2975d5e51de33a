"""What a step moves and computes on each device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from velollm_core.models.tensor_types import TYPES_BY_NAME

if TYPE_CHECKING:
    from velollm_core.models.load import LoadSettings
    from velollm_core.models.placement import Placement
    from velollm_core.models.spec import LayerSpec, ModelSpec


@frozen
class Traffic:
    """Bytes read (and for states written) and operations done on one device in one step.

    ``weights`` are the dense ones and the head, ``experts`` the routed experts that the step touches, ``cache`` the
    attention cache, ``state`` the recurrent states.
    """

    device: str
    weights: float = 0.0
    experts: float = 0.0
    cache: float = 0.0
    state: float = 0.0
    flops: float = 0.0

    @property
    def bytes(self) -> float:
        """All bytes moved."""
        return self.weights + self.experts + self.cache + self.state


def traffic(
    spec: ModelSpec, load: LoadSettings, placement: Placement, *, depth: float, tokens: int = 1, sequences: int = 1
) -> tuple[Traffic, ...]:
    """A step of ``tokens`` new tokens for each of ``sequences``, ``depth`` tokens being in each cache already.

    One token of one sequence is decode; many tokens of one are a chunk of prefill. The head reads one row a sequence.
    """
    found = {name: Traffic(name) for name in placement.devices}
    work = tokens * sequences
    per_byte = elements_per_byte(spec)
    touched = _touched(spec, work)
    for layer, name, home in zip(spec.layers, placement.layers, placement.experts, strict=True):
        if layer.nextn:
            continue
        each = _layer(layer, load, depth, work, sequences)
        matrix = 2 * work * per_byte * layer.dense_bytes
        found[name] = _plus(found[name], evolve(each, device=name, flops=each.flops + matrix))
        routed = 2 * work * per_byte * layer.expert_bytes * _routed(spec)
        experts = Traffic(home, experts=layer.expert_bytes * touched, flops=routed)
        found[home] = _plus(found[home], experts)
    head = spec.head_bytes + spec.other_bytes
    output = Traffic(placement.output, weights=head, flops=2 * sequences * per_byte * spec.head_bytes)
    found[placement.output] = _plus(found[placement.output], output)
    return tuple(found.values())


def elements_per_byte(spec: ModelSpec) -> float:
    """Weights a byte of the file holds: 0.5 for F16, about 1.7 for a 4-bit mix; 0.5 where the count is unknown."""
    if not spec.parameters or not spec.tensor_bytes:
        return 0.5
    return spec.parameters / spec.tensor_bytes


def _layer(layer: LayerSpec, load: LoadSettings, depth: float, work: int, sequences: int) -> Traffic:
    seen = min(depth, layer.window) if layer.window and not load.swa_full else depth
    if layer.compression:
        seen += depth / layer.compression
    row_k = (layer.k_row + layer.indexer_k) * _element_bytes(load.type_k)
    row_v = (layer.v_row + layer.indexer_v) * _element_bytes(load.type_v)
    attention = 2 * layer.heads * (layer.key_length + (layer.value_length or layer.key_length))
    state = 4 * 2 * (layer.state_r + layer.state_s) * sequences
    attends = layer.attention != "none"
    return Traffic(
        "",
        weights=layer.dense_bytes,
        cache=seen * sequences * (row_k + row_v) if attends else 0.0,
        state=state,
        flops=work * attention * seen if attends else 0.0,
    )


def _element_bytes(cache_type: str) -> float:
    kind = TYPES_BY_NAME[cache_type]
    return kind.size / kind.block


def _routed(spec: ModelSpec) -> float:
    return min(1.0, spec.expert_used / spec.expert_count) if spec.expert_count and spec.expert_used else 1.0


def _touched(spec: ModelSpec, work: int) -> float:
    """The part of the experts that ``work`` tokens touch, were they routed at random."""
    part = _routed(spec)
    return float(1 - (1 - part) ** work)


def _plus(one: Traffic, other: Traffic) -> Traffic:
    return Traffic(
        one.device,
        one.weights + other.weights,
        one.experts + other.experts,
        one.cache + other.cache,
        one.state + other.state,
        one.flops + other.flops,
    )
