"""The test model's vocabulary: bytes, a few English pairs, invented words, and three control tokens."""

from __future__ import annotations

from itertools import islice, product
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

NORMAL, CONTROL = 1, 3

CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

CHAT_TEMPLATE = (
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

MERGES = (
    "Ġ t", "Ġ a", "h e", "i n", "r e", "o n", "Ġt he", "e r", "Ġ s", "a t", "Ġ w", "Ġ o", "e n", "Ġ c", "i t", "i s",
    "a n", "o r", "e s", "Ġ b", "e d", "Ġ f", "in g", "Ġ p", "o u", "Ġa n", "a l", "a r", "Ġt o", "Ġ m", "Ġo f", "Ġ in",
    "Ġ d", "Ġ h", "Ġan d", "i c", "a s", "l e", "Ġt h", "i on", "o m",
)  # fmt: skip


@frozen
class Vocabulary:
    """A byte-level BPE vocabulary in GPT-2's alphabet; ``silent`` tokens must never be chosen."""

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    silent: tuple[int, ...]

    @property
    def end_of_text(self) -> int:
        """Id of the token that ends a text, and that begins one where the server asks for it."""
        return self.tokens.index(CONTROLS[0])

    @property
    def end_of_turn(self) -> int:
        """Id of the token that ends a turn of a chat."""
        return self.tokens.index(CONTROLS[2])


def make_vocabulary(size: int) -> Vocabulary:
    """A vocabulary of ``size`` tokens: at least 300, the rest invented words that only the model itself utters."""
    alphabet = _byte_alphabet()
    merged = tuple(pair.replace(" ", "") for pair in MERGES)
    fixed = (*alphabet, *merged)
    words = tuple(islice(_words(set(fixed)), size - len(fixed) - len(CONTROLS)))
    tokens = (*fixed, *words, *CONTROLS)
    silent = tuple(byte for byte in range(256) if not 33 <= byte <= 126)
    controls = range(len(tokens) - len(CONTROLS), len(tokens))
    types = tuple(CONTROL if token in controls else NORMAL for token in range(len(tokens)))
    return Vocabulary(tokens, types, MERGES, (*silent, *controls))


def _byte_alphabet() -> tuple[str, ...]:
    """One printable character per byte, as GPT-2 writes them: the unprintable move up behind U+0100."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    moved = iter(range(256, 512))
    return tuple(chr(byte if byte in printable else next(moved)) for byte in range(256))


def _words(taken: set[str]) -> Iterator[str]:
    """Words of one to three syllables, with a space before them, that are not in ``taken``."""
    syllables = [consonant + vowel for consonant, vowel in product("bdfgklmnprstvz", "aeiou")]
    for count in (1, 2, 3):
        for parts in product(syllables, repeat=count):
            word = "Ġ" + "".join(parts)
            if word not in taken:
                yield word
