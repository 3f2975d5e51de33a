"""The shapes and request lists behind every figure, and the floor of an end-to-end run.

Lists are drawn from seeds; the order of the draws is part of their definition. They are the ones that other engines
were measured with, so that figures can be laid side by side.
"""

from __future__ import annotations

import math
import random

from attrs import frozen


@frozen
class ModelShape:
    """A decoder's size; lengths in elements."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    qk_norm: bool = False

    @property
    def body(self) -> int:
        """Weights of the layers' matrix products."""
        attention = 2 * self.hidden * self.head_size * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.feed_forward)

    @property
    def head(self) -> int:
        """Weights that turn a hidden state into logits."""
        return self.vocabulary * self.hidden

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values of one token, in 16 bits."""
        return 2 * self.layers * self.kv_heads * self.head_size * 2


MODELS = {
    "1b": ModelShape(16, 2048, 8192, 32, 8, 64, 128256, tied=True),  # Llama-3.2-1B
    "8b": ModelShape(32, 4096, 14336, 32, 8, 128, 128256, tied=False),  # Llama-3.1-8B
    "0.6b": ModelShape(28, 1024, 3072, 16, 8, 128, 151936, tied=True, qk_norm=True),  # Qwen3-0.6B
}


@frozen
class PromptOfLength:
    """One request of a list: token ids of the prompt, and how many tokens are to come."""

    token_ids: list[int]
    output: int


@frozen
class CardRates:
    """What a card does in this run: bytes a second of a copy (read and write), operations a second of a product."""

    copy: float
    matmul: float


@frozen
class Floor:
    """The least seconds that a request list can take, and the output tokens a second that this makes."""

    seconds: float
    tokens_per_second: float


def requests(model: str) -> list[PromptOfLength]:
    """The 256 requests of ``model``; fewer are its first."""
    draw = random.Random(0)
    if model == "0.6b":  # as nano-vllm's own benchmark draws them
        prompts = [[draw.randint(0, 10000) for _ in range(draw.randint(100, 1024))] for _ in range(256)]
        return [PromptOfLength(prompt, draw.randint(100, 1024)) for prompt in prompts]
    return [
        PromptOfLength(
            [draw.randrange(1000, 120000) for _ in range(draw.randint(128, 1024))], draw.randint(128, 512)
        )
        for _ in range(256)
    ]  # fmt: skip


def temperature(model: str) -> float:
    """How hot the list of ``model`` is sampled."""
    return 0.6 if model == "0.6b" else 0.0


def mixed_lengths() -> list[int]:
    """64 context lengths, log-uniform between 128 and 16384 tokens."""
    draw = random.Random(1234)
    return [round(math.exp(draw.uniform(math.log(128), math.log(16384)))) for _ in range(64)]


def floor(model: str, count: int, rates: CardRates) -> Floor:
    """The floor of the first ``count`` requests of ``model``, all starting at once.

    A decode step reads the weights once, and once the KV of each sequence that still runs, as fast as the card
    copies; prompts cost two operations a weight and token, and causal attention, as fast as the card multiplies.
    Nothing else costs anything.
    """
    shape, listed = MODELS[model], requests(model)[:count]
    attention = 2 * shape.layers * shape.heads * shape.head_size
    operations = sum(
        2 * shape.body * len(each.token_ids) + 2 * shape.head + attention * len(each.token_ids) ** 2 for each in listed
    )
    read = 0
    for step in range(1, max(each.output for each in listed)):  # the first token comes from the prompt's own pass
        live = [len(each.token_ids) + step for each in listed if each.output > step]
        read += 2 * (shape.body + shape.head) + shape.kv_bytes * sum(live)
    seconds = operations / rates.matmul + read / rates.copy
    return Floor(seconds, sum(each.output for each in listed) / seconds)
