"""Which layer lives on which device, by llama.cpp's own rule."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.models.devices import HOST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velollm_core.models.load import LoadSettings
    from velollm_core.models.spec import ModelSpec


@frozen
class Placement:
    """Device names: ``layers`` for the dense weights and the cache of each block, ``experts`` for its routed experts.

    ``output`` holds the head. Token embeddings stay on the host always.
    """

    layers: tuple[str, ...]
    experts: tuple[str, ...]
    output: str

    @property
    def devices(self) -> tuple[str, ...]:
        """Every device that holds something, the host first."""
        used = {*self.layers, *self.experts, self.output} - {HOST}
        return (HOST, *sorted(used, key=lambda name: (len(name), name)))


def place(spec: ModelSpec, load: LoadSettings, shares: Sequence[float] = (1.0,)) -> Placement:
    """Where each part goes. ``shares`` are the GPUs' parts of the offloaded layers, by default as their free memory.

    The last ``load.gpu_layers`` of the layers (the output counts as one, after the last) go to GPUs, in order; the
    experts of the first ``load.cpu_moe_layers`` blocks stay on the host.
    """
    count = spec.block_count
    offloaded = min(load.gpu_layers, count + 1) if shares else 0
    first = count + 1 - offloaded
    edges = list(accumulate(shares))
    names = [_device(index - first, offloaded, edges) if index >= first else HOST for index in range(count + 1)]
    experts = [HOST if index < load.cpu_moe_layers else name for index, name in enumerate(names[:count])]
    return Placement(tuple(names[:count]), tuple(experts), names[count])


def _device(position: int, offloaded: int, edges: list[float]) -> str:
    return f"gpu{min(bisect_right(edges, position / offloaded * edges[-1]), len(edges) - 1)}"
