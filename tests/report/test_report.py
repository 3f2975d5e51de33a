"""What a report tells, in each of its formats."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve

from velollm_core.backends.setting import Setting
from velollm_core.benchmark.arm import Arm
from velollm_core.benchmark.plausibility import judge_decode
from velollm_core.benchmark.recorded import judge_experiment, judge_files
from velollm_core.errors import VeloError
from velollm_core.report.benchstat import to_benchstat
from velollm_core.report.files import FORMATS, to_document, write_report
from velollm_core.report.markdown import plain_text, to_markdown
from velollm_core.report.option import SUFFIXES
from velollm_core.report.page import to_html
from velollm_core.report.tables import RAW_ROWS, figures_table, raw_table
from velollm_core.report.tell import tell_experiment, tell_judgement, tell_measurement

Write = Callable[..., Path]
VOID = {"meta", "link", "br", "path", "rect", "line", "circle"}


class _Checker(HTMLParser):
    """Notes the headings, and whether elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.tables = self.captions = 0
        self.names: list[str] = []
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert not any(name.startswith("on") for name in given)
        self.names += [str(given["id"])] if "id" in given else []
        self.targets += [str(given["href"])] if "href" in given else []
        self.headings += [tag] if re.fullmatch("h[1-6]", tag) else []
        self.tables += tag == "table"
        self.captions += tag == "caption"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_the_page_is_well_formed_and_asks_nobody(tmp_path: Path, write_loads: Write) -> None:
    page = to_html(tell_measurement(write_loads(tmp_path / "s.jsonl", {1: 8, 2: 8})))
    checker = _Checker()
    checker.feed(page)
    assert checker.open == []
    assert checker.headings[:3] == ["h1", "h2", "h3"]
    assert checker.tables == checker.captions >= 5
    assert len(checker.names) == len(set(checker.names))
    assert {target.removeprefix("#") for target in checker.targets} <= set(checker.names)
    assert "<script" not in page
    assert not re.search(r"https?:|url\(|@import|src=", page)


def test_the_verdict_comes_first(tmp_path: Path, write_duel: Write) -> None:
    path = write_duel(tmp_path / "s.jsonl")
    dossier = tell_judgement(judge_experiment(path), path)
    assert dossier.standing == "good"
    assert dossier.headline.startswith("Faster: after is 24.")
    page = to_html(dossier)
    assert page.index("Faster: after is 24.") < page.index("<h2")
    assert "Every pair of blocks" in page
    assert [choice.name for choice in dossier.choices] == ["--threads"]
    assert len(dossier.pairs) == 8


def test_slower_is_bad_news(tmp_path: Path, write_duel: Write) -> None:
    path = write_duel(tmp_path / "s.jsonl", factor=1.3)
    dossier = tell_judgement(judge_experiment(path), path)
    assert (dossier.standing, dossier.headline[:7]) == ("bad", "Slower:")


def test_reasons_are_told_where_they_are_known(tmp_path: Path, write_duel: Write) -> None:
    path = write_duel(tmp_path / "s.jsonl")
    planned = Arm("after", (Setting("--threads", 2, "flag", "two cores", "rule"),))
    found = judge_experiment(path)
    dossier = tell_experiment(path, [found.comparison], arms=(Arm("before"), planned), reason="keep what wins")
    assert [(each.first, each.second, each.reason) for each in dossier.choices] == [
        ("engine's default", "2", "two cores (rule)")
    ]
    assert "What follows: keep what wins." in dossier.sentences
    nothing = tell_experiment(path, [], arms=("before", "after"), reason="it does not start")
    assert nothing.headline == "Nothing was compared: it does not start."
    assert "<svg" in to_html(nothing)


def test_two_files_tell_what_differs(tmp_path: Path, write_loads: Write) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write_loads(first, {1: 9})
    write_loads(second, {1: 9}, model="other")
    dossier = tell_judgement(judge_files(first, second), first, second)
    assert dossier.names == dossier.columns == ("a", "b")
    assert [(each.name, each.first, each.second) for each in dossier.choices] == [("model", "m", "other")]
    assert "What differs between the files" in to_markdown(dossier)
    assert len(dossier.courses) == 2


def test_loads_become_lines_and_a_curve(tmp_path: Path, write_loads: Write) -> None:
    dossier = tell_measurement(write_loads(tmp_path / "s.jsonl", {4: 40, 1: 10}))
    assert dossier.names == ("1 user", "4 users")
    assert [(point.load, point.curve) for point in dossier.points] == [("1 user", "measured"), ("4 users", "measured")]
    one, four = (point.throughput for point in dossier.points)
    assert four > one
    assert "Throughput and latency" in to_html(dossier)
    single = tell_measurement(write_loads(tmp_path / "t.jsonl", {1: 10}))
    assert single.points == ()
    assert "Throughput and latency" not in to_html(single)


def test_a_rate_never_spans_runs(tmp_path: Path, write_loads: Write) -> None:
    path = write_loads(tmp_path / "s.jsonl", {1: 5})
    assert tell_measurement(path).lines[0].tasks[0].tokens_per_second is not None
    text = path.read_text()
    path.write_text(text + text.replace("run-1", "again"))
    assert tell_measurement(path).lines[0].tasks[0].tokens_per_second is None


def reported(plausibility: Any = None, notes: tuple[str, ...] = ()) -> Any:
    """As much of a report as the verdict looks at."""
    return SimpleNamespace(plausibility=plausibility, notes=notes, load=None, generator=None)


def test_a_measurement_says_whether_to_believe_it(tmp_path: Path, write_loads: Write) -> None:
    path = write_loads(tmp_path / "s.jsonl", {1: 8})
    assert tell_measurement(path).headline == "Valid: every request succeeded on a quiet machine."
    held = tell_measurement(path, reported(judge_decode(50, 100, "by hand")))
    assert held.headline.endswith("no figure is above what memory allows.")
    above = tell_measurement(path, reported(judge_decode(500, 100, "by hand")))
    assert (above.standing, above.headline[:9]) == ("bad", "Not valid")
    cached = tell_measurement(path, reported(notes=("warm cache: up to 9 prompt tokens came from a cache",)))
    assert (cached.standing, cached.headline) == (
        "doubtful",
        "To be read with care: prompts were answered from a cache.",
    )
    failed = tell_measurement(write_loads(tmp_path / "f.jsonl", {1: 8}, fail=2))
    assert failed.headline == "To be read with care: 2 of 8 requests failed."
    lost = tell_measurement(write_loads(tmp_path / "l.jsonl", {1: 2}, fail=2))
    assert (lost.standing, lost.headline) == ("bad", "Not valid: no request succeeded.")
    assert "<h2" in to_html(lost)


def test_figures_come_with_formula_and_interval(tmp_path: Path, write_loads: Write) -> None:
    table = figures_table(tell_measurement(write_loads(tmp_path / "s.jsonl", {1: 30})), "chat")
    assert table.columns == ("figure", "median", "95% interval", "p90", "p99", "n", "formula")
    ttft = table.rows[0]
    assert ttft[0] == "TTFT"
    assert ttft[1].endswith("ms")
    assert "–" in ttft[2]
    assert ttft[4:] == ("–", "30", "first chunk − intended send")


def test_benchstat_lines(tmp_path: Path, write_duel: Write) -> None:
    path = write_duel(tmp_path / "s.jsonl", pairs=2)
    lines = to_benchstat(tell_judgement(judge_experiment(path), path)).splitlines()
    assert lines[0] == "Unit ttft-sec better=lower"
    assert "side: before" in lines
    assert "prompt-cache: cold: every prompt is unique" in lines
    measured = [line for line in lines if line.startswith("Benchmark")]
    assert len(measured) == 12
    assert re.fullmatch(
        r"BenchmarkRequest/task=chat 1 [\d.e-]+ ttft-sec [\d.e-]+ tpot-sec [\d.e-]+ e2e-sec "
        r"[\d.]+ decode-tokens/sec [\d.]+ prefill-tokens/sec",
        measured[0],
    )
    assert all(re.match(r"(Unit |Benchmark|[a-z][^A-Z\s]*: |$)", line) for line in lines)


def test_the_document_is_json(tmp_path: Path, write_loads: Write) -> None:
    dossier = tell_measurement(write_loads(tmp_path / "s.jsonl", {1: 8, 2: 8}))
    found = json.loads(json.dumps(to_document(dossier), allow_nan=False))
    assert found["schema"] == "velollm.report/1"
    assert found["standing"] == "good"
    assert [side["name"] for side in found["sides"]] == ["1 user", "2 users"]
    assert found["samples_files"] == ["s.jsonl"]
    assert found["sides"][0]["tasks"][0]["metrics"]["ttft"]["n"] == 8


HOSTILE = "</title><script>alert(1)</script> | ``` [x](y) <!-- \x00\ud800 \u202e'\"&"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_hostile_names_stay_text(tmp_path: Path, write_loads: Write, suffix: str) -> None:
    dossier = tell_measurement(write_loads(tmp_path / "s.jsonl", {1: 8}))
    line = evolve(dossier.lines[0], name=HOSTILE)
    path = tmp_path / f"report{suffix}"
    write_report(evolve(dossier, title=HOSTILE, headline=HOSTILE, sentences=(HOSTILE,), lines=(line,)), path)
    text = path.read_text(encoding="utf-8")
    assert "\x00" not in text
    if suffix in (".html", ".md"):
        assert "<script" not in text
        assert "<!--" not in text


def test_markdown_is_made_harmless() -> None:
    assert plain_text("a|b\n*c* <d> @e #1") == r"a\|b \*c\* &lt;d&gt; \@e \#1"


def test_very_many_requests_are_not_all_listed(tmp_path: Path, write_loads: Write) -> None:
    dossier = tell_measurement(write_loads(tmp_path / "s.jsonl", {1: 2}))
    line = evolve(dossier.lines[0], samples=dossier.lines[0].samples * RAW_ROWS)
    table = raw_table(evolve(dossier, lines=(line,)))
    assert len(table.rows) == RAW_ROWS
    assert table.caption == f"Every request; {RAW_ROWS} more are in the file of samples"


def test_the_suffix_decides(tmp_path: Path, write_loads: Write) -> None:
    dossier = tell_measurement(write_loads(tmp_path / "s.jsonl", {1: 2}))
    assert tuple(FORMATS) == SUFFIXES
    with pytest.raises(VeloError, match=r"report is one of \.html, \.md, \.txt, \.json, not \.pdf"):
        write_report(dossier, tmp_path / "report.pdf")


def test_an_empty_run_has_no_report(tmp_path: Path, write_loads: Write) -> None:
    with pytest.raises(VeloError, match="no finished request"):
        tell_measurement(write_loads(tmp_path / "s.jsonl", {1: 0}))
