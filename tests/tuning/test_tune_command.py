"""`velollm optimize --measure` as its users run it."""

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
from attrs import define

from velollm_core.testing import Outcome, install_plugin, run_cli
from velollm_core.testing.test_model import write_test_model

ASKED = ("optimize", "--model", "model.gguf", "--measure", "--prompt-tokens", "64", "--answer-tokens", "16")


@define
class Raced:
    """Runs the command in ``folder`` with the backend of raced.txt."""

    folder: Path
    plugin: Path

    def __call__(self, *more: str, asked: tuple[str, ...] = ASKED, **pace: object) -> Outcome:
        home = self.folder / "home"
        return run_cli(
            *asked, *more, plugins=[self.plugin], folder=self.folder, home=home, environment=self.variables(pace)
        )

    def variables(self, pace: dict[str, object]) -> dict[str, str]:
        log = str(self.folder / "pace.log")
        return {"VELOLLM_ONLY_PLUGINS": "raced", "PACE": json.dumps(pace), "PACE_LOG": log}

    @property
    def log(self) -> str:
        """What the backend was told."""
        path = self.folder / "pace.log"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def raced(tmp_path: Path) -> Raced:
    """The command, its only plugin a backend that is fastest with two threads and without flash."""
    plugin = install_plugin(tmp_path / "plugin", "raced", (Path(__file__).parent / "raced.txt").read_text())
    write_test_model(tmp_path / "model.gguf")
    return Raced(tmp_path, plugin)


def test_the_story(raced: Raced, tmp_path: Path) -> None:
    done = raced("--budget", "40s", "-o", "start.sh")
    assert done.code == 0, done.stderr
    for words in (
        "Racing threads (3), flash (2) for requests of 64 tokens in and 16 out",
        "out: raced: no third thread here",
        "Verdict: faster. threads=2 flash=off is",
        "Answers: 8 of 8 greedy answers are equal to those of default (flash changed).",
        "Use threads=2 flash=off: the gain is more than 2% with 95% confidence.",
        "Wrote start.sh.",
    ):
        assert words in done.stdout, words
    assert (tmp_path / "start.sh").read_text() == "raced threads=2 flash=off\n"
    assert raced.log.splitlines()[-1] == "close"


def test_json_keeps_every_trial_and_the_final_can_be_compared(raced: Raced) -> None:
    done = raced("--budget", "40s", "--json")
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    tuned = found["tuned"]
    assert tuned["chosen"] == tuned["winner"] == "threads=2 flash=off"
    assert [each["evidence"] for each in found["plan"]["settings"]] == ["measured", "measured"]
    assert tuned["final"]["comparison"]["accepted"]
    names = {trial["candidate"] for trial in tuned["trials"]}
    assert names == {"planned", "threads=2", "threads=3", "threads=2 flash=off"}
    assert [trial["reason"] for trial in tuned["trials"] if trial["candidate"] == "threads=3"] == [
        "raced: no third thread here"
    ]
    folder = Path(tuned["samples"])
    assert json.loads((folder / "tuning.json").read_text())["winner"] == tuned["winner"]
    compared = raced("compare", str(folder / "final.jsonl"), "--json", asked=())
    assert compared.code == 0, compared.stderr
    assert json.loads(compared.stdout)["verdict"] == "faster"


def test_no_gain_keeps_the_default(raced: Raced, tmp_path: Path) -> None:
    done = raced("--budget", "20s", "-o", "start.sh", threads={"1": 1.0, "2": 1.3}, flash={"on": 1.0, "off": 1.2})
    assert done.code == 0, done.stderr
    assert "Keep the settings of default: " in done.stdout
    assert (tmp_path / "start.sh").read_text() == "raced\n"


def test_answers_that_drift_apart_forbid_the_change(raced: Raced) -> None:
    done = raced("--budget", "40s", drifts=True)
    assert done.code == 0, done.stderr
    assert "0 of 8 greedy answers are equal" in done.stdout
    assert "the others differ first at token 5 of 32" in done.stdout
    assert "Keep the settings of default: faster, but the answers change" in done.stdout


def test_a_dry_run_and_obstacles_start_nothing(raced: Raced) -> None:
    assert raced("--dry-run").code == 0
    for done, words in ((raced(plain=True), "nothing to measure"), (raced(fits=False), "do not fit")):
        assert done.code == 1
        assert words in done.stderr
    running = raced(running=True, asked=(*ASKED[:2], "tiny", *ASKED[3:]))
    assert running.code == 1
    assert "apply" not in raced.log


def test_wrong_usage(raced: Raced) -> None:
    assert raced("--budget", "soon").code == 2
    assert raced("--hardware", "model.gguf").code == 2


@pytest.mark.parametrize(("sign", "moment"), [(signal.SIGINT, 1), (signal.SIGTERM, 6)])
def test_stopped_at_any_moment_trials_are_kept_and_nothing_runs_on(raced: Raced, sign: int, moment: int) -> None:
    (raced.folder / "pace.log").write_text("")
    names = ("CONFIG", "CACHE", "STATE", "DATA")
    places = {f"XDG_{name}_HOME": str(raced.folder / "home" / name.lower()) for name in names}
    path = os.pathsep.join([str(raced.plugin), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    process = subprocess.Popen(
        [sys.executable, "-m", "velollm_core", *ASKED],
        cwd=raced.folder,
        env={**os.environ, **places, **raced.variables({"real": True}), "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while raced.log.count("apply") < moment and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(sign)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    last = errors.splitlines()[-1]
    assert last.startswith("velollm: stopped; "), errors
    assert raced.log.splitlines()[-1] == "close"
    kept = int(last.split()[2])
    again: Any = json.loads(raced("--budget", "20s", "--json").stdout)
    assert sum(trial["resumed"] for trial in again["tuned"]["trials"]) >= kept
