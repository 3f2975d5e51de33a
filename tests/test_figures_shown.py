"""Figures as people read them."""

from __future__ import annotations

import pytest

from velollm_core.benchmark.percentiles import summarise
from velollm_core.figures import Interval
from velollm_core.views.figures import percent, ratio_interval, spread


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.0113, 0.0121, 0.014], "12.1 ms (11.3–14)"),
        ([4e-6, 5e-6, 1.44], "5 µs (4 µs–1.44 s)"),
        ([0.5], "500 ms"),
        ([], "–"),
    ],
)
def test_one_unit_unless_it_would_be_a_row_of_digits(values: list[float], shown: str) -> None:
    assert spread(summarise(values)) == shown


def test_what_nobody_would_read_is_cut() -> None:
    assert ratio_interval(Interval(0.98, 1.31)) == "0.980–1.310"
    assert ratio_interval(Interval(0.0, 8.7e8)) == "0.000–over 1000"
    assert ratio_interval(None) == "unknown"
    assert (percent(0.123), percent(4.5e8), percent(None)) == ("12.3%", "over 1000%", "unknown")
