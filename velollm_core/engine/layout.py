"""What the KV cache of a model looks like: bytes per block, one group of layers per attention kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.errors import VeloError

if TYPE_CHECKING:
    from velollm_core.models.spec import ModelSpec


@frozen
class KVGroup:
    """Layers that keep the same tokens, and so share one block table.

    ``bytes_per_token`` counts K and V of one token over all ``layers``. ``window`` is how many tokens back a layer
    looks, itself included; None is full attention.
    """

    layers: int
    bytes_per_token: int
    window: int | None = None

    def live_tokens(self, num_tokens: int) -> int:
        """How many of a sequence's ``num_tokens`` tokens must be kept."""
        return num_tokens if self.window is None else min(num_tokens, self.window)


@frozen
class KVCacheLayout:
    """The groups of a model's cache and the size of a block, in tokens.

    Every group has a pool of its own. With several of them, memory is divided so that all groups hold equally many
    sequences of ``typical_tokens``; with one it does not matter.
    """

    groups: tuple[KVGroup, ...]
    block_size: int = 16
    typical_tokens: int = 8192

    def __attrs_post_init__(self) -> None:
        if self.block_size < 1 or not self.groups or any(group.bytes_per_token < 1 for group in self.groups):
            raise VeloError(f"a KV cache needs a layer that caches and blocks of at least one token, found {self}")

    @classmethod
    def uniform(
        cls, layers: int, kv_heads: int, head_size: int, *, bytes_per_element: int = 2, block_size: int = 16
    ) -> KVCacheLayout:
        """The layout of a model whose layers are all alike and attend to everything."""
        group = KVGroup(layers, 2 * layers * kv_heads * head_size * bytes_per_element)
        return cls((group,), block_size)

    @classmethod
    def from_spec(cls, spec: ModelSpec, *, bytes_per_element: int = 2, block_size: int = 16) -> KVCacheLayout:
        """The layout of ``spec``: full attention first, then each window, narrow to wide.

        A layer with chunked attention is kept as a window of that size, which holds all it can look at.
        """
        layers: dict[int, list[int]] = {}
        for layer in spec.main_layers:
            if layer.caches and (row := layer.k_row + layer.v_row):
                layers.setdefault(layer.window, []).append(row * bytes_per_element)
        groups = tuple(KVGroup(len(rows), sum(rows), window or None) for window, rows in sorted(layers.items()))
        return cls(groups, block_size, min(spec.context_length, 8192) or 8192)

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token in all groups."""
        return sum(group.bytes_per_token for group in self.groups)

    @property
    def bytes_per_block(self) -> tuple[int, ...]:
        """Bytes of one block, per group."""
        return tuple(self.block_size * group.bytes_per_token for group in self.groups)

    def blocks_for(self, num_tokens: int) -> tuple[int, ...]:
        """Blocks that a sequence of ``num_tokens`` holds at least, per group.

        A window needs one block beyond its own tokens, because it does not begin on a block's boundary, and one more
        for the token being written.
        """
        counts = []
        for group in self.groups:
            blocks = -(-num_tokens // self.block_size)
            if group.window is not None:
                blocks = min(blocks, -(-group.window // self.block_size) + 2)
            counts.append(blocks)
        return tuple(counts)

    def bytes_for(self, num_tokens: int) -> int:
        """Bytes that a sequence of ``num_tokens`` holds at least, in whole blocks."""
        return sum(n * size for n, size in zip(self.blocks_for(num_tokens), self.bytes_per_block, strict=True))

    def num_blocks(self, memory: int) -> tuple[int, ...]:
        """How many blocks of each group ``memory`` bytes hold, the null block included."""
        shares = self.blocks_for(self.typical_tokens)
        whole = self.bytes_for(self.typical_tokens)
        return tuple(
            memory // size if len(self.groups) == 1 else memory * share // whole
            for share, size in zip(shares, self.bytes_per_block, strict=True)
        )
