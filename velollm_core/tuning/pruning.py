"""Leaving out what need not be measured: by memory, by the engine's rules, by the roofline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen

from velollm_core.errors import ModelRefused
from velollm_core.models.devices import devices
from velollm_core.models.fit import fit, with_overhead
from velollm_core.models.memory import memory
from velollm_core.models.pick import gpu_shares
from velollm_core.models.placement import place
from velollm_core.models.roofline import decode_rate, prefill_rate, turn_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velollm_core.autopilot.shape import Shape
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.load import LoadSettings
    from velollm_core.models.span import Span
    from velollm_core.models.spec import ModelSpec
    from velollm_core.tuning.candidate import Candidate


@frozen
class Pruned:
    """A candidate that is not measured, and why."""

    candidate: str
    reason: str


@define
class Pruner:
    """Judges candidates for requests of ``shape`` to ``spec`` on ``hardware``; ``pruned`` keeps what it left out."""

    spec: ModelSpec
    hardware: Hardware
    shape: Shape
    pruned: list[Pruned] = field(factory=list)

    def keep(self, field: Sequence[Candidate]) -> list[Candidate]:
        """Those of ``field`` that can load and might be the fastest; its first one, which runs already, stays.

        A candidate goes by the roofline only where its shortest possible time exceeds the first one's longest.
        """
        best = self._seconds(field[0].load)
        kept = [field[0]]
        for candidate in field[1:]:
            reason = self._obstacle(candidate, best)
            if reason is None:
                kept.append(candidate)
            else:
                self.pruned.append(Pruned(candidate.name, reason))
        return kept

    def _obstacle(self, candidate: Candidate, best: Span | None) -> str | None:
        load = candidate.load
        if load is None:
            return None
        found = devices(self.hardware)
        try:
            judged = fit(with_overhead(memory(self.spec, load, gpu_shares(found)), found), found)
        except ModelRefused as error:
            return str(error)
        if judged.verdict == "no":
            return judged.reason
        seconds = self._seconds(load)
        if seconds and best and seconds.low > best.high:
            return f"at least {seconds.low:.1f} s a request by the roofline, against {best.high:.1f} s at most"
        return None

    def _seconds(self, load: LoadSettings | None) -> Span | None:
        if load is None:
            return None
        found = devices(self.hardware)
        placement = place(self.spec, load, gpu_shares(found))
        prompt, answer = self.shape.prompt_tokens, self.shape.answer_tokens
        prefill = prefill_rate(self.spec, load, placement, found, prompt)
        decode = decode_rate(self.spec, load, placement, found, prompt + answer // 2, self.shape.users)
        return turn_seconds(prefill, decode, prompt, answer)
