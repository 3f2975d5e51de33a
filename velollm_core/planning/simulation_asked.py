"""The load that a plan is tried with, as it is written on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from velollm_core.engine.loads import MOST, Arrival, Lengths, burst, ramp, replay, steady
from velollm_core.errors import VeloError

if TYPE_CHECKING:
    from velollm_core.engine.simulator import Slo

FORMS = "burst:COUNT, steady:RATE, ramp:FIRST:LAST or a file of JSON lines"


@frozen
class SimulationAsked:
    """``load`` is ``burst:64``, ``steady:2.5``, ``ramp:1:8`` (requests a second), or the path of a recorded list.

    A recorded list has one JSON object a line: ``at`` in seconds, ``prompt_tokens``, ``output_tokens``, and if need be
    ``shared_prefix`` and ``priority``. ``seconds`` is how long steady and growing loads last.
    """

    load: str
    lengths: Lengths
    slo: Slo
    seconds: float = 60.0
    seed: int = 0

    def within(self, context: int) -> SimulationAsked:
        """The same with prompt and answer cut so that ``context`` tokens hold both."""
        output = _cut(self.lengths.output, max(1, context // 2))
        prompt = _cut(self.lengths.prompt, max(1, context - output[1]))
        return evolve(self, lengths=evolve(self.lengths, prompt=prompt, output=output))

    def arrivals(self) -> tuple[Arrival, ...]:
        """The requests.

        Raises:
            VeloError: the load is none of the forms, has no request, or the file cannot be read.
        """
        if found := self._arrivals():
            return found
        raise VeloError(f"{self.load} brings no request within {self.seconds:g} s: give another, or more --seconds")

    def _arrivals(self) -> tuple[Arrival, ...]:
        form, *numbers = self.load.split(":")
        try:
            match form, [float(number) for number in numbers] if form in ("burst", "steady", "ramp") else []:
                case "burst", [count] if count >= 1:
                    return burst(int(min(count, MOST + 1)), self.lengths, seed=self.seed)
                case "steady", [rate]:
                    return steady(rate, self.seconds, self.lengths, seed=self.seed)
                case "ramp", [first, last]:
                    return ramp(first, last, self.seconds, self.lengths, seed=self.seed)
        except ValueError:
            pass
        else:
            if form not in ("burst", "steady", "ramp"):
                return replay(_recorded(Path(self.load)))
        raise VeloError(f"{self.load} is no load: give {FORMS}")


def _cut(between: tuple[int, int], most: int) -> tuple[int, int]:
    return min(between[0], most), min(between[1], most)


def _recorded(path: Path) -> list[Arrival]:
    from velollm_core.render import structure

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        values = [(number, json.loads(line)) for number, line in enumerate(lines, 1) if line.strip()]
    except (OSError, ValueError) as error:
        raise VeloError(
            f"{path}: cannot be read as requests, one JSON object a line ({error}); or give {FORMS}"
        ) from error
    return [structure(value, Arrival, f"{path}:{number}") for number, value in values]
