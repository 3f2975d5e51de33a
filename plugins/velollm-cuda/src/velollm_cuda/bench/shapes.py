"""The attention shapes that are measured, with the bars of each."""

from __future__ import annotations

from attrs import frozen

from velollm_cuda.bench.workloads import mixed_lengths

SATURATED = 1.03
USUAL = 1.07
HARD = 1.10
SATURATED_GB_S = 2900.0
MIXED_GB_S = 2650.0


@frozen
class Heads:
    """Query heads, KV heads and their size."""

    query: int
    kv: int
    size: int

    @property
    def group(self) -> int:
        """Query heads of one KV head."""
        return self.query // self.kv


HEADS = {
    "8B": Heads(32, 8, 128),
    "1B": Heads(32, 8, 64),
    "MHA": Heads(32, 32, 128),
    "Qwen3": Heads(64, 8, 128),
    "0.6B": Heads(16, 8, 128),
}


@frozen
class DecodeShape:
    """One query token for each of ``lengths``.

    ``ratio`` is the most it may take, in times of SDPA; 0 where none can run. ``gb_s`` is the least rate of reading
    keys and values, 0 without such a bar.
    """

    heads: str
    lengths: tuple[int, ...]
    ratio: float = USUAL
    gb_s: float = 0.0

    @property
    def name(self) -> str:
        """``8B 64×4k``."""
        return f"{self.heads} {len(self.lengths)}{_tokens(self.lengths)}"

    @property
    def bytes(self) -> int:
        """Keys and values that a call reads, in 16 bits."""
        heads = HEADS[self.heads]
        return sum(self.lengths) * heads.kv * heads.size * 4


@frozen
class PrefillShape:
    """Chunks of sequences: the last ``chunk`` of ``length`` tokens, ``count`` times.

    ``tflop_s`` is its bar, 0 without one.
    """

    heads: str
    count: int
    chunk: int
    length: int
    tflop_s: float = 0.0

    @property
    def name(self) -> str:
        """``8B 4×(512 + 8k)``."""
        context = self.length - self.chunk
        size = f"({_k(self.chunk)} + {_k(context)})" if context else _k(self.chunk)
        return f"{self.heads} {self.count}×{size}"

    @property
    def operations(self) -> float:
        """Operations of causal attention: two products, each of the pairs of tokens that see one another."""
        heads, context = HEADS[self.heads], self.length - self.chunk
        pairs = self.chunk * context + self.chunk * (self.chunk + 1) / 2
        return 4 * heads.query * heads.size * pairs * self.count


@frozen
class HybridShape:
    """A step with decodes and a chunk, of the same heads, and the most microseconds it may take."""

    decodes: DecodeShape
    chunk: PrefillShape
    microseconds: float


def _tokens(lengths: tuple[int, ...]) -> str:
    return f"×{_k(lengths[0])}" if len(set(lengths)) == 1 else " mixed"


def _k(tokens: int) -> str:
    return f"{tokens // 1024}k" if tokens % 1024 == 0 else str(tokens)


def _saturated(heads: str, count: int, length: int) -> DecodeShape:
    return DecodeShape(heads, (length,) * count, SATURATED, SATURATED_GB_S)


DECODE = (
    DecodeShape("8B", (1024,)),
    DecodeShape("8B", (16384,)),
    DecodeShape("8B", (131072,)),
    DecodeShape("8B", (2048,) * 8),
    DecodeShape("8B", (16384,) * 8),
    DecodeShape("8B", (1024,) * 64),
    _saturated("8B", 64, 4096),
    _saturated("8B", 64, 8192),
    _saturated("8B", 256, 1024),
    _saturated("8B", 256, 2048),
    DecodeShape("8B", tuple(mixed_lengths()), 0.0, MIXED_GB_S),
    DecodeShape("1B", (4096,)),
    DecodeShape("1B", (2048,) * 64),
    DecodeShape("1B", (1024,) * 256, HARD),
    _saturated("MHA", 64, 2048),
    _saturated("Qwen3", 64, 4096),
    DecodeShape("0.6B", (2048,) * 64),
)

PREFILL = (
    PrefillShape("8B", 1, 8192, 8192, 350.0),
    PrefillShape("8B", 8, 2048, 2048),
    PrefillShape("8B", 4, 512, 512 + 8192, 350.0),
    PrefillShape("8B", 1, 512, 512 + 4096),
    PrefillShape("8B", 16, 256, 256),
    PrefillShape("1B", 8, 2048, 2048),
)
PREFILL_AIM = 450.0

HYBRID = HybridShape(DecodeShape("8B", (2048,) * 64), PrefillShape("8B", 1, 512, 512 + 4096), 300.0)
