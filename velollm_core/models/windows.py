"""Which layers attend through a window, and how wide it is."""

from __future__ import annotations

from velollm_core.models.metadata import Metadata
from velollm_core.models.rules import Window

WINDOW_KEY = "{a}.attention.sliding_window"
PATTERN_KEY = "{a}.attention.sliding_window_pattern"


def window_width(rule: Window | None, metadata: Metadata, main_blocks: int) -> int | None:
    """The window in tokens, None where the model has none.

    Raises:
        ModelFileError: the width is missing though llama.cpp asks for it.
    """
    if rule is None or (rule.block_count is not None and main_blocks != rule.block_count):
        return None
    has_key = metadata.has(WINDOW_KEY)
    if rule.forced is not None:
        off = metadata.integer(WINDOW_KEY, 0) == 0 and (has_key or rule.optional)
        return None if off else rule.forced
    if rule.optional:
        return metadata.integer(WINDOW_KEY, 0) or None
    return metadata.integer(WINDOW_KEY, rule.default)


def windowed_layers(rule: Window, metadata: Metadata, blocks: int, main_blocks: int) -> tuple[bool, ...]:
    """One flag per block: whether it attends through the window.

    Raises:
        ModelFileError: the pattern is missing where no other rule says it.
    """
    if rule.period == 0:
        return (True,) * blocks
    flags = metadata.flags(PATTERN_KEY, blocks)
    if flags is not None:
        return flags
    if rule.period is None:
        metadata.per_layer(PATTERN_KEY, blocks)
        raise metadata.error(PATTERN_KEY, "one flag per layer, as llama.cpp asks for this architecture")
    period = metadata.integer(PATTERN_KEY, rule.period)
    return tuple(layer < main_blocks and _windowed(layer, period, rule.full_first) for layer in range(blocks))


def _windowed(layer: int, period: int, full_first: bool) -> bool:
    if period == 0:
        return True
    return layer % period != 0 if full_first else layer % period < period - 1
