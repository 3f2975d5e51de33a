"""What an experiment came to: the verdict, the choice that follows from it, and the figures of both arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.autopilot.shape import cut_note
from velollm_core.backends.setting import Setting, Value
from velollm_core.benchmark.comparison import DELTA, Comparison
from velollm_core.benchmark.noise import Noise, overall
from velollm_core.benchmark.pair import Pair
from velollm_core.benchmark.percentiles import Percentiles, summarise
from velollm_core.benchmark.quality import LEAST_SHARE, Quality
from velollm_core.benchmark.recorded import judge_pairs

if TYPE_CHECKING:
    from velollm_core.autopilot.experiment import Findings, Setup


@frozen
class ArmReport:
    """One configuration as measured: figures over its blocks, what the engine read back, its load time in seconds."""

    name: str
    settings: tuple[Setting, ...]
    read_back: Mapping[str, Value]
    load_seconds: float | None
    seconds: Percentiles | None
    decode: Percentiles | None
    prefill: Percentiles | None
    ttft: Percentiles | None


@frozen
class Outcome:
    """``chosen`` names the arm to keep, ``reason`` says why.

    ``comparison`` is of the speed at which the workload's work is done and decides; ``details`` are the same pairs by
    decode, prefill and TTFT. Without a single pair it is None. ``invalid`` counts blocks left out, with the cause
    in ``noise``. ``quality`` compares the answers where settings can change them; ``unguarded`` says why that could not
    be done: then nobody knows, and nothing is changed either.
    """

    chosen: str
    reason: str
    comparison: Comparison | None
    details: tuple[Comparison, ...]
    arms: tuple[ArmReport, ...]
    pairs: tuple[Pair, ...]
    noise: Noise
    invalid: int
    seconds: float
    pair_seconds: float | None = None
    quality: Quality | None = None
    unguarded: str | None = None


def conclude(setup: Setup, findings: Findings) -> Outcome:
    """The outcome of what was found so far."""
    names = (setup.arms[0].name, setup.arms[1].name)
    comparison, details = _compare(names, setup, findings)
    chosen, reason = _choose(names, findings, comparison)
    return Outcome(
        chosen=chosen,
        reason=reason,
        comparison=comparison,
        details=details,
        arms=tuple(_arm_report(arm.name, arm.settings, findings) for arm in setup.arms),
        pairs=tuple(findings.pairs),
        noise=overall(block.noise for block in findings.blocks),
        invalid=sum(block.noise.verdict == "invalid" for block in findings.blocks),
        seconds=findings.seconds,
        pair_seconds=findings.pair_seconds,
        quality=findings.guarded.quality,
        unguarded=findings.guarded.problem,
    )


def _compare(
    names: tuple[str, str], setup: Setup, findings: Findings
) -> tuple[Comparison | None, tuple[Comparison, ...]]:
    found = judge_pairs(findings.pairs, names, _notes(setup, findings))
    return (found[0], found[1:]) if found else (None, ())


def _notes(setup: Setup, findings: Findings) -> Sequence[str]:
    noisy = sum(pair.noisy for pair in findings.pairs)
    total = len(findings.pairs)
    lines = [f"{noisy} of {total} pairs were measured on a noisy machine"] if noisy else []
    if findings.resumed:
        lines.append(f"{findings.resumed} of {total} pairs are of an earlier run that was stopped")
    if cut := cut_note(setup.shape, findings.workload):
        lines.append(cut)
    return lines


def _choose(names: tuple[str, str], findings: Findings, comparison: Comparison | None) -> tuple[str, str]:
    today, planned = names
    if findings.refused == planned:
        return today, f"the engine does not start with the planned settings: {findings.reason}"
    if findings.refused == today:
        return planned, f"the engine does not start with the settings of {today}: {findings.reason}"
    if comparison is None:
        return today, "nothing was compared"
    if comparison.accepted and (objection := _objection(findings)):
        return today, objection
    if comparison.accepted:
        return planned, f"the gain is more than {DELTA:.0%} with {comparison.confidence:.0%} confidence"
    texts = {
        "faster": f"the gain is real, but not proven to be more than {DELTA:.0%}",
        "slower": "the planned settings are slower here",
        "equivalent": f"the two are equal within {DELTA:.0%}",
        "not_enough_evidence": "no gain is proven",
    }
    return today, texts[comparison.verdict]


def _objection(findings: Findings) -> str | None:
    """What forbids settings that are faster: answers that drift apart, or that nobody could compare."""
    quality, problem = findings.guarded.quality, findings.guarded.problem
    if problem:
        return f"faster, but its answers could not be compared: {problem}"
    if quality is None or quality.acceptable:
        return None
    share = f"{quality.share:.0%} of an answer on average, less than {LEAST_SHARE:.0%} of what today's settings repeat"
    return f"faster, but the answers change: they stay equal for {share}"


def _arm_report(name: str, settings: tuple[Setting, ...], findings: Findings) -> ArmReport:
    scores = [pair.scores[name] for pair in findings.pairs]
    started = findings.started.get(name)
    return ArmReport(
        name=name,
        settings=settings,
        read_back=started.read_back if started else {},
        load_seconds=started.load_seconds if started else None,
        seconds=summarise(score.seconds for score in scores),
        decode=summarise(score.decode for score in scores if score.decode is not None),
        prefill=summarise(score.prefill for score in scores if score.prefill is not None),
        ttft=summarise(score.ttft for score in scores),
    )
