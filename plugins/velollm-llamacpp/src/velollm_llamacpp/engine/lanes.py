"""Spare sequence ids that keep the cells of blocks nobody uses now."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping


class Lanes:
    """Each lane is a sequence id that holds, at each place of a block table, at most one block.

    A sequence id that held two cells at one position could not be shared from; so blocks that begin many different
    prompts need as many lanes. The lane that was used longest ago gives way.
    """

    def __init__(self, ids: Iterable[int]) -> None:
        self._held: OrderedDict[int, dict[int, int]] = OrderedDict((each, {}) for each in ids)

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._held

    def room_for(self, blocks: Mapping[int, int]) -> tuple[int | None, tuple[int, ...]]:
        """A lane for ``blocks`` (place: block), and the blocks it gives up for them; no lane if there is none."""
        lost: tuple[int, ...] = ()
        chosen = next((lane for lane, held in self._held.items() if held.keys().isdisjoint(blocks)), None)
        if chosen is None and self._held:
            chosen = next(iter(self._held))
            lost = tuple(self._held[chosen].values())
            self._held[chosen].clear()
        if chosen is not None:
            self._held[chosen].update(blocks)
            self._held.move_to_end(chosen)
        return chosen, lost

    def use(self, lane: int) -> None:
        """Something of ``lane`` was shared again."""
        self._held.move_to_end(lane)

    def drop(self, lane: int, place: int) -> None:
        """``lane`` no longer holds a block at ``place``."""
        self._held[lane].pop(place, None)

    def clear(self) -> dict[int, tuple[int, ...]]:
        """Forget everything; the blocks that each lane held."""
        held = {lane: tuple(blocks.values()) for lane, blocks in self._held.items() if blocks}
        for blocks in self._held.values():
            blocks.clear()
        return held
