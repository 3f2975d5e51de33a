"""Prometheus text as plain numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from velollm_vllm.metrics import read_metrics

RECORDINGS = Path(__file__).parent / "recordings"


def test_counters_add_up_and_gauges_do_not() -> None:
    page = (
        'vllm:prompt_tokens_total{engine="0"} 3.0\nvllm:prompt_tokens_total{engine="1"} 4.0\n'
        'vllm:kv_cache_usage_perc{engine="0"} 0.5\nvllm:kv_cache_usage_perc{engine="1"} 0.25\n'
        'vllm:num_requests_running{engine="0"} 2\npython_info{version="3"} 1.0\nvllm:odd{a="b"} NaN\nvllm:bad x\n'
    )
    assert read_metrics(page) == {
        "vllm:prompt_tokens_total": 7.0,
        'vllm:kv_cache_usage_perc{engine="0"}': 0.5,
        'vllm:kv_cache_usage_perc{engine="1"}': 0.25,
        "vllm:num_requests_running": 2.0,
    }


@pytest.mark.parametrize("name", ["metrics", "spec_dev/metrics"])
def test_a_recorded_page(name: str) -> None:
    metrics = read_metrics((RECORDINGS / f"{name}.body").read_text())
    assert metrics["vllm:e2e_request_latency_seconds_count"] > 0
    assert not [key for key in metrics if key.startswith("python") or "_bucket" in key or "_created" in key]


def test_speculation_is_counted() -> None:
    metrics = read_metrics((RECORDINGS / "spec_dev/metrics.body").read_text())
    assert metrics["vllm:spec_decode_num_draft_tokens_total"] >= metrics["vllm:spec_decode_num_accepted_tokens_total"]


@given(st.text(alphabet='vllm:_total{}="0.eNa\n ', max_size=200))
def test_rubbish_is_no_metric(page: str) -> None:
    assert all(isinstance(value, float) for value in read_metrics(page).values())
