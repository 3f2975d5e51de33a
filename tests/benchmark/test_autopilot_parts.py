"""The autopilot's parts: journal, shape, outcome, prediction, files."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from velollm_core.autopilot.duration import duration
from velollm_core.autopilot.experiment import Experiment, Findings, Setup
from velollm_core.autopilot.journal import experiment_key, open_journal
from velollm_core.autopilot.outcome import conclude
from velollm_core.autopilot.prediction import Foreseen, foresee, lessons_of
from velollm_core.autopilot.shape import Shape, cut_note, first_workload, fitted_workload
from velollm_core.autopilot.writing import check_output, write_chosen
from velollm_core.backends.setting import Plan, Setting
from velollm_core.backends.status import Status
from velollm_core.benchmark.arm import Arm
from velollm_core.benchmark.circumstances import Circumstances
from velollm_core.benchmark.environment import describe
from velollm_core.benchmark.pair import Pair, Score
from velollm_core.benchmark.session import Session
from velollm_core.benchmark.store import SampleFile
from velollm_core.errors import VeloError
from velollm_core.figures import Interval, Rate
from velollm_core.models.load import LoadSettings
from velollm_core.models.spec import LayerSpec, ModelSpec
from velollm_core.testing.plugin_contract import some_hardware

LAYER = LayerSpec(0, heads=8, kv_heads=8, key_length=64, value_length=64, dense_bytes=2**28)
MODEL = ModelSpec("m", "llama", "m.gguf", "gguf", 4096, 512, 1000, (LAYER,), parameters=2**27)
PLANNED = (Setting("threads", 1, "flag", "cores", "rule"),)
ARMS = (Arm("default"), Arm("planned", PLANNED))
STATUS = Status(reachable=True, version="1", location="here")
SHAPE = Shape(64, 11)


def setup_with(backend: Any, budget: float = 60.0, status: Status = STATUS) -> Setup:
    return Setup(backend, status, MODEL, "m", ARMS, SHAPE, budget)


def pair(index: int, first: float, second: float) -> Pair:
    scores = {"default": Score(first, 10.0, 100.0, 0.1, 1), "planned": Score(second, 10.0, 100.0, 0.1, 1)}
    return Pair(index, ("default", "planned"), scores, noisy=False)


def test_the_workload_is_fitted_to_tokenizer_and_pace(virtually: Any, loop_clock: Any, quiet: Any, paced: Any) -> None:
    """The fake counts four characters a token; a request takes 0.3 s, so five fit into a block."""

    async def go(backend: Any) -> Any:
        session = Session(backend, first_workload("m", SHAPE), Circumstances(clock=loop_clock, sources=quiet))
        return await fitted_workload(session, SHAPE)

    workload = virtually(go(paced()))
    (task,) = workload.tasks
    assert len(task.prompt) == pytest.approx(64 * 4, rel=0.15)
    assert (task.max_tokens, task.repeats) == (11, 5)
    assert virtually(go(paced(ttft=9.0))).tasks[0].repeats == 1
    assert len(virtually(go(paced(counts=False))).tasks[0].prompt) == pytest.approx(256, rel=0.15)


def test_an_elastic_request_is_cut_where_the_machine_is_slow(
    virtually: Any, loop_clock: Any, quiet: Any, paced: Any
) -> None:
    """A second to the first token, half a second for each more: eight seconds hold 15 tokens, not 48."""

    async def go(shape: Shape, limit: float) -> Any:
        session = Session(
            paced(ttft=1.0, gap=0.5), first_workload("m", shape), Circumstances(clock=loop_clock, sources=quiet)
        )
        return await fitted_workload(session, shape, limit=limit)

    wanted = Shape(64, 48)
    elastic = evolve(wanted, elastic=True)
    assert virtually(go(wanted, 8.0)).tasks[0].max_tokens == 48
    cut = virtually(go(elastic, 8.0))
    assert cut.tasks[0].max_tokens == 15
    assert cut_note(elastic, cut) == (
        "this machine is slow now: answers were cut from 48 to 15 tokens, to fit more pairs"
    )
    assert virtually(go(elastic, 0.1)).tasks[0].max_tokens == 8
    whole = virtually(go(elastic, 100.0))
    assert whole.tasks[0].max_tokens == 48
    assert cut_note(elastic, whole) is None


def test_the_key_names_everything_that_must_be_equal() -> None:
    key = experiment_key(STATUS, MODEL, ARMS, SHAPE, "b")
    assert key == experiment_key(STATUS, MODEL, ARMS, SHAPE, "b")
    others = [
        experiment_key(evolve(STATUS, version="2"), MODEL, ARMS, SHAPE, "b"),
        experiment_key(STATUS, evolve(MODEL, name="n"), ARMS, SHAPE, "b"),
        experiment_key(STATUS, MODEL, (ARMS[0], Arm("planned")), SHAPE, "b"),
        experiment_key(STATUS, MODEL, ARMS, Shape(64, 12), "b"),
        experiment_key(STATUS, MODEL, ARMS, SHAPE, "c"),
    ]
    assert len({key, *others}) == 6


def test_an_unfinished_journal_is_gone_on_with() -> None:
    first = open_journal("k")
    assert open_journal("k").path != first.path
    with SampleFile(first.path, "r") as file:
        file.begin(first_workload("m", SHAPE), describe("b", None), arms={"default": {}, "planned": {}})
    again = open_journal("k")
    assert again.path == first.path
    assert again.workload == first_workload("m", SHAPE)
    assert open_journal("k", fresh=True).path != first.path
    assert open_journal("other").path.parent != first.path.parent
    old = time.time() - 30 * 3600
    os.utime(first.path, (old, old))
    assert open_journal("k").path != first.path


def test_a_finished_or_damaged_journal_is_not() -> None:
    journal = open_journal("k")
    with SampleFile(journal.path, "r") as file:
        file.begin(first_workload("m", SHAPE), describe("b", None))
    journal.verdict_path.write_text("{}")
    assert open_journal("k").path != journal.path
    journal.verdict_path.unlink()
    journal.path.write_text("rubbish\n")
    assert open_journal("k").path != journal.path


def test_an_experiment_goes_on_where_it_was_stopped(virtually: Any, loop_clock: Any, quiet: Any, paced: Any) -> None:
    under = Circumstances(clock=loop_clock, sources=quiet)
    backend = paced(slower={1: 0.5})
    first = Experiment(setup_with(backend, 20.0), open_journal("k"), under)
    virtually(first.run())
    assert len(first.findings.pairs) >= 2
    assert (backend.closed, backend.serving) == (1, False)
    second = Experiment(setup_with(backend, 40.0), open_journal("k"), under)
    assert second.findings.resumed == len(first.findings.pairs)
    virtually(second.run())
    assert len(second.findings.pairs) > second.findings.resumed
    outcome = conclude(second.setup, second.findings)
    assert outcome.chosen == "planned"
    assert outcome.comparison is not None
    assert any("earlier run" in note for note in outcome.comparison.notes)
    assert outcome.arms[1].read_back == {"threads": 1}


def test_a_server_that_ran_before_gets_back_what_it_ran_with(
    virtually: Any, loop_clock: Any, quiet: Any, paced: Any
) -> None:
    rolled: list[bool] = []

    class Watched(paced):  # type: ignore[misc]
        async def roll_back(self) -> None:
            rolled.append(True)

    under = Circumstances(clock=loop_clock, sources=quiet)
    running = evolve(STATUS, running=True)
    virtually(Experiment(setup_with(Watched(), 10.0, running), open_journal("k"), under).run())
    assert rolled == [True]


@pytest.mark.parametrize(
    ("second", "chosen", "reason"),
    [
        (0.5, "planned", "more than 2%"),
        (2.0, "default", "slower here"),
        (1.0, "default", "equal within 2%"),
        (1 / 1.015, "default", "equal within 2%"),
    ],
)
def test_the_choice_follows_from_the_verdict(paced: Any, second: float, chosen: str, reason: str) -> None:
    pairs = [pair(index, 1.0 + 0.0001 * index, second) for index in range(8)]
    findings = Findings(first_workload("m", SHAPE), pairs=pairs, seconds=9.0)
    outcome = conclude(setup_with(paced()), findings)
    assert outcome.chosen == chosen
    assert reason in outcome.reason


def test_what_did_not_start_decides_too(paced: Any) -> None:
    findings = Findings(first_workload("m", SHAPE))
    assert conclude(setup_with(paced()), findings).reason == "nothing was compared"
    findings.refused, findings.reason = "default", "out of memory"
    outcome = conclude(setup_with(paced()), findings)
    assert outcome.chosen == "planned"
    assert "does not start with the settings of default: out of memory" in outcome.reason


def test_predictions_are_made_where_measured_and_taught() -> None:
    hardware = some_hardware()
    hardware = evolve(hardware, cpu=evolve(hardware.cpu, bandwidth=Rate(2e10, "measured")))
    plan = Plan("b", "m", PLANNED, load=LoadSettings(total_context=4096))
    foreseen = foresee(MODEL, plan, hardware, SHAPE, ())
    assert {each.phase for each in foreseen} >= {"decode"}
    decode = next(each for each in foreseen if each.phase == "decode")
    assert (decode.where, decode.within) == ("host", None)
    assert foresee(MODEL, evolve(plan, load=None), hardware, SHAPE, ()) == ()
    (lesson,) = lessons_of([evolve(decode, measured=decode.plain.value / 2)], plan, MODEL)
    assert lesson.measured == pytest.approx(lesson.predicted / 2)
    again = foresee(MODEL, plan, hardware, SHAPE, [lesson] * 3)
    corrected = next(each for each in again if each.phase == "decode")
    assert corrected.expected.value == pytest.approx(decode.plain.value / 2)
    assert corrected.plain == decode.plain


def test_within_is_told_only_where_it_can_be() -> None:
    rate = Rate(10.0, "predicted", Interval(8.0, 12.0))
    foreseen = Foreseen("decode", "host", rate, rate, 9.0)
    assert foreseen.within is True
    assert evolve(foreseen, measured=13.0).within is False
    assert evolve(foreseen, expected=Rate(10.0, "predicted")).within is None


class Writer:
    name = "w"
    suffixes = (".sh", ".json")

    def emit(self, plan: Plan, suffix: str) -> str:
        return f"{suffix} {[setting.name for setting in plan.settings]}\n"


def test_what_is_written_and_where(tmp_path: Path) -> None:
    backend: Any = Writer()
    plan = Plan("w", "models/a b.gguf", PLANNED)
    kept = write_chosen(backend, plan, None, planned=True)
    assert kept is not None
    assert kept.name == "w-a-b.gguf.sh"
    assert os.access(kept, os.X_OK)
    assert write_chosen(backend, plan, None, planned=False) is None
    default = write_chosen(backend, plan, tmp_path / "x.json", planned=False)
    assert default is not None
    assert default.read_text() == ".json []\n"
    assert write_chosen(object(), plan, tmp_path / "y.sh", planned=True) is None  # type: ignore[arg-type]


def test_outputs_are_checked_first(tmp_path: Path) -> None:
    backend: Any = Writer()
    check_output(backend, None)
    check_output(backend, Path("a.sh"))
    check_output(backend, Path("noending"))
    with pytest.raises(VeloError, match=r"w writes .sh, .json"):
        check_output(backend, Path("a.toml"))


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("3m", 180), ("1h30m", 5400), ("0.5m", 30)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(None, None, text) == seconds  # type: ignore[arg-type]
