"""`velollm benchmark` as its users run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from velollm_core.benchmark.store import read_runs


def test_without_a_backend_one_line_says_so(paced_cli: Any) -> None:
    done = paced_cli("benchmark", only="none")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "no backend is installed; `pip install velollm[llamacpp]`" in done.stderr


def test_backends_that_are_down_say_why(paced_cli: Any) -> None:
    done = paced_cli("benchmark", pace={"down": "the moon is full"})
    assert done.code == 1
    assert done.stderr.splitlines() == [
        "velollm: no backend can be used here (paced: the moon is full); start one, or `pip install velollm[llamacpp]`"
    ]


def test_table_for_people_and_samples_for_later(paced_cli: Any, tmp_path: Path) -> None:
    done = paced_cli("benchmark", "--model", "model.gguf", "-o", "run.jsonl", "-v")
    assert done.code == 0, done.stderr
    for word in ("short_completion (5 of 5 requests", "TTFT", "decode tokens/s = 1 / TPOT", "Cache: cold", "Noise: "):
        assert word in done.stdout
    (run,) = read_runs(tmp_path / "run.jsonl")
    assert len([sample for sample in run.samples if sample.counts]) == 11
    assert len(run.blocks) == 3
    assert run.head["backend"] == "paced"


def test_json_is_one_document(paced_cli: Any, tmp_path: Path) -> None:
    done = paced_cli("benchmark", "--json", "-o", "report.json", "--concurrency", "2", pace={"running": True})
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "report.json").read_text())
    assert found["schema"] == "velollm.benchmark/1"
    assert found["model"] == "tiny"
    assert [task["requests"] for task in found["tasks"]] == [10, 6, 6]
    assert found["tasks"][0]["metrics"]["ttft"]["n"] == 10
    assert found["formulas"]["tpot"]["unit"] == "s"
    assert found["cache"]["state"] == "cold"
    assert Path(found["samples_file"]).is_file()
    assert str(tmp_path / "home") in found["samples_file"]


def test_failures_end_in_one_line(paced_cli: Any) -> None:
    done = paced_cli("benchmark", "--model", "model.gguf", pace={"fails": True})
    assert (done.code, done.stdout) == (1, "")
    assert "none of 3 requests succeeded: paced: broke off" in done.stderr
    assert done.stderr.count("\n") == 1


def test_wrong_usage(paced_cli: Any) -> None:
    assert paced_cli("benchmark", "-o", "x.png").code == 2
    assert paced_cli("benchmark", "--concurrency", "0").code == 2
    assert paced_cli("benchmark", "--backend", "paced", "--model", "none.gguf").code == 1


def test_an_open_loop_with_its_goodput(paced_cli: Any) -> None:
    asked = ["--rate", "2", "--duration", "40s", "--answer-tokens", "uniform:4:12", "--slo", "ttft=0.5,tpot=0.1"]
    done = paced_cli("benchmark", "--model", "model.gguf", *asked)
    assert done.code == 0, done.stderr
    for line in (
        "open loop: poisson arrivals, 2 requests/s",
        "planned; the generator was late by",
        "Goodput: ",
        "Steady for",
    ):
        assert line in done.stdout
    found = json.loads(paced_cli("benchmark", "--model", "model.gguf", *asked, "--json").stdout)
    assert found["load"]["planned_rate"] > 1
    assert found["load"]["window"]["steady"]
    assert found["load"]["saturation"]["saturated"] is False
    assert found["workload"]["load"]["arrivals"]["pattern"] == "poisson"


def test_the_pattern_follows_from_its_option(paced_cli: Any) -> None:
    for option, pattern in (("--burstiness", "gamma"), ("--burst", "burst")):
        asked = ["--rate", "2", option, "2", "--duration", "20s", "--json"]
        found = json.loads(paced_cli("benchmark", "--model", "model.gguf", *asked).stdout)
        assert found["workload"]["load"]["arrivals"]["pattern"] == pattern


def test_conversations_of_several_users(paced_cli: Any, tmp_path: Path) -> None:
    asked = ["--turns", "3", "--concurrency", "2", "--duration", "20s", "--think", "0.1", "-o", "run.jsonl"]
    done = paced_cli("benchmark", "--model", "model.gguf", *asked)
    assert done.code == 0, done.stderr
    assert "turn_3" in done.stdout
    assert read_runs(tmp_path / "run.jsonl")


def test_a_trace_is_replayed(paced_cli: Any, tmp_path: Path) -> None:
    lines = [{"timestamp": 700 * number, "input_length": 20, "output_length": 5} for number in range(9)]
    (tmp_path / "trace.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    asked = ["--dataset", "trace.jsonl", "--arrivals", "replay", "--json"]
    found = json.loads(paced_cli("benchmark", "--model", "model.gguf", *asked).stdout)
    assert found["load"]["sent"] == 9
    assert found["load"]["planned_rate"] == pytest.approx(1 / 0.7)


@pytest.mark.parametrize(
    "words",
    [
        ["--arrivals", "gamma"],
        ["--arrivals", "ramp", "--rate", "2"],
        ["--arrivals", "replay"],
        ["--rate", "2", "--think", "1"],
        ["--rate", "2", "--turns", "2"],
        ["--rate", "0"],
        ["--slo", "speed=3", "--rate", "2"],
        ["--duration", "long"],
        ["--slo", "ttft=nan", "--rate", "2"],
        ["--slo", "ttft=-1", "--rate", "2"],
        ["--slo", "ttft=1"],
        ["--think", "1"],
        ["--burst", "3"],
        ["--rate", "2", "--arrivals", "poisson", "--burstiness", "0.5"],
        ["--rate", "2", "--arrivals", "ramp", "--end-rate", "9", "--requests", "5"],
        ["--against", "same", "--rate", "2"],
        ["--against", "same", "--prompt-tokens", "uniform:3:9"],
    ],
)
def test_loads_that_contradict_themselves(paced_cli: Any, words: list[str]) -> None:
    done = paced_cli("benchmark", "--model", "model.gguf", *words)
    assert done.code == 2, done.stderr
