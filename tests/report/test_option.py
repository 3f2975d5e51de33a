"""`--report FILE` where it stands: on commands that measure or judge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from velollm_core.autopilot.outcome import ArmReport, Outcome
from velollm_core.autopilot.report import report_outcome
from velollm_core.backends.setting import Setting
from velollm_core.benchmark.noise import Noise
from velollm_core.benchmark.recorded import judge_experiment
from velollm_core.testing import run_cli

Write = Callable[..., Path]


@pytest.mark.parametrize("name", ["r.html", "r.md", "r.txt", "r.json"])
def test_compare_writes_a_report(tmp_path: Path, write_duel: Write, name: str) -> None:
    write_duel(tmp_path / "s.jsonl")
    done = run_cli("compare", "s.jsonl", "--report", name, folder=tmp_path)
    assert done.code == 0, done.stderr
    assert "Faster: after" in (tmp_path / name).read_text() or name == "r.txt"


@pytest.mark.parametrize("command", ["benchmark", "compare", "autopilot"])
def test_a_bad_name_is_refused_before_anything_is_measured(tmp_path: Path, write_duel: Write, command: str) -> None:
    write_duel(tmp_path / "s.jsonl")
    subject = ["s.jsonl"] if command == "compare" else []
    done = run_cli(command, *subject, "--report", "r.pdf", folder=tmp_path)
    assert done.code == 2
    assert "r.pdf: name it .html, .md, .txt (for benchstat) or .json" in done.stderr
    assert list(tmp_path.glob("r.*")) == []


def test_an_outcome_is_told_with_its_reasons(tmp_path: Path, write_duel: Write) -> None:
    samples = write_duel(tmp_path / "s.jsonl")
    found = judge_experiment(samples)
    settings = {"before": (), "after": (Setting("--threads", 2, "flag", "two cores", "rule"),)}
    arms = tuple(ArmReport(name, each, {}, None, None, None, None, None) for name, each in settings.items())
    outcome = Outcome(
        chosen="after",
        reason="the gain is real",
        comparison=found.comparison,
        details=found.details,
        arms=arms,
        pairs=(),
        noise=Noise("clean"),
        invalid=0,
        seconds=1.0,
    )
    report_outcome(outcome, samples, tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    assert "What follows: the gain is real." in text
    assert "| --threads | engine's default | 2 | two cores (rule) |" in text
