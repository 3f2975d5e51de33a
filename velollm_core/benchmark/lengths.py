"""How long prompts and answers are: a number, or a distribution."""

from __future__ import annotations

import random
from typing import Literal

from attrs import frozen

from velollm_core.errors import VeloError

Shape = Literal["fixed", "uniform", "normal", "lognormal"]


@frozen
class Lengths:
    """Tokens. ``uniform`` lies between ``first`` and ``second``; ``normal`` has that mean and deviation; ``lognormal``
    has ``first`` for its median and ``second`` for the deviation of its logarithm. None is ever below one.
    """

    shape: Shape
    first: float
    second: float = 0.0

    def draw(self, rng: random.Random) -> int:
        """One length, at least 1."""
        if self.shape == "uniform":
            return rng.randint(int(self.first), int(self.second))
        if self.shape == "normal":
            return max(1, round(rng.gauss(self.first, self.second)))
        if self.shape == "lognormal":
            return max(1, round(self.first * rng.lognormvariate(0.0, self.second)))
        return max(1, int(self.first))

    @property
    def middle(self) -> int:
        """The length in the middle, tokens."""
        return max(1, round((self.first + self.second) / 2 if self.shape == "uniform" else self.first))

    def __str__(self) -> str:
        if self.shape == "fixed":
            return f"{self.first:g}"
        return f"{self.shape}:{self.first:g}:{self.second:g}"


def parse_lengths(text: str) -> Lengths:
    """``256``, ``uniform:64:512``, ``normal:256:64`` or ``lognormal:256:0.8``.

    Raises:
        VeloError: it is none of these.
    """
    shapes: dict[str, Shape] = {"uniform": "uniform", "normal": "normal", "lognormal": "lognormal"}
    try:
        if ":" not in text:
            lengths = Lengths("fixed", int(text))
        else:
            name, first, second = text.split(":")
            lengths = Lengths(shapes[name], float(first), float(second))
    except (ValueError, KeyError):
        raise VeloError(
            f"{text!r} is no length: write 256, uniform:64:512, normal:256:64 or lognormal:256:0.8"
        ) from None
    if lengths.first < 1 or lengths.second < 0 or (lengths.shape == "uniform" and lengths.second < lengths.first):
        raise VeloError(f"{text!r}: lengths begin at 1 token, and a range must not run backwards")
    return lengths
