"""Whole loads against a backend whose speed is known, under a clock that jumps."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve

from velollm_core.backends.request import Message
from velollm_core.benchmark.arrivals import Arrivals
from velollm_core.benchmark.circumstances import Circumstances
from velollm_core.benchmark.lengths import Lengths
from velollm_core.benchmark.load import Entry, Load, Slo
from velollm_core.benchmark.runner import run
from velollm_core.benchmark.workload import Workload
from velollm_core.errors import BackendError


@pytest.fixture
def load_on(virtually: Any, loop_clock: Any, quiet: Any) -> Any:
    def measure(backend: Any, load: Load, users: int = 1, *, warm_cache: bool = False, **more: Any) -> Any:
        workload = Workload("load", "m", concurrency=users, load=load, warm_cache=warm_cache)
        return virtually(run(backend, workload, Circumstances(clock=loop_clock, sources=quiet, **more)))

    return measure


SHORT = Lengths("fixed", 11)


def test_a_closed_loop_keeps_its_users_busy(load_on: Any, paced: Any) -> None:
    report = load_on(paced(ttft=0.1, gap=0.02), Load(seconds=30.0, answer=SHORT), users=4)
    load = report.load
    assert load.most_in_flight == 4
    assert load.window.steady
    assert load.requests_per_second == pytest.approx(4 / 0.3, rel=0.05)
    assert load.tokens_per_second == pytest.approx(4 * 11 / 0.3, rel=0.05)
    assert load.planned_rate is None
    assert not load.saturation.saturated
    assert report.tasks[0].metrics["ttft"].p50 == pytest.approx(0.1)


def test_thinking_users_ask_less(load_on: Any, paced: Any) -> None:
    report = load_on(paced(ttft=0.1, gap=0.02), Load(seconds=30.0, answer=SHORT, think=0.7), users=2)
    assert report.load.sent_rate == pytest.approx(2.0, rel=0.1)


def test_requests_bound_a_load(load_on: Any, paced: Any) -> None:
    assert load_on(paced(), Load(seconds=1e6, requests=7, answer=SHORT), users=3).load.sent == 7
    arrivals = Arrivals("constant", 2.0)
    assert load_on(paced(), Load(seconds=1e3, requests=7, answer=SHORT, arrivals=arrivals)).load.sent == 7


def test_an_open_loop_sends_on_time_whatever_waits(load_on: Any, paced: Any) -> None:
    report = load_on(paced(ttft=2.0, gap=0.1), Load(seconds=60.0, answer=SHORT, arrivals=Arrivals("poisson", 3.0)))
    load = report.load
    assert load.most_in_flight > 4
    assert load.lateness.maximum == pytest.approx(0.0, abs=1e-9)
    assert load.sent_rate == pytest.approx(load.planned_rate)
    assert report.tasks[0].metrics["ttft"].p50 == pytest.approx(2.0)
    assert load.saturation.text == "the server keeps up"


def test_a_server_that_falls_behind_is_over_saturated(load_on: Any, paced: Any) -> None:
    """One request at a time takes 0.5 s, and one comes every 0.25 s: waiting grows without end."""
    backend = paced(ttft=0.3, gap=0.02, lanes=1)
    report = load_on(backend, Load(seconds=40.0, answer=SHORT, arrivals=Arrivals("constant", 4.0)))
    assert report.load.saturation.saturated
    assert report.load.saturation.growth == pytest.approx(1.0, rel=0.1)
    assert "measures the length of the run" in report.load.saturation.text


def test_a_run_that_is_all_ramp_may_be_over_saturated_all_the_same(load_on: Any, paced: Any) -> None:
    """Forty requests in ten seconds for a server that takes a second each."""
    arrivals = Arrivals("constant", 4.0)
    report = load_on(paced(ttft=0.8, gap=0.02, lanes=1), Load(seconds=10.0, answer=SHORT, arrivals=arrivals))
    assert not report.load.window.steady
    assert "too short" in report.load.window.reason
    assert report.load.saturation.saturated
    easy = load_on(paced(ttft=0.8, gap=0.5), Load(seconds=10.0, answer=SHORT, arrivals=arrivals)).load
    assert not easy.window.steady
    assert not easy.saturation.saturated


def test_goodput_counts_who_keeps_to_all(load_on: Any, paced: Any) -> None:
    load = Load(seconds=30.0, answer=SHORT, slo=Slo(ttft=0.15, tpot=0.03))
    good = load_on(paced(ttft=0.1, gap=0.02), load).load
    assert good.goodput == pytest.approx(good.requests_per_second)
    assert load_on(paced(ttft=0.1, gap=0.04), load).load.goodput == 0.0
    assert load_on(paced(), evolve(load, slo=None)).load.goodput is None


def test_too_short_a_run_is_not_steady(load_on: Any, paced: Any) -> None:
    report = load_on(paced(), Load(seconds=0.5, answer=SHORT), users=4)
    assert not report.load.window.steady
    assert "too short" in report.load.window.reason
    assert report.tasks[0].requests == report.load.sent


def test_a_server_that_slows_down_has_no_steady_state(load_on: Any, paced: Any) -> None:
    report = load_on(paced(ttft=0.1, gap=0.02, fatigue=0.02), Load(seconds=60.0, answer=SHORT), users=2)
    assert not report.load.window.steady
    assert "no steady state: the output rate goes from" in report.load.window.reason


def test_conversations_repeat_what_was_said(load_on: Any, paced: Any) -> None:
    backend = paced()
    report = load_on(backend, Load(seconds=10.0, answer=SHORT, prompt=Lengths("fixed", 8), turns=3))
    assert [task.name for task in report.tasks] == ["turn_1", "turn_2", "turn_3"]
    chats = [request.messages for request in backend.requests if request.messages]
    assert [len(messages) for messages in chats[:4]] == [1, 3, 5, 1]
    assert chats[1][:1] == chats[0]
    assert chats[1][1] == Message("assistant", "x" * 11)
    assert chats[3][0].content[:12] != chats[0][0].content[:12]
    assert any("conversations" in note for note in report.notes)


def test_recorded_requests_are_asked_in_turn_and_made_unique(load_on: Any, paced: Any) -> None:
    backend = paced()
    entries = (Entry("alpha", max_tokens=3), Entry(messages=(Message("system", "be brief"), Message("user", "beta"))))
    load_on(backend, Load(requests=4, seconds=1e5, answer=SHORT, entries=entries))
    asked = backend.requests[-4:]
    assert [request.sampling.max_tokens for request in asked] == [3, 11, 3, 11]
    assert asked[0].prompt.endswith(" alpha")
    assert asked[1].messages[0].content.endswith(" be brief")
    assert len({request.prompt or request.messages[0].content for request in asked}) == 4


def test_lengths_are_drawn_in_the_models_own_tokens(load_on: Any, paced: Any) -> None:
    """The fake counts four characters a token and four tokens of template."""
    report = load_on(
        paced(), Load(requests=20, seconds=1e5, prompt=Lengths("fixed", 100), answer=Lengths("uniform", 2, 20))
    )
    assert report.tasks[0].prompt_tokens.p50 == pytest.approx(104, abs=4)
    lengths = {sample.max_tokens for sample in report.samples if not sample.warm_up}
    assert len(lengths) > 5


def test_the_same_seed_asks_the_same(load_on: Any, paced: Any) -> None:
    asked = []
    for _ in range(2):
        backend = paced()
        load_on(backend, Load(requests=5, seconds=1e5, answer=Lengths("uniform", 2, 20)))
        asked.append([(r.prompt[13:], r.sampling.max_tokens) for r in backend.requests[-5:]])
    assert asked[0] == asked[1]


def test_a_server_that_turns_half_away_is_measured_to_the_end(load_on: Any, paced: Any) -> None:
    failures = [*[None] * 8, *[BackendError("slow down", kind="busy", status=429), None] * 400]
    report = load_on(paced(failures=failures), Load(seconds=60.0, answer=SHORT, arrivals=Arrivals("poisson", 4.0)))
    (task,) = report.tasks
    assert task.requests > 200
    assert task.failures["http_429"] == pytest.approx(task.requests / 2, rel=0.1)
    assert report.notes == ()


def test_a_user_who_was_turned_away_does_not_ask_again_at_once(load_on: Any, paced: Any) -> None:
    failures = [*[None] * 16, *[BackendError("slow down", kind="busy", status=429)] * 8]
    report = load_on(paced(failures=failures), Load(seconds=10.0, answer=SHORT))
    sent = [sample.timing.sent for sample in report.samples if sample.timing.failure]
    assert len(sent) == 8
    assert all(later - earlier > 0.499 for earlier, later in pairwise(sent))


def test_a_load_with_a_warm_cache_repeats_itself(load_on: Any, paced: Any) -> None:
    backend = paced()
    report = load_on(backend, Load(requests=4, seconds=1e5, answer=SHORT), warm_cache=True)
    prompts = [request.prompt for request in backend.requests[-4:]]
    assert len(set(prompts)) == 1
    assert all(request.cache_prompt for request in backend.requests[-4:])
    assert "warm cache: prompts repeat on purpose" in report.notes[0]


def test_a_shared_prefix_is_the_same_for_all_and_new_in_each_run(load_on: Any, paced: Any) -> None:
    firsts = set()
    for _ in range(2):
        backend = paced()
        report = load_on(backend, Load(requests=5, seconds=1e5, answer=SHORT, prompt=Lengths("fixed", 20), shared=100))
        prompts = [request.prompt.split("\n") for request in backend.requests[-5:]]
        assert len({shared for shared, _ in prompts}) == 1
        assert len({own for _, own in prompts}) == 5
        assert report.tasks[0].prompt_tokens.p50 == pytest.approx(124, abs=6)
        assert any("shared prefix: requests begin with the same 100 tokens" in note for note in report.notes)
        firsts.add(prompts[0][0])
    assert len(firsts) == 2


def test_conversations_share_a_system_prompt(load_on: Any, paced: Any) -> None:
    backend = paced()
    load_on(backend, Load(seconds=10.0, answer=SHORT, prompt=Lengths("fixed", 8), turns=2, shared=30), users=2)
    chats = [request.messages for request in backend.requests if request.messages]
    assert len({messages[0] for messages in chats}) == 1
    assert {messages[0].role for messages in chats} == {"system"}
    assert {len(messages) for messages in chats} == {2, 4}


def test_a_server_that_answers_ever_more_slowly_is_over_saturated(load_on: Any, paced: Any) -> None:
    """First tokens come at once, and all share the machine: only the whole answers take longer and longer."""
    backend = paced(ttft=0.1, gap=0.02, shared=True)
    report = load_on(backend, Load(seconds=40.0, answer=SHORT, arrivals=Arrivals("constant", 5.5)))
    assert report.load.saturation.saturated
    assert "E2E grows" in report.load.saturation.text


def test_a_dead_server_ends_a_load(load_on: Any, paced: Any) -> None:
    failures = [*([None] * 12), *[BackendError("gone", kind="unreachable")] * 999]
    for arrivals in (None, Arrivals("constant", 1.0)):
        report = load_on(paced(failures=list(failures)), Load(seconds=500.0, answer=SHORT, arrivals=arrivals))
        assert sum(task.failures.get("unreachable", 0) for task in report.tasks) <= 5
        assert report.load.sent < 20
        assert report.notes[0].startswith("given up early: the last ")
        assert report.notes[0].endswith(" requests failed (unreachable: gone)")
