"""Whole runs against a backend whose speed is known."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from velollm_core.benchmark.circumstances import Circumstances
from velollm_core.benchmark.listener import Chorus, Silent
from velollm_core.benchmark.runner import run
from velollm_core.benchmark.suites import standard
from velollm_core.benchmark.warmup import WarmUpRule
from velollm_core.benchmark.workload import Task, Workload
from velollm_core.errors import BackendError

SHORT = Workload("w", "m", (Task("one", "say one thing", 5, 3), Task("two", "say two things", 9, 2)))


@pytest.fixture
def report_of(virtually: Any, loop_clock: Any, quiet: Any) -> Any:
    def measure(backend: Any, workload: Workload = SHORT, **more: Any) -> Any:
        return virtually(run(backend, workload, Circumstances(clock=loop_clock, sources=quiet, **more)))

    return measure


def test_figures_are_those_of_the_backend(report_of: Any, paced: Any) -> None:
    report = report_of(paced(ttft=0.2, gap=0.05))
    one, two = report.tasks
    assert (one.requests, one.succeeded, two.requests) == (3, 3, 2)
    assert one.metrics["ttft"].p50 == pytest.approx(0.2)
    assert one.metrics["tpot"].p50 == pytest.approx(0.05)
    assert one.metrics["decode_rate"].p50 == pytest.approx(20)
    assert one.metrics["e2e"].p50 == pytest.approx(0.2 + 4 * 0.05)
    assert one.itl.p50 == pytest.approx(0.05)
    assert one.tokens_per_second == pytest.approx(5 / 0.4)
    assert two.completion_tokens == 18
    assert report.cache.state == "cold"
    assert report.noise.verdict == "clean"
    assert report.notes == ()


def test_prompts_are_unique_and_nothing_is_cached_on_request(report_of: Any, paced: Any) -> None:
    backend = paced()
    report_of(backend)
    starts = [request.prompt[:12] for request in backend.requests]
    assert len(set(starts)) == len(starts) > 5
    assert not any(request.cache_prompt for request in backend.requests)
    assert {request.sampling.temperature for request in backend.requests} == {0.0}
    measured = backend.requests[-1].sampling
    assert (measured.ignore_eos, measured.min_tokens, measured.max_tokens) == (True, 9, 9)


def test_two_runs_never_share_a_prompt(report_of: Any, paced: Any) -> None:
    backend = paced()
    report_of(backend)
    report_of(backend)
    assert len({request.prompt for request in backend.requests}) == len(backend.requests)


def test_warm_up_ends_when_steady(report_of: Any, paced: Any) -> None:
    report = report_of(paced())
    assert (report.warm_up.stable, report.warm_up.requests) == (True, 4)
    assert not any(sample.counts for sample in report.samples if sample.warm_up)


def test_warm_up_that_never_settles_is_said(report_of: Any, paced: Any) -> None:
    report = report_of(paced(sigma=0.5))
    assert (report.warm_up.stable, report.warm_up.requests) == (False, 10)
    assert "never steady" in report.notes[0]


def test_warm_up_is_bounded_in_time(report_of: Any, paced: Any) -> None:
    report = report_of(paced(sigma=0.5, ttft=4.0), rule=WarmUpRule(max_seconds=7))
    assert report.warm_up.requests <= 3


def test_load_time_stands_apart(report_of: Any, paced: Any) -> None:
    report = report_of(paced(load_delay=7.0))
    assert report.warm_up.first_seconds == pytest.approx(7.1)
    assert report.tasks[0].metrics["ttft"].maximum == pytest.approx(0.1)


def test_a_template_may_be_cached_but_no_more(report_of: Any, paced: Any) -> None:
    assert report_of(paced(cached=4)).cache.state == "cold"
    warm = report_of(paced(cached=40))
    assert (warm.cache.state, warm.cache.cached_tokens) == ("warm", 40)
    assert "no measurement" in warm.notes[0]


def test_warm_cache_on_purpose_repeats_prompts(report_of: Any, paced: Any) -> None:
    backend = paced(cached=40)
    report = report_of(backend, evolve(SHORT, warm_cache=True))
    assert backend.requests[-1].prompt == SHORT.tasks[-1].prompt
    assert backend.requests[-1].cache_prompt
    assert "on purpose" in report.notes[0]


def test_a_server_that_counts_nothing_gets_no_rates(report_of: Any, paced: Any) -> None:
    report = report_of(paced(counts=False))
    assert "decode_rate" not in report.tasks[0].metrics
    assert "ttft" in report.tasks[0].metrics
    assert any("did not count tokens" in note for note in report.notes)
    assert report.cache.state == "unknown"


def test_short_answers_have_no_e2e(report_of: Any, paced: Any) -> None:
    report = report_of(paced(produced=3))
    assert report.tasks[0].short == 3
    assert "e2e" not in report.tasks[0].metrics
    assert any("5 of 5 answers ended early" in note for note in report.notes)


def test_failures_are_counted_by_kind(report_of: Any, paced: Any) -> None:
    warm_up: list[Any] = [None] * 5
    failures = [*warm_up, BackendError("x", status=500), None, BackendError("gone", kind="disconnected")]
    report = report_of(paced(failures=failures))
    assert report.tasks[0].failures == {"http_500": 1, "disconnected": 1}
    assert report.tasks[0].succeeded == 1


def test_a_dead_backend_ends_the_run_and_keeps_what_came_before(report_of: Any, paced: Any) -> None:
    backend = paced(failures=[*([None] * 6), *[BackendError("gone", kind="unreachable")] * 99])
    workload = evolve(SHORT, tasks=(evolve(SHORT.tasks[0], repeats=50), SHORT.tasks[1]))
    report = report_of(backend, workload)
    assert len(report.tasks) == 1
    assert report.tasks[0].succeeded == 1
    assert report.tasks[0].failures == {"unreachable": 3}


def test_nothing_but_failures_is_an_error(report_of: Any, paced: Any) -> None:
    with pytest.raises(BackendError, match="paced: none of 3 requests succeeded: gone"):
        report_of(paced(failures=[BackendError("gone", kind="unreachable")] * 99))


def test_users_side_by_side(report_of: Any, paced: Any) -> None:
    report = report_of(paced(), evolve(SHORT, concurrency=4))
    one = report.tasks[0]
    assert one.requests == 12
    assert one.tokens_per_second == pytest.approx(4 * 5 / 0.18)


def test_an_empty_workload_is_the_standard_suite(report_of: Any, paced: Any) -> None:
    report = report_of(paced(), Workload("standard", "m"))
    shape = [(task.name, task.requests, task.completion_tokens) for task in report.tasks]
    assert shape == [("short_completion", 5, 250), ("medium_completion", 3, 450), ("code_generation", 3, 600)]
    assert standard("m").tasks == report.workload.tasks


def test_listeners_hear_everything_in_order(report_of: Any, paced: Any) -> None:
    heard: list[str] = []

    class Ear(Silent):
        def phase(self, name: str, total: int) -> None:
            heard.append(f"{name}:{total}")

        def sample(self, sample: Any) -> None:
            heard.append(sample.task)

        def block(self, block: Any) -> None:
            heard.append(f"block {block.index}")

    report_of(paced(), listener=Chorus(Ear(), Silent()))
    assert heard[0] == "warm-up:10"
    assert heard[6:] == ["one:3", "one", "one", "one", "block 0", "two:2", "two", "two", "block 1"]
