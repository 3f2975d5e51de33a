"""Student's t against published tables."""

from __future__ import annotations

from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.benchmark.student import student_cdf, student_quantile


# NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2 (three decimals), and closed forms for 1 and 2 degrees.
@pytest.mark.parametrize(
    ("probability", "degrees", "expected"),
    [
        (0.975, 1, 12.706),
        (0.975, 2, 4.303),
        (0.975, 3, 3.182),
        (0.975, 4, 2.776),
        (0.975, 5, 2.571),
        (0.975, 10, 2.228),
        (0.975, 29, 2.045),
        (0.975, 100, 1.984),
        (0.95, 7, 1.895),
        (0.995, 8, 3.355),
        (0.90, 6, 1.440),
    ],
)
def test_table(probability: float, degrees: int, expected: float) -> None:
    assert student_quantile(probability, degrees) == pytest.approx(expected, abs=6e-4)


def test_closed_forms() -> None:
    assert student_cdf(1.0, 1) == pytest.approx(0.75, abs=1e-14)
    assert student_cdf(2**0.5, 2) == pytest.approx(0.5 + 0.5 / 2**0.5, abs=1e-14)


def test_many_degrees_are_the_normal_distribution() -> None:
    assert student_quantile(0.975, 100_000) == pytest.approx(NormalDist().inv_cdf(0.975), abs=1e-4)


def test_the_expansion_joins_the_exact_sums() -> None:
    assert student_cdf(student_quantile(0.975, 1001), 1001) == pytest.approx(0.975, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(probability=st.floats(0.5, 0.9999), degrees=st.integers(1, 900))
def test_quantile_inverts_the_distribution(probability: float, degrees: int) -> None:
    assert student_cdf(student_quantile(probability, degrees), degrees) == pytest.approx(probability, abs=1e-9)


@pytest.mark.parametrize(("probability", "degrees"), [(0.4, 3), (1.0, 3), (0.9, 0)])
def test_nonsense_is_refused(probability: float, degrees: int) -> None:
    with pytest.raises(ValueError, match="no t quantile"):
        student_quantile(probability, degrees)
