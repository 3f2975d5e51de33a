"""Predicted against measured: kept, read back, and applied to the next prediction."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.errors import VeloError
from velollm_core.figures import Interval, Rate
from velollm_core.models.correction import Observation, corrected, relevant
from velollm_core.models.load import LoadSettings
from velollm_core.models.placement import place
from velollm_core.observations import record, recorded
from velollm_core.planning.lessons import corrected_prediction, where

RATE = Rate(100.0, "predicted", Interval(50.0, 150.0))


def lesson(ratio: float, model: str = "m", phase: str = "decode", where: str = "host") -> Observation:
    return Observation(phase, where, "llamacpp", model, 100.0, 100.0 * ratio)  # type: ignore[arg-type]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("velollm_core.observations.state_dir", lambda: tmp_path / "state")
    return tmp_path / "state" / "observations.jsonl"


def test_without_lessons_nothing_changes() -> None:
    assert corrected(RATE, [], "m") is RATE
    assert corrected(None, [lesson(2)], "m") is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=4), st.booleans())
def test_every_lesson_lies_within_the_corrected_interval(ratios: list[float], same: bool) -> None:
    found = corrected(RATE, [lesson(ratio) for ratio in ratios], "m" if same else "other")
    assert found is not None
    assert found.interval is not None
    assert found.interval.low <= found.value <= found.interval.high
    for ratio in ratios:
        assert found.interval.low <= 100 * ratio * 1.000001
        assert 100 * ratio <= found.interval.high * 1.000001


def test_more_runs_of_the_same_model_narrow_the_interval() -> None:
    def width(lessons: list[Observation], model: str) -> float:
        found = corrected(RATE, lessons, model)
        assert found is not None
        assert found.interval is not None
        return found.interval.high / found.interval.low

    other, one, three = width([lesson(0.8)], "x"), width([lesson(0.8)], "m"), width([lesson(0.8)] * 3, "m")
    assert other > one > three
    assert one < 150 / 50
    assert corrected(RATE, [lesson(0.8), lesson(5.0, "x")], "m").value == pytest.approx(80)


def test_one_run_on_a_busy_machine_does_not_outweigh_many() -> None:
    steady = corrected(RATE, [lesson(0.8)] * 5, "m")
    assert corrected(RATE, [lesson(0.8)] * 5 + [lesson(0.05)], "m") == steady


def test_a_model_of_another_speed_teaches_nothing() -> None:
    tiny = Observation("decode", "host", "llamacpp", "tiny", 2000.0, 100.0)
    assert corrected(RATE, [tiny], "m") is RATE


def test_only_lessons_of_the_same_phase_place_and_backend_count() -> None:
    lessons = [lesson(1), lesson(2, phase="prefill"), lesson(3, where="gpu0"), lesson(0)]
    assert relevant(lessons, "decode", "host", None) == [lessons[0]]
    assert relevant(lessons, "decode", "host", "llamacpp") == [lessons[0]]
    assert relevant(lessons, "decode", "host", "ollama") == []


def test_what_is_recorded_is_read_back(state: Path) -> None:
    assert recorded() == ()
    record([lesson(0.5)])
    record([lesson(0.7, phase="prefill")])
    assert recorded() == (lesson(0.5), lesson(0.7, phase="prefill"))
    with state.open("a") as file:
        file.write('cut off {"phase"\n[1]\n{"phase": "decode"}\n')
    assert len(recorded()) == 2


def test_a_place_that_cannot_be_written_is_one_line(state: Path) -> None:
    state.parent.mkdir()
    state.mkdir()
    with pytest.raises(VeloError, match=r"observations.jsonl: cannot be written"):
        record([lesson(1)])


def test_a_measurement_becomes_a_lesson_that_the_next_prediction_has_learnt(machine, dense, state: Path) -> None:
    spec, hardware, load = dense(), machine("cpu"), LoadSettings(4096)
    before = corrected_prediction(spec, load, hardware, (), backend="engine", depth=512)
    assert before.decode is not None
    measured = before.decode.value * 0.6
    record([Observation("decode", "host", "engine", spec.name, before.decode.value, measured)])
    after = corrected_prediction(spec, load, hardware, recorded(), backend="engine", depth=512)
    assert after.decode is not None
    assert after.decode.value == pytest.approx(measured)
    assert after.prefill == before.prefill
    other = corrected_prediction(spec, load, hardware, recorded(), backend="another", depth=512)
    assert other == before


def test_a_place_is_named_by_the_devices_that_hold_layers(dense) -> None:
    names = [where(place(dense(), LoadSettings(4096, gpu_layers=layers))) for layers in (0, 10, 33)]
    assert names == ["host", "host+gpu0", "gpu0"]
