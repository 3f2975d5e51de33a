"""`--report FILE` on the commands that measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def test_benchmark_tells_what_it_measured(paced_cli: Any, tmp_path: Path) -> None:
    done = paced_cli("benchmark", "--model", "model.gguf", "--report", "r.html")
    assert done.code == 0, done.stderr
    page = (tmp_path / "r.html").read_text()
    assert "model.gguf on paced 1" in page
    assert page.count("Figures of ") >= 3
    assert "Plausibility: " in page


def test_a_load_is_told_with_its_rates_and_only_its_steady_window(paced_cli: Any, tmp_path: Path) -> None:
    asked = ("--rate", "2", "--burstiness", "0.5", "--duration", "40s", "--answer-tokens", "uniform:4:9", "--json")
    told = {}
    for name in ("r.md", "r.json"):
        done = paced_cli("benchmark", "--model", "model.gguf", *asked, "--slo", "ttft=0.5", "--report", name)
        assert done.code == 0, done.stderr
        told[name] = (json.loads(done.stdout), (tmp_path / name).read_text())
    text = told["r.md"][1]
    for line in (
        "2 requests/s, gamma",
        "| answer tokens asked for | uniform:4:9 |",
        "| burstiness | 0.5 |",
        "- Steady for ",
        "- Goodput: ",
        "- Note: the generator could not be calibrated: ",
        "planned; the generator was late by",
    ):
        assert line in text
    measured, report = told["r.json"][0], json.loads(told["r.json"][1])
    assert measured["load"]["window"]["dropped"] > 0
    both = [each["tasks"][0]["metrics"]["ttft"] for each in (report["sides"][0], measured)]
    assert both[0]["n"] == both[1]["n"]
    assert both[0]["p50"] == pytest.approx(both[1]["p50"], abs=2e-6)


def test_against_tells_settings_and_verdict(paced_cli: Any, tmp_path: Path) -> None:
    arguments = ("--against", "threads=1", "--budget", "40s", "--yes", "--report", "r.json")
    done = paced_cli("benchmark", "--model", "model.gguf", *arguments)
    assert done.code == 0, done.stderr
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["comparisons"][0]["name"] == "speed of the work"
    assert [setting["second"] for setting in found["settings"]] == ["1"]


def test_the_autopilot_gives_its_reasons(paced_cli: Any, tmp_path: Path) -> None:
    done = paced_cli("autopilot", "model.gguf", "--budget", "40s", "--report", "r.md")
    assert done.code == 0, done.stderr
    text = (tmp_path / "r.md").read_text()
    assert "### Settings compared" in text
    assert "not recorded" not in text
    assert "What follows: " in text


def test_what_was_not_measured_is_not_told(paced_cli: Any, tmp_path: Path) -> None:
    done = paced_cli("autopilot", "model.gguf", "--dry-run", "--report", "r.md")
    assert done.code == 0, done.stderr
    assert "r.md is not written: nothing was measured." in done.stderr
    assert not (tmp_path / "r.md").exists()
