"""The verdict of a report in one line, and the sentences behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from velollm_core.benchmark.noise import Noise, overall
from velollm_core.report.dossier import Standing
from velollm_core.views.comparison import comparison_lines, verdict_text
from velollm_core.views.figures import rate, seconds
from velollm_core.views.measurement import cost_line, load_lines, noise_line

if TYPE_CHECKING:
    from velollm_core.benchmark.comparison import Comparison
    from velollm_core.benchmark.load_report import LoadReport
    from velollm_core.benchmark.plausibility import Plausibility
    from velollm_core.benchmark.report import Report
    from velollm_core.benchmark.store import RunLog
    from velollm_core.report.dossier import Line

Told = tuple[Standing, str, tuple[str, ...]]
_STANDINGS: dict[str, Standing] = {"faster": "good", "equivalent": "good", "slower": "bad"}


def of_comparison(comparison: Comparison | None, first: str, second: str, reason: str | None = None) -> Told:
    """The verdict on two sides; ``reason`` says what follows from it, or why there is none."""
    if comparison is None:
        return "doubtful", f"Nothing was compared: {reason or 'there is no whole pair of blocks'}.", ()
    word, _, rest = verdict_text(comparison, first, second).partition(". ")
    lines = list(comparison_lines(comparison, first, second))[1:]
    if reason:
        lines.append(f"What follows: {reason}.")
    return _STANDINGS.get(comparison.verdict, "doubtful"), f"{word.capitalize()}: {rest}", tuple(lines)


def of_measurement(runs: Sequence[RunLog], lines: Sequence[Line], report: Report | None) -> Told:
    """Whether what was measured can be believed, worst first; ``report`` is that of the last run."""
    plausibility, notes = (report.plausibility, report.notes) if report else (None, ())
    load = report.load if report else None
    noise = overall(block.noise for run in runs for block in run.blocks)
    counted = sum(sample.counts for line in lines for sample in line.samples)
    asked = sum(len(line.samples) for line in lines)
    impossible = any(run.impossible for run in runs) or (plausibility and plausibility.verdict == "impossible")
    bad = list(_invalid(noise, bool(impossible), counted))
    doubts = [*_doubts(noise, plausibility, counted, asked, notes), *_load_doubts(load)]
    sentences = list(_key_figures(lines))
    if load is not None:
        sentences += [*load_lines(load), *([cost_line(report.generator)] if report and report.generator else [])]
    if any(run.blocks for run in runs):
        sentences.append(noise_line(noise))
    if plausibility is not None:
        end = "" if plausibility.text.endswith("?") else "."
        sentences.append(f"Plausibility: {plausibility.text}{end}")
    sentences += [f"Note: {note}." for note in notes]
    sentences.append(f"{counted} of {asked} requests succeeded, in {_runs(len(runs))}.")
    if bad:
        return "bad", f"Not valid: {'; '.join(bad)}.", tuple(sentences)
    if doubts:
        return "doubtful", f"To be read with care: {'; '.join(doubts)}.", tuple(sentences)
    held = ", and no figure is above what memory allows" if plausibility and plausibility.verdict == "plausible" else ""
    return "good", f"Valid: every request succeeded on a quiet machine{held}.", tuple(sentences)


def _key_figures(lines: Sequence[Line]) -> Iterator[str]:
    for line in lines:
        for task in line.tasks:
            first, decode = task.metrics.get("ttft"), task.metrics.get("decode_rate")
            if first is not None:
                speed = f", decode {rate(decode.p50)} tokens/s" if decode else ""
                system = f"; {rate(task.tokens_per_second)} tokens/s in all" if task.tokens_per_second else ""
                yield f"{task.name}, {line.name}: TTFT {seconds(first.p50)}{speed} (medians){system}."


def _invalid(noise: Noise, impossible: bool, counted: int) -> Iterator[str]:
    if impossible:
        yield "a speed is above what this machine allows"
    if noise.verdict == "invalid":
        yield "; ".join(noise.causes)
    if not counted:
        yield "no request succeeded"


def _doubts(
    noise: Noise, plausibility: Plausibility | None, counted: int, asked: int, notes: Sequence[str]
) -> Iterator[str]:
    if counted < asked:
        yield f"{asked - counted} of {asked} requests failed"
    if noise.verdict == "noisy":
        yield "the machine was noisy"
    if plausibility is not None and plausibility.verdict == "slow":
        yield "decoding is far slower than memory allows"
    # The runner's own notes say these in full.
    for beginning, doubt in (
        ("given up early", "the run was given up early"),
        ("stopped on request", "it was stopped"),
    ):
        if any(note.startswith(beginning) for note in notes):
            yield doubt
    if any(note.startswith("never steady") for note in notes):
        yield "the warm-up never became steady"
    if any(note.startswith("warm cache: up to") for note in notes):
        yield "prompts were answered from a cache"


def _load_doubts(load: LoadReport | None) -> Iterator[str]:
    if load is not None and load.saturation.saturated:
        yield "the server was over-saturated"
    if load is not None and not load.window.steady:
        yield "there was no steady window"


def _runs(count: int) -> str:
    return "one run" if count == 1 else f"{count} runs"
