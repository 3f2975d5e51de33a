"""What llama.cpp makes of the context and batch that were asked for: padding, clamping, slots and streams."""

from __future__ import annotations

from attrs import frozen

from velollm_core.models.architectures import ARCHITECTURES
from velollm_core.models.load import LoadSettings
from velollm_core.models.spec import ModelSpec

PAD = 256
AUTO_SEQUENCES = 4


@frozen
class Context:
    """Tokens and slots as llama.cpp will use them.

    ``total`` tokens are cached over ``sequences`` slots, ``per_sequence`` the most that one may use. ``streams`` is
    the number of separate caches: one if ``unified``, else one a slot, each of ``per_sequence`` cells.
    """

    total: int
    per_sequence: int
    sequences: int
    unified: bool
    batch: int
    ubatch: int
    flash_attn: bool

    @property
    def streams(self) -> int:
        """Separate caches."""
        return 1 if self.unified else self.sequences


def padded(tokens: int) -> int:
    """The next multiple of 256 cells."""
    return -(-tokens // PAD) * PAD


def used_context(spec: ModelSpec, load: LoadSettings) -> Context:
    """What ``load`` comes to for ``spec``; a total context of 0 is the trained one.

    The batch is clamped to the context before that is padded. Without flash attention by the model's own limits,
    "auto" is off; a quantized V turns it on.
    """
    asked = load.total_context or spec.context_length
    sequences = AUTO_SEQUENCES if load.parallel is None else load.parallel
    unified = True if load.parallel is None else bool(load.kv_unified)
    batch = min(asked, load.batch)
    total = padded(asked)
    per_sequence = total
    if not unified and sequences > 0:
        per_sequence = padded(total // sequences)
        total = per_sequence * sequences
    return Context(
        total=total,
        per_sequence=per_sequence,
        sequences=sequences,
        unified=unified,
        batch=batch,
        ubatch=min(batch, load.ubatch or load.batch),
        flash_attn=_flash_attention(spec, load),
    )


def _flash_attention(spec: ModelSpec, load: LoadSettings) -> bool:
    rules = ARCHITECTURES.get(spec.architecture)
    if rules is not None and not rules.flash_attention:
        return False
    return load.flash_attn != "off"
