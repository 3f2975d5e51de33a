"""`velollm compare`, on files that were written for it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from velollm_core.backends.request import Usage
from velollm_core.benchmark.block import Block
from velollm_core.benchmark.canary import Canary
from velollm_core.benchmark.conditions import Conditions
from velollm_core.benchmark.environment import describe
from velollm_core.benchmark.noise import Noise
from velollm_core.benchmark.quality import UNGUARDED, Guarded, Quality
from velollm_core.benchmark.recorded import judge_experiment, judge_files
from velollm_core.benchmark.sample import Sample
from velollm_core.benchmark.store import SampleFile
from velollm_core.benchmark.timing import Failure, RequestTiming
from velollm_core.benchmark.workload import Task, Workload
from velollm_core.errors import VeloError

TASKS = (Task("short", "x", 5, 5), Task("long", "y", 9, 3))


def sample(task: str, tokens: int, seconds: float, **place: Any) -> Sample:
    times = tuple(seconds * (step + 1) / tokens for step in range(tokens))
    timing = RequestTiming(0.0, 0.0, seconds, times, usage=Usage(prompt_tokens=9, completion_tokens=tokens))
    return Sample(task, 0, tokens, timing, **place)


def look(canary: float) -> Conditions:
    return Conditions(0.0, 0.0, None, Canary(canary, canary))


def write(
    path: Path,
    factor: float,
    *,
    runs: int = 1,
    canary: float = 1.0,
    model: str = "m",
    warm: bool = False,
    tasks: tuple[Task, ...] = TASKS,
    failures: int = 0,
    sigma: float = 0.01,
) -> Path:
    rng = random.Random(str(path.name))
    for run in range(runs):
        with SampleFile(path, f"{path.name}-{run}") as file:
            file.begin(Workload("w", model, tasks, warm_cache=warm), describe("b", None))
            for task in tasks:
                for index in range(task.repeats):
                    seconds = factor * task.max_tokens * rng.lognormvariate(0, sigma)
                    made = sample(task.name, task.max_tokens, seconds)
                    if index < failures:
                        made = Sample(task.name, 0, 1, RequestTiming(0, 0, 1, failure=Failure("http_500", "boom")))
                    file.sample(made)
            file.block(Block(0, "measured", 0.0, look(canary), look(canary), Noise("clean")))
    return path


def test_slower_by_a_tenth(tmp_path: Path) -> None:
    judged = judge_files(write(tmp_path / "a.jsonl", 1.0), write(tmp_path / "b.jsonl", 1.1))
    assert judged.comparison.verdict == "slower"
    assert judged.comparison.ratio == pytest.approx(1 / 1.1, rel=0.02)
    assert set(judged.tasks) == {"short", "long"}
    assert {each.metric for each in judged.details} == {"decode_rate", "prefill_rate", "ttft_speed"}
    assert any("one run on a side" in note for note in judged.comparison.notes)


def test_one_run_on_a_side_cannot_tell_a_few_percent(tmp_path: Path) -> None:
    """Requests agree within a tenth of a percent; starts of the same differ by more, and one start cannot tell."""
    once = judge_files(write(tmp_path / "a.jsonl", 1.0, sigma=1e-4), write(tmp_path / "b.jsonl", 1.04, sigma=1e-4))
    assert once.comparison.verdict == "not_enough_evidence"
    assert any("the interval allows 5%" in note for note in once.comparison.notes)
    more = judge_files(
        write(tmp_path / "c.jsonl", 1.0, sigma=1e-4, runs=3), write(tmp_path / "d.jsonl", 1.04, sigma=1e-4, runs=3)
    )
    assert more.comparison.verdict == "slower"
    half = judge_files(tmp_path / "a.jsonl", tmp_path / "d.jsonl")
    assert half.comparison.verdict == "not_enough_evidence"


def test_the_same_is_never_faster(tmp_path: Path) -> None:
    judged = judge_files(write(tmp_path / "a.jsonl", 1.0), write(tmp_path / "b.jsonl", 1.0))
    assert judged.comparison.verdict in ("equivalent", "not_enough_evidence")


def test_runs_are_the_repetitions_where_there_are_several(tmp_path: Path) -> None:
    judged = judge_files(write(tmp_path / "a.jsonl", 1.0, runs=4), write(tmp_path / "b.jsonl", 1.0, runs=3))
    assert judged.comparison.pairs == 3
    assert judged.first.runs == 4
    assert not any("one run" in note for note in judged.comparison.notes)


def test_a_machine_that_changed_takes_the_evidence_away(tmp_path: Path) -> None:
    judged = judge_files(write(tmp_path / "a.jsonl", 1.0), write(tmp_path / "b.jsonl", 1.1, canary=1.2))
    assert judged.comparison.verdict == "not_enough_evidence"
    assert any("reference work changed by 20.0%" in note for note in judged.comparison.notes)


def test_what_differs_is_said(tmp_path: Path) -> None:
    judged = judge_files(write(tmp_path / "a.jsonl", 1.0), write(tmp_path / "b.jsonl", 1.0, model="n", failures=1))
    notes = " ".join(judged.comparison.notes)
    assert "the models differ: m and n" in notes
    assert "b: 2 of 8 requests failed" in notes
    assert judged.second.failures == {"http_500": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": (Task("other", "z", 5, 3),)}, "were not asked the same"),
        ({"tasks": (Task("short", "x", 6, 3),)}, "were not asked the same"),
        ({"warm": True}, "one was measured with a warm cache"),
        ({"failures": 3}, r"3 of 5 requests of short failed \(boom\)"),
    ],
)
def test_what_cannot_be_compared(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    if "failures" in changes:
        changes = {**changes, "tasks": (Task("short", "x", 1, 5),)}
        first = write(tmp_path / "a.jsonl", 1.0, tasks=changes["tasks"])
    else:
        first = write(tmp_path / "a.jsonl", 1.0)
    with pytest.raises(VeloError, match=message):
        judge_files(first, write(tmp_path / "b.jsonl", 1.0, **changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workload": None}, "line 1 is no sample of velollm .*its workload is none"),
        ({"workload": {"tasks": 3}}, "line 1 is no sample of velollm .*its workload is none"),
        ({"workload": {"concurrency": "many"}}, "line 1 is no sample of velollm .*its concurrency is 'many'"),
        ({"environment": "x"}, "line 1 is no sample of velollm .*environment"),
        ({"arms": [1, 2]}, "line 1 is no sample of velollm .*arms"),
        ({"schema": "other/1"}, "line 1: schema is 'other/1', expected 'velollm.sample/1'; velollm writes such files"),
    ],
)
def test_heads_that_are_none_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    first, second = (write(tmp_path / f"{name}.jsonl", 1.0) for name in "ab")
    head, *rest = second.read_text().splitlines()
    second.write_text("\n".join([json.dumps({**json.loads(head), **change}), *rest]) + "\n")
    with pytest.raises(VeloError, match=message):
        judge_files(first, second)


def test_files_without_requests_say_so(tmp_path: Path) -> None:
    first, second = (write(tmp_path / f"{name}.jsonl", 1.0) for name in "ab")
    second.write_text(second.read_text().splitlines(keepends=True)[0])
    with pytest.raises(VeloError, match=r"b\.jsonl: holds no finished request"):
        judge_files(first, second)


def experiment(path: Path, factor: float) -> Path:
    rng = random.Random(1)
    with SampleFile(path, "r") as file:
        file.begin(Workload("w", "m", TASKS), describe("b", None), arms={"default": {}, "planned": {"-t": 1}})
        for index in range(16):
            arm = ("default", "planned", "planned", "default")[index % 4]
            pace = (factor if arm == "planned" else 1.0) * rng.lognormvariate(0, 0.01)
            file.sample(sample("short", 5, pace, arm=arm, block=index))
            file.block(Block(index, arm, 0.0, look(1.0), look(1.0), Noise("clean")))
    return path


def test_an_experiment_is_judged_by_its_pairs(tmp_path: Path) -> None:
    judged = judge_experiment(experiment(tmp_path / "e.jsonl", 0.5))
    assert judged.comparison.verdict == "faster"
    assert (judged.comparison.pairs, judged.comparison.method) == (8, "sign_flip")
    assert (judged.first.name, judged.second.name) == ("default", "planned")
    assert judged.first.requests == 8


def test_an_experiment_tells_whether_the_answers_agree(tmp_path: Path) -> None:
    """The newest run's word counts: one that goes on where another was stopped has asked again."""
    path = experiment(tmp_path / "e.jsonl", 0.5)
    assert judge_experiment(path).guarded == UNGUARDED
    kept = [Guarded(problem="broke off"), Guarded(Quality(("kv",), 8, 32, 7, 0.9, 3, 0.01, 1.0)), UNGUARDED]
    for run, guarded in enumerate(kept):
        with SampleFile(path, f"r{run}") as file:
            file.begin(Workload("w", "m", TASKS), describe("b", None), arms={"default": {}, "planned": {"-t": 1}})
            file.quality(guarded)
    judged = judge_experiment(path)
    assert judged.guarded == kept[1]
    (note,) = judged.guarded.notes("default")
    assert note.startswith("7 of 8 greedy answers are equal to those of default")
    assert kept[0].notes("default") == ("the answers could not be compared: broke off",)


def test_files_with_the_wrong_number_of_configurations(tmp_path: Path) -> None:
    plain, whole = write(tmp_path / "a.jsonl", 1.0), experiment(tmp_path / "e.jsonl", 0.5)
    with pytest.raises(VeloError, match="holds no named configurations, not two"):
        judge_experiment(plain)
    with pytest.raises(VeloError, match="compare it alone"):
        judge_files(plain, whole)


def test_exit_codes_and_json(paced_cli: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 1.0)
    write(tmp_path / "b.jsonl", 1.2)
    done = paced_cli("compare", "a.jsonl", "b.jsonl", "--json", "-o", "c.json", "--fail-on", "slower")
    assert done.code == 3
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "c.json").read_text())
    assert found["schema"] == "velollm.compare/1"
    assert (found["verdict"], found["first"]["name"]) == ("slower", "a")
    assert found["interval"]["high"] < 1
    assert found["minimum_detectable_effect"] > 0
    back = paced_cli("compare", "b.jsonl", "a.jsonl", "--fail-on", "slower")
    assert back.code == 0
    assert "Verdict: faster. a is" in back.stdout
    assert paced_cli("compare", "none.jsonl", "a.jsonl").code == 2
    (tmp_path / "bad.jsonl").write_text("x\n")
    bad = paced_cli("compare", "bad.jsonl", "a.jsonl")
    assert bad.code == 1
    assert bad.stderr.count("\n") == 1
