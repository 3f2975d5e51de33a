"""What the generator adds, against a server whose schedule is known."""

from __future__ import annotations

import asyncio

import pytest

from velollm_core.benchmark import cost
from velollm_core.benchmark.cost import measure_cost
from velollm_core.errors import BackendError


def test_the_calibration_reads_everything_and_tells_its_cost() -> None:
    found = asyncio.run(measure_cost(streams=3, chunks=8, rounds=2))
    assert (found.streams, found.requests, found.chunks) == (3, 6, 8)
    assert 0 < found.delay_p50 <= found.delay_p99
    assert 0 < found.first_p50 <= found.first_p99
    assert found.cpu_seconds > 0


def test_a_mock_that_does_not_start_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "FIRST", "soon")
    with pytest.raises(BackendError, match="did not start"):
        asyncio.run(measure_cost(streams=1, chunks=2, rounds=1))
