"""`velollm compare`: judge what was measured, with the evidence for it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from velollm_core.benchmark.recorded import Judgement, judge_experiment, judge_files
from velollm_core.options import json_option, output_option
from velollm_core.render import console, document, print_json, to_json, write_text
from velollm_core.report.option import report_option

SLOWER = 3
_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(epilog="Example: velollm compare before.jsonl after.jsonl --fail-on slower")
@click.argument("first", type=_file)
@click.argument("second", type=_file, required=False)
@click.option("--fail-on", type=click.Choice(["slower"]), help="Exit with 3 if SECOND is proven to be slower.")
@output_option
@report_option
@json_option
def command(
    first: Path,
    second: Path | None,
    fail_on: str | None,
    output: Path | None,
    report_file: Path | None,
    as_json: bool,
) -> None:
    """Judge SECOND against FIRST: faster, slower, equivalent, or not enough evidence.

    Both are files of samples that `velollm benchmark -o` wrote. A single file may hold a whole experiment, as the
    autopilot keeps it: its pairs are judged then.
    """
    if output is not None and output.suffix not in ("", ".json"):
        raise click.UsageError(f"compare writes JSON: name the file {output.stem}.json, not {output.name}")
    judgement = judge_experiment(first) if second is None else judge_files(first, second)
    found = _document(judgement)
    if output is not None:
        write_text(output, to_json(found))
    if report_file is not None:
        from velollm_core.report.files import write_report
        from velollm_core.report.tell import tell_judgement

        write_report(tell_judgement(judgement, first, second), report_file)
    if as_json:
        print_json(found)
    else:
        _show(judgement)
    if fail_on and judgement.comparison.verdict == fail_on:
        sys.exit(SLOWER)


def _document(judgement: Judgement) -> dict[str, object]:
    comparison = judgement.comparison
    return document(
        "compare",
        verdict=comparison.verdict,
        ratio=comparison.ratio,
        interval=comparison.interval,
        minimum_detectable_effect=comparison.minimum_detectable_effect,
        first=judgement.first,
        second=judgement.second,
        comparison=comparison,
        details=judgement.details,
        tasks=judgement.tasks,
        quality=judgement.guarded.quality,
        unguarded=judgement.guarded.problem,
    )


def _show(judgement: Judgement) -> None:
    from velollm_core.views.comparison import comparison_lines, comparison_table

    screen = console()
    names = (judgement.first.name, judgement.second.name)
    for side in (judgement.first, judgement.second):
        runs = "1 run" if side.runs == 1 else f"{side.runs} runs"
        line = f"{side.name}: {side.model} on {side.backend}, {runs}, {side.requests} requests"
        screen.print(line, markup=False, soft_wrap=True)
    screen.print()
    screen.print(comparison_table([judgement.comparison, *judgement.details, *judgement.tasks.values()]))
    screen.print()
    answers = (f"Answers: {note}." for note in judgement.guarded.notes(names[0]))
    for line in (*comparison_lines(judgement.comparison, *names), *answers):
        screen.print(line, markup=False, soft_wrap=True)
