"""Which tokens each sequence has seen and produced: what penalties look at."""

from __future__ import annotations

import torch
from attrs import define, field
from torch import Tensor

from velollm_core.engine.sequence import Sequence
from velollm_cuda.transfer import to_device

PROMPT, PRODUCED = 1, 2


@define(eq=False)
class Tally:
    """Counts per slot-table row and token, on the device; memory is taken when the first sequence asks for it.

    A cell is twice the number of times the token was produced, and one more if it is in the prompt.
    """

    rows: int
    vocabulary: int
    device: torch.device
    _cells: Tensor | None = field(init=False, default=None)

    @property
    def cells(self) -> Tensor:
        """``[rows, vocabulary]`` int32."""
        if self._cells is None:
            self._cells = torch.zeros(self.rows, self.vocabulary, dtype=torch.int32, device=self.device)
        return self._cells

    def enter(self, row: int, sequence: Sequence) -> None:
        """Begin ``row`` with the tokens of ``sequence`` so far; one that was preempted has produced some."""
        cells = self.cells[row].zero_()
        known = to_device(sequence.token_ids, torch.int64, self.device)
        prompt, produced = known[: sequence.num_prompt_tokens], known[sequence.num_prompt_tokens :]
        cells.index_fill_(0, prompt, PROMPT)
        cells.scatter_add_(0, produced, torch.full_like(produced, PRODUCED, dtype=torch.int32))

    def count(self, rows: Tensor, tokens: Tensor) -> None:
        """``rows [B]`` have produced ``tokens [B]``, int64."""
        where = rows * self.vocabulary + tokens
        self.cells.view(-1).scatter_add_(0, where, torch.full_like(where, PRODUCED, dtype=torch.int32))
