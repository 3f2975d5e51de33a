"""`velollm autopilot` as its users run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest


def test_the_story(paced_cli: Any, tmp_path: Path) -> None:
    done = paced_cli("autopilot", "model.gguf", "--budget", "65s", "-o", "start.sh")
    assert done.code == 0, done.stderr
    for line in (
        "Machine: ",
        "Backend: paced 1 (the only one that can be used here)",
        "physical cores",
        "Measuring default against planned",
        "Noise: ",
        "Verdict: faster. planned is",
        "Use the planned settings: the gain is more than 2% with 95% confidence.",
        "Start the server with them: ",
    ):
        assert line in done.stdout
    script = tmp_path / "start.sh"
    assert script.read_text() == "#!/bin/sh\nexec paced --threads 1\n"
    assert os.access(script, os.X_OK)
    assert (tmp_path / "pace.log").read_text().splitlines()[-1] == "close"


def test_json_carries_verdict_and_evidence(paced_cli: Any) -> None:
    done = paced_cli("autopilot", "model.gguf", "--budget", "65s", "--json")
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["schema"] == "velollm.autopilot/1"
    assert (found["verdict"], found["chosen"]) == ("faster", "planned")
    assert found["interval"]["low"] < found["ratio"] < found["interval"]["high"]
    assert found["minimum_detectable_effect"] > 0
    assert found["request"] == {"prompt_tokens": 256, "answer_tokens": 48, "users": 1, "elastic": True}
    assert len(found["outcome"]["pairs"]) == found["outcome"]["comparison"]["pairs"] >= 6
    assert found["outcome"]["arms"][1]["read_back"] == {"threads": 1}
    assert Path(found["written"]).read_text().endswith("--threads 1\n")
    assert json.loads(Path(found["samples_file"]).with_suffix(".json").read_text()) == found


def test_no_gain_keeps_the_default(paced_cli: Any, tmp_path: Path) -> None:
    done = paced_cli("autopilot", "model.gguf", "--budget", "65s", "-o", "start.sh", pace={"planned": 1.5})
    assert done.code == 0, done.stderr
    assert "Verdict: slower." in done.stdout
    assert "Keep the settings of default: the planned settings are slower here." in done.stdout
    assert (tmp_path / "start.sh").read_text() == "#!/bin/sh\nexec paced\n"


@pytest.mark.parametrize(
    ("arguments", "pace", "line"),
    [
        (["--dry-run"], {}, "Not measured: a dry run measures nothing."),
        ([], {"plain": True}, "Not measured: the plan changes nothing"),
        ([], {"fits": False}, "Not measured: the planned settings do not fit in what is free now"),
    ],
)
def test_what_need_not_be_measured(
    paced_cli: Any, tmp_path: Path, arguments: list[str], pace: dict[str, object], line: str
) -> None:
    done = paced_cli("autopilot", "model.gguf", *arguments, pace=pace)
    assert done.code == 0, done.stderr
    assert line in done.stdout
    assert "apply" not in (tmp_path / "pace.log").read_text()


def test_settings_that_do_not_load_keep_the_default(paced_cli: Any) -> None:
    done = paced_cli("autopilot", "model.gguf", "--budget", "20s", pace={"refuses": True})
    assert done.code == 0, done.stderr
    assert (
        "Keep the settings of default: the engine does not start with the planned settings: paced: out of memory"
        in (done.stdout)
    )


def test_a_running_server_is_not_touched_unasked(paced_cli: Any, tmp_path: Path) -> None:
    done = paced_cli("autopilot", "model.gguf", "--budget", "20s", pace={"running": True})
    assert done.code == 1
    assert "paced runs already" in done.stderr
    assert "--yes allows it" in done.stderr
    assert "apply" not in (tmp_path / "pace.log").read_text()
    allowed = paced_cli("autopilot", "model.gguf", "--budget", "20s", "--yes", pace={"running": True})
    assert allowed.code == 0, allowed.stderr
    assert "against planned" in allowed.stdout
    assert "roll back" in (tmp_path / "pace.log").read_text()


@pytest.mark.parametrize(
    "arguments",
    [["--budget", "soon"], ["--budget", "0s"], ["--budget", "3x"], ["--prompt-tokens", "1"], ["--url", "http://x"]],
)
def test_wrong_usage(paced_cli: Any, arguments: list[str]) -> None:
    done = paced_cli("autopilot", "model.gguf", *arguments)
    assert done.code == 2, done.stderr


def test_files_that_cannot_be_written_are_told_first(paced_cli: Any, tmp_path: Path) -> None:
    done = paced_cli("autopilot", "model.gguf", "-o", "settings.toml")
    assert done.code == 1
    assert "paced writes .sh, .json" in done.stderr
    assert not (tmp_path / "pace.log").exists() or "apply" not in (tmp_path / "pace.log").read_text()


@pytest.mark.parametrize(("sign", "moment"), [(signal.SIGINT, 1), (signal.SIGTERM, 3), (signal.SIGINT, 6)])
def test_stopped_at_any_moment_nothing_runs_on_and_pairs_are_kept(
    paced_cli: Any, tmp_path: Path, sign: int, moment: int
) -> None:
    log = tmp_path / "pace.log"
    log.write_text("")
    asked = ["autopilot", "model.gguf", "--prompt-tokens", "8", "--answer-tokens", "2"]
    words = [sys.executable, "-m", "velollm_core", *asked]
    environment = paced_cli.environment({"real": True})
    process = subprocess.Popen(
        words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while log.read_text().count("apply") < moment and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(sign)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("velollm: stopped; ")
    assert "Traceback" not in errors
    assert log.read_text().splitlines()[-1] == "close"
    again = paced_cli(*asked, "--budget", "10s", "--json")
    assert again.code == 0, again.stderr
    kept = int(errors.splitlines()[-1].split()[2])
    resumed = [note for note in json.loads(again.stdout)["outcome"]["comparison"]["notes"] if "earlier run" in note]
    assert bool(resumed) == (kept > 0)


@pytest.mark.parametrize("drifts", [False, True])
def test_a_plan_that_changes_the_answers_is_not_chosen(paced_cli: Any, tmp_path: Path, drifts: bool) -> None:
    done = paced_cli(
        "autopilot", "model.gguf", "-o", "start.sh", "--budget", "90s", pace={"altering": ["threads"], "drifts": drifts}
    )
    assert done.code == 0, done.stderr
    assert "Verdict: faster." in done.stdout
    assert f"Answers: {0 if drifts else 8} of 8 greedy answers are equal to those of default" in done.stdout
    kept = "Keep the settings of default: faster, but the answers change" in done.stdout
    assert kept == drifts
    assert ("threads" in (tmp_path / "start.sh").read_text()) == (not drifts)
