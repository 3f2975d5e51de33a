"""How the results of a step are taken in."""

from __future__ import annotations

from collections.abc import Sequence as Row

from velollm_core.engine.acceptance import accept
from velollm_core.engine.blocks import BlockManager
from velollm_core.engine.output import SchedulerOutput
from velollm_core.engine.results import StepResults
from velollm_core.engine.roster import Roster
from velollm_core.engine.sequence import FinishReason, Sequence, SequenceStatus


class ResultUptake:
    """Gives sequences their tokens, ends those that are done, and commits what a retired step has filled."""

    def __init__(self, max_draft_tokens: int, blocks: BlockManager, roster: Roster) -> None:
        self._max_drafts = max_draft_tokens
        self._blocks = blocks
        self._roster = roster

    def take(self, output: SchedulerOutput, results: StepResults) -> list[Sequence]:
        """The sequences that ended with this step.

        Raises:
            ValueError: the steps come out of order, or the results have not one row for each that samples.
        """
        sampled = [chunk.sequence for chunk in output.chunks if chunk.samples]
        first_chunk = len(output.decodes)
        if len(results.token_ids) != first_chunk + len(sampled):
            raise ValueError(
                f"step {output.step} has {first_chunk + len(sampled)} rows, found {len(results.token_ids)}"
            )
        self._roster.departures.retire(output.step)
        ended: list[Sequence] = []
        if results.is_plain and not self._max_drafts:
            self._take_tokens(output, results.token_ids, ended)
        else:
            for row, sequence in enumerate(output.decodes):
                self._take_row(sequence, row, results, ended)
        for row, sequence in enumerate(sampled, first_chunk):
            self._take_row(sequence, row, results, ended)
        self._commit(output)
        self._roster.release_departed()
        return ended

    def _take_tokens(self, output: SchedulerOutput, token_ids: Row[int], ended: list[Sequence]) -> None:
        """One token for each decode: the path that nearly every step takes."""
        if not self._roster.departures and self._roster.stop_ids.isdisjoint(token_ids):
            for sequence, token in zip(output.decodes, token_ids, strict=False):
                sequence.token_ids.append(token)
        else:
            self._take_carefully(output, token_ids, ended)
        for sequence in output.final:
            if sequence.status is SequenceStatus.RUNNING:
                self._end(sequence, "length", output, ended)

    def _take_carefully(self, output: SchedulerOutput, token_ids: Row[int], ended: list[Sequence]) -> None:
        """Some sequence is leaving, or some token may end one."""
        running = SequenceStatus.RUNNING
        unusual: list[tuple[Sequence, int]] = []
        for sequence, token in zip(output.decodes, token_ids, strict=False):
            if sequence.status is running and token not in sequence.stop_ids:
                sequence.token_ids.append(token)
            else:
                unusual.append((sequence, token))
        for sequence, token in unusual:
            if not sequence.is_finished and (reason := accept(sequence, (token,))):
                self._end(sequence, reason, output, ended)

    def _end(self, sequence: Sequence, reason: FinishReason, output: SchedulerOutput, ended: list[Sequence]) -> None:
        """One that ends by its length was known to, and is in no later step."""
        after = output.step if reason == "length" else self._roster.departures.launched
        self._roster.finish(sequence, reason, after)
        ended.append(sequence)

    def _take_row(self, sequence: Sequence, row: int, results: StepResults, ended: list[Sequence]) -> None:
        sequence.awaiting = False
        if sequence.is_finished:
            return
        known = len(sequence.token_ids)
        reason = accept(sequence, results.accepted.get(row) or (results.token_ids[row],))
        reason = reason or results.finish_reasons.get(row)
        sequence.alternatives.extend(results.alternatives.get(row, ())[: len(sequence.token_ids) - known])
        sequence.logprobs.extend(results.logprobs.get(row, ())[: len(sequence.token_ids) - known])
        if self._max_drafts:
            sequence.draft_token_ids = results.drafts.get(row, ())[: self._max_drafts]
            sequence.num_computed = len(sequence.token_ids) - 1
            self._blocks.commit(sequence, sequence.num_computed)
        if reason:
            self._roster.finish(sequence, reason, self._roster.departures.launched)
            ended.append(sequence)

    def _commit(self, output: SchedulerOutput) -> None:
        for sequence, num_tokens in output.commits:
            known = len(sequence.token_ids)
            self._blocks.commit(sequence, min(num_tokens, known))
        for chunk in output.chunks:
            if chunk.sequence.num_retired >= chunk.sequence.num_prompt_tokens:
                self._roster.prompt_ready(chunk.sequence)
