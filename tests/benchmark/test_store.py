"""Samples on disk and back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st

from velollm_core.backends.request import Usage
from velollm_core.benchmark.block import Block
from velollm_core.benchmark.canary import Canary
from velollm_core.benchmark.conditions import Conditions
from velollm_core.benchmark.environment import describe
from velollm_core.benchmark.gpu_watch import GpuRecord
from velollm_core.benchmark.noise import Noise
from velollm_core.benchmark.quality import UNGUARDED, Guarded, Quality
from velollm_core.benchmark.record import (
    guarded_line,
    parse_block,
    parse_guarded,
    parse_line,
    parse_sample,
    sample_line,
)
from velollm_core.benchmark.sample import Sample
from velollm_core.benchmark.store import SampleFile, read_runs
from velollm_core.benchmark.suites import standard
from velollm_core.benchmark.timing import Failure, RequestTiming
from velollm_core.errors import VeloError

LOOK = Conditions(1.0, 2.0, None, Canary(0.1, 0.2), cpu_waited=3.0)
GPU = GpuRecord(0, 9, {"power brake": 0.5}, 0.1, 70, 1500.0, None, 0)
BLOCK = Block(0, "planned", 1.5, LOOK, LOOK, Noise("noisy", ("wind",), 0.04), (GPU,))
SAMPLE = Sample("t", 0, 8, RequestTiming(0.0, 0.1, 2.0, (0.5, 1.0), usage=Usage(completion_tokens=2)))

numbers = st.floats(0, 1e4).map(lambda value: round(value, 6))
timings = st.builds(
    RequestTiming,
    intended=numbers,
    sent=numbers,
    ended=numbers,
    arrivals=st.lists(numbers, max_size=5).map(tuple),
    chunk_tokens=st.none() | st.lists(st.integers(0, 9), max_size=3).map(tuple),
    first_output=st.none() | numbers,
    usage=st.builds(Usage, prompt_tokens=st.none() | st.integers(0, 9), load_seconds=st.none() | numbers),
    finish_reason=st.none() | st.text(),
    failure=st.none() | st.builds(Failure, st.text(), st.text()),
)
samples = st.builds(
    Sample,
    task=st.text(),
    index=st.integers(0, 99),
    max_tokens=st.integers(1, 99),
    timing=timings,
    arm=st.text(),
    block=st.integers(0, 9),
    warm_up=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(samples)
def test_a_sample_survives_its_line(sample: Sample) -> None:
    line = sample_line("r", sample)
    assert "\n" not in line
    assert parse_sample(parse_line(line)) == sample


def written(path: Path) -> Path:
    with SampleFile(path, "r1") as file:
        file.begin(standard("m"), describe("b", None), arms={"planned": ["-t 1"]})
        file.phase("warm-up", 3)
        file.sample(SAMPLE)
        file.block(BLOCK)
    return path


def test_a_run_survives_its_file(tmp_path: Path) -> None:
    (run,) = read_runs(written(tmp_path / "deep/down/a.jsonl"))
    assert run.samples == [SAMPLE]
    assert run.blocks == [BLOCK]
    assert run.head["model"] == "m"
    assert run.head["arms"] == {"planned": ["-t 1"]}
    assert run.head["workload"]["tasks"][0]["name"] == "short_completion"


def test_every_line_names_schema_and_run(tmp_path: Path) -> None:
    for line in written(tmp_path / "a.jsonl").read_text().splitlines():
        fields = json.loads(line)
        assert (fields["schema"], fields["run"]) == ("velollm.sample/1", "r1")


shares = st.floats(0, 1)
qualities = st.builds(
    Quality,
    altered=st.lists(st.text(), max_size=3).map(tuple),
    prompts=st.integers(1, 8),
    tokens=st.integers(1, 32),
    equal=st.integers(0, 8),
    share=shares,
    first_divergence=st.none() | st.integers(0, 32),
    margin=st.none() | st.floats(0, 50),
    control=shares,
)


@given(st.builds(Guarded, quality=qualities) | st.builds(Guarded, problem=st.text()))
@settings(max_examples=60, deadline=None)
def test_the_comparison_of_answers_survives_its_line(guarded: Guarded) -> None:
    assert parse_guarded(parse_line(guarded_line("r", guarded))) == guarded


def test_a_lead_that_json_cannot_say_is_unknown() -> None:
    quality = Quality(("kv",), 8, 32, 7, 0.9, 3, math.inf, 1.0)
    assert parse_guarded(parse_line(guarded_line("r", Guarded(quality)))) == Guarded(evolve(quality, margin=None))


def test_only_what_the_guard_found_is_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl")
    with SampleFile(path, "r1") as file:
        file.quality(UNGUARDED)
    assert read_runs(path)[0].guarded == UNGUARDED, "as in files that were written before there was such a line"
    with SampleFile(path, "r1") as file:
        file.quality(Guarded(problem="broke off"))
    assert read_runs(path)[0].guarded == Guarded(problem="broke off")


@pytest.mark.parametrize(
    "change", [{"share": "all"}, {"share": True}, {"altered": 3}, {"margin": "x"}, {"equal": None}]
)
def test_damaged_comparisons_of_answers_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = written(tmp_path / "a.jsonl")
    line = guarded_line("r1", Guarded(Quality(("kv",), 8, 32, 7, 0.9, 3, 0.1, 1.0)))
    path.write_text(path.read_text() + json.dumps({**json.loads(line), **change}) + "\n")
    with pytest.raises(VeloError, match="line 4 is no sample"):
        read_runs(path)


def test_two_runs_in_a_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl")
    with SampleFile(path, "r2") as file:
        file.begin(standard("m"), describe("b", None))
    assert [run.run for run in read_runs(path)] == ["r1", "r2"]


def test_a_line_cut_off_is_left_out_and_mended(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl")
    with path.open("a") as file:
        file.write('{"schema": "velollm.samp')
    assert len(read_runs(path)[0].samples) == 1
    with SampleFile(path, "r1") as more:
        more.sample(SAMPLE)
    assert len(read_runs(path)[0].samples) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no samples"),
        ("{}\n", "line 1: schema is None"),
        ("[]\n", "line 1: schema is"),
        ("rubbish\n", "line 1: "),
        ('{"schema": "velollm.sample/2"}\n', "expected 'velollm.sample/1'"),
        ('{"schema": "velollm.sample/1"}\n', "line 1 is no sample"),
        ('{"schema": "velollm.sample/1", "kind": "sample", "run": "x"}\n', "line 1 is no sample"),
    ],
)
def test_bad_files_say_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(VeloError, match=message) as caught:
        read_runs(path)
    assert "\n" not in str(caught.value)


def test_missing_and_unwritable_files(tmp_path: Path) -> None:
    with pytest.raises(VeloError, match="cannot be read"):
        read_runs(tmp_path / "none.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(VeloError, match="samples cannot be kept there"):
        SampleFile(tmp_path / "file/a.jsonl", "r")


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["timing", "usage", "arrivals", "failure", "sent", "chunk_tokens", "index"]),
    st.sampled_from([None, "x", 3, [], {}, ["x"], {"a": "b"}, float("1e400")]),
)
def test_damaged_samples_are_refused_or_read(name: str, value: Any) -> None:
    fields = parse_line(sample_line("r", SAMPLE))
    fields[name] = value
    try:
        parse_sample(fields)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return


def test_damaged_blocks_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl")
    fields = json.loads(path.read_text().splitlines()[-1])
    fields["noise"]["verdict"] = "loud"
    with pytest.raises(ValueError, match="loud"):
        parse_block(fields)


def test_usage_of_a_later_version_is_read() -> None:
    fields = parse_line(sample_line("r", SAMPLE))
    fields["usage"]["thoughts"] = 7
    assert parse_sample(fields) == SAMPLE


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(codec=None), max_size=9))
@example("no\u2028line\x85end\ud800")
def test_any_text_survives_its_file(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """A server's words may hold line ends of other alphabets, and halves of characters."""
    path = tmp_path_factory.mktemp("store") / "s.jsonl"
    timing = RequestTiming(0.0, 0.1, 2.0, failure=Failure("server", text))
    with SampleFile(path, "r") as file:
        file.begin(standard("m"), describe("b", None))
        file.sample(Sample(text, 0, 8, timing))
    (run,) = read_runs(path)
    assert run.samples == [Sample(text, 0, 8, timing)]


def test_no_text_of_a_sample_is_taken_for_its_times() -> None:
    mine = evolve(SAMPLE, task='"arrivals": []', arm='\\"arrivals": []')
    assert parse_sample(parse_line(sample_line("r", mine))) == mine
