"""`velollm benchmark --settings` and `--against`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from velollm_core.autopilot.given import describe_settings, given_settings, overridden
from velollm_core.backends.setting import Setting
from velollm_core.errors import VeloError

KNOWN = (Setting("--threads", 2, "flag", "cores", "rule"), Setting("NUM_CTX", 4096, "env", "need", "rule"))


def test_settings_as_people_type_them() -> None:
    found = given_settings("threads=1, --flash-attn=off,num-ctx=8,x=0.5,y=true", KNOWN)
    assert [(each.name, each.value, each.where) for each in found] == [
        ("--threads", 1, "flag"),
        ("--flash-attn", "off", "flag"),
        ("NUM_CTX", 8, "env"),
        ("x", 0.5, "flag"),
        ("y", True, "flag"),
    ]


@pytest.mark.parametrize("text", ["", "threads", "threads=", "=1", "a=1,,b=2"])
def test_what_is_no_setting(text: str) -> None:
    with pytest.raises(VeloError, match="name=value"):
        given_settings(text, KNOWN)


def test_settings_build_on_each_other() -> None:
    base = given_settings("threads=1,a=1", KNOWN)
    assert describe_settings(overridden(base, given_settings("threads=3", KNOWN))) == "a=1,threads=3"
    assert describe_settings(()) == "default"


@pytest.mark.parametrize(
    "wrap", [lambda entries: {"settings": entries}, lambda entries: {"plan": {"settings": entries}}]
)
def test_settings_of_a_file(tmp_path: Path, wrap: Any) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps(wrap([{"name": "-t", "value": 3, "where": "flag", "reason": "r"}])))
    assert given_settings(str(path), ()) == (Setting("-t", 3, "flag", "r", "default"),)


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", "x", '{"settings": [{"name": "a"}]}', '{"settings": [{"name": "a", "value": 1, "where": "moon"}]}'],
)
def test_files_without_settings(tmp_path: Path, text: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(text)
    with pytest.raises(VeloError, match="holds no settings"):
        given_settings(str(path), ())
    with pytest.raises(VeloError, match="holds no settings"):
        given_settings(str(tmp_path / "none.json"), ())


def test_a_difference_is_found_and_can_be_judged_again(paced_cli: Any, tmp_path: Path) -> None:
    asked = ["benchmark", "--model", "model.gguf", "--against", "threads=1", "--budget", "65s", "-o", "e.jsonl"]
    done = paced_cli(*asked)
    assert done.code == 0, done.stderr
    assert "Measuring default against threads=1" in done.stdout
    assert "Verdict: faster. threads=1 is" in done.stdout
    head = json.loads((tmp_path / "e.jsonl").read_text().splitlines()[0])
    assert (head["budget_seconds"], head["arms"]) == (65.0, {"default": {}, "threads=1": {"threads": 1}})
    again = paced_cli("compare", "e.jsonl", "--json")
    found = json.loads(again.stdout)
    assert (found["verdict"], found["second"]["name"]) == ("faster", "threads=1")
    assert (tmp_path / "pace.log").read_text().splitlines()[-1] == "close"


def test_the_same_against_the_same_finds_nothing(paced_cli: Any) -> None:
    asked = ["benchmark", "--model", "model.gguf", "--settings", "threads=1", "--against", "same", "--budget", "35s"]
    done = paced_cli(*asked, "--json")
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["verdict"] in ("equivalent", "not_enough_evidence")
    assert [arm["name"] for arm in found["outcome"]["arms"]] == ["threads=1", "threads=1 again"]
    assert found["interval"]["low"] < 1 < found["interval"]["high"]


def test_settings_are_applied_before_a_plain_run(paced_cli: Any, tmp_path: Path) -> None:
    done = paced_cli("benchmark", "--model", "model.gguf", "--settings", "threads=1,x=2", "-o", "r.jsonl")
    assert done.code == 0, done.stderr
    assert "apply 2" in (tmp_path / "pace.log").read_text()
    head = json.loads((tmp_path / "r.jsonl").read_text().splitlines()[0])
    assert head["settings"] == {"threads": 1, "x": 2}


def test_an_arm_that_does_not_start_is_an_error(paced_cli: Any) -> None:
    done = paced_cli("benchmark", "--model", "model.gguf", "--against", "threads=1", pace={"refuses": True})
    assert done.code == 1
    assert "threads=1: paced: out of memory" in done.stderr


def test_a_running_server_is_not_reloaded_unasked(paced_cli: Any, tmp_path: Path) -> None:
    for words in (["--against", "same"], ["--settings", "threads=1"]):
        done = paced_cli("benchmark", "--model", "model.gguf", *words, pace={"running": True})
        assert done.code == 1
        assert "--yes allows it" in done.stderr
    assert "apply" not in (tmp_path / "pace.log").read_text()


@pytest.mark.parametrize(("presses", "whole"), [(1, True), (2, False)])
def test_ctrl_c_lets_the_block_end_and_twice_does_not(
    paced_cli: Any, tmp_path: Path, presses: int, whole: bool
) -> None:
    path = tmp_path / "e.jsonl"
    asked = ["benchmark", "--model", "model.gguf", "--against", "threads=1", "-o", path.name]
    process = subprocess.Popen(
        [sys.executable, "-m", "velollm_core", *asked, "--prompt-tokens", "8", "--answer-tokens", "9"],
        cwd=tmp_path,
        env=paced_cli.environment({"real": True}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not _counted(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "finishing this block; Ctrl-C once more stops at once" in errors
    assert errors.splitlines()[-1].startswith("velollm: stopped; 0 pairs are kept: samples are in ")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert (lines[-1]["kind"] == "block") == whole
    asked_each_block = lines[0]["workload"]["tasks"][0]["repeats"]
    assert (len(_counted(path)) == asked_each_block) == whole
    assert (tmp_path / "pace.log").read_text().splitlines()[-1] == "close"


def _counted(path: Path) -> list[dict[str, Any]]:
    text = path.read_text() if path.exists() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [each for each in lines if each["kind"] == "sample" and not each.get("warm_up")]


def test_answers_are_compared_where_settings_change_them(paced_cli: Any, tmp_path: Path) -> None:
    asked = ["benchmark", "--model", "model.gguf", "--against", "threads=1", "--budget", "90s"]
    page = ["--report", "r.md", "-o", "r.json"]
    done = paced_cli(*asked, *page, pace={"altering": ["threads"], "drifts": True})
    assert done.code == 0, done.stderr
    line = (
        "0 of 8 greedy answers are equal to those of default; the others differ first at token 5 of 32 (median), "
        "where the token of default led by 0.010 in log-probability (threads changed)."
    )
    assert f"Answers: {line}" in done.stdout
    assert line.rstrip(".") in (tmp_path / "r.md").read_text()
    outcome = json.loads((tmp_path / "r.json").read_text())["outcome"]
    assert (outcome["quality"]["equal"], outcome["quality"]["altered"], outcome["unguarded"]) == (0, ["threads"], None)
    assert outcome["chosen"] == "default"
    assert outcome["reason"].startswith("faster, but the answers change: they stay equal for 12% of an answer")
    (samples,) = tmp_path.rglob("*-paced-*.jsonl")
    judged = paced_cli("compare", samples, "--report", "c.md", "-o", "c.json")
    assert f"Answers: {line}" in judged.stdout
    assert line.rstrip(".") in (tmp_path / "c.md").read_text()
    assert json.loads((tmp_path / "c.json").read_text())["quality"] == outcome["quality"]
    same = paced_cli(*asked, "--json")
    assert json.loads(same.stdout)["outcome"]["quality"] is None
