"""Each product goes to the library that was faster for its size when it was measured."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from velollm_cuda import products
from velollm_cuda.products import BATCHES, COLD_BYTES, Products, silence

TALL, WIDE = torch.zeros(8, 4), torch.zeros(4, 8)


class Libraries:
    """Pretends to switch; remembers which library each product went to, and how long each is said to take."""

    def __init__(self, times: Callable[[str, int, Tensor], float]) -> None:
        self.times, self.now, self.used, self.took = times, "none", list[tuple[str, int, int]](), 0.0

    @contextmanager
    def using(self, library: str) -> Iterator[None]:
        before, self.now = self.now, library
        yield
        self.now = before

    def multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        self.used.append((self.now, len(x), len(weight)))
        self.took += self.times(self.now, len(x), weight)
        return torch.nn.functional.linear(x, weight, bias)

    def milliseconds(self, call: Callable[[], object]) -> float:
        self.took = 0.0
        call()
        return self.took


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Libraries]:
    def make(times: Callable[[str, int, Tensor], float]) -> Libraries:
        made = Libraries(times)
        monkeypatch.setattr(products, "using", made.using)
        monkeypatch.setattr(products, "_milliseconds", made.milliseconds)
        return made

    return make


def test_the_faster_one_for_matrix_and_batch(libraries: Callable[..., Libraries]) -> None:
    def times(library: str, batch: int, weight: Tensor) -> float:
        """cuBLASLt is good at few rows of the one matrix and at many of the other."""
        good = batch <= 64 if len(weight) == len(TALL) else batch >= 256
        return 1.0 if library == "cublas" else 0.5 if good else 2.0

    made = libraries(times)
    chosen = Products.measured(made.multiply, [TALL, WIDE, TALL])
    assert chosen.faster[(8, 4)] == tuple("cublaslt" if batch <= 64 else "cublas" for batch in BATCHES)
    assert chosen.faster[(4, 8)] == tuple("cublaslt" if batch >= 256 else "cublas" for batch in BATCHES)
    made.used.clear()
    for batch in (2, 16, 17, 64, 65, 256, 1024, 5000):
        assert chosen.linear(torch.ones(batch, 4), TALL).shape == (batch, 8)
    assert [library for library, _, _ in made.used] == ["cublaslt"] * 4 + ["cublas"] * 4
    assert made.now == "none"


def test_a_tie_stays_with_the_usual_one(libraries: Callable[..., Libraries]) -> None:
    made = libraries(lambda library, batch, weight: 0.99 if library == "cublaslt" else 1.0)
    assert set(Products.measured(made.multiply, [TALL]).faster[(8, 4)]) == {"cublas"}


def test_what_was_not_measured_and_a_single_token_go_as_ever(libraries: Callable[..., Libraries]) -> None:
    made = libraries(lambda library, batch, weight: 1.0)
    chosen, bias = Products.measured(made.multiply, [TALL]), torch.ones(4)
    made.used.clear()
    assert torch.equal(chosen.linear(torch.zeros(3, 8), WIDE, bias), bias.expand(3, 4))
    chosen.linear(torch.zeros(1, 4), TALL)
    assert made.used == [("none", 3, 4), ("none", 1, 8)]


def test_as_many_matrices_in_turn_as_the_cache_cannot_keep(libraries: Callable[..., Libraries]) -> None:
    made = libraries(lambda library, batch, weight: 1.0)
    one = torch.empty(COLD_BYTES // 4 // 64, 64, device="meta")
    seen: list[Any] = []
    small = [TALL] * 5
    Products.measured(lambda x, weight: seen.append(weight) or made.multiply(x, weight), small)  # type: ignore[func-returns-value]
    assert len(seen) == 2 * len(BATCHES) * len(small)
    assert len(products._cold([one] * 5)) == 2


def test_silence(capfd: pytest.CaptureFixture[str]) -> None:
    with silence():
        os.write(2, b"native\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


@pytest.mark.gpu
@pytest.mark.filterwarnings("error")
def test_measured_on_a_card(capfd: pytest.CaptureFixture[str]) -> None:
    from torch.nn.functional import linear

    matrices = [torch.randn(4096, 1024, dtype=torch.bfloat16, device="cuda") for _ in range(3)]
    chosen = Products.measured(linear, matrices)
    assert set(chosen.faster[(4096, 1024)]) <= {"cublas", "cublaslt"}
    x = torch.randn(192, 1024, dtype=torch.bfloat16, device="cuda")
    for library in ("cublas", "cublaslt"):
        fixed = Products(linear, {(4096, 1024): (library,) * len(BATCHES)})  # type: ignore[dict-item]
        torch.testing.assert_close(fixed.linear(x, matrices[0]), linear(x, matrices[0]))
    assert capfd.readouterr().err == ""
    assert str(torch.backends.cuda.preferred_blas_library(None)).endswith("Cublas")
