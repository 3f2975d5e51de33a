"""Two sources of bytes become one answer that names its sources."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.figures import Basis, Bytes, Interval
from velollm_core.models.breakdown import DeviceMemory, MemoryBreakdown
from velollm_core.models.reconcile import reconcile


def breakdown(basis: Basis, device: str = "host", **figures: Bytes) -> MemoryBreakdown:
    names = ("weights", "kv", "recurrent", "compute", "output", "overhead")
    memory = DeviceMemory(device, **{name: figures.get(name, Bytes(100, basis)) for name in names})
    return MemoryBreakdown((memory,), 512, 512, 1, 512, 512)


def rounded(value: int, doubt: int) -> Bytes:
    return Bytes(value, "allocator", Interval(max(0, value - doubt), value + doubt))


def test_agreement_keeps_the_formulas_exact_bytes_and_the_allocators_compute() -> None:
    kv = rounded(103, 5)
    compute = Bytes(7, "allocator")
    both = reconcile(breakdown("formula"), breakdown("allocator", kv=kv, compute=compute))
    host = both.devices[0]
    assert (host.kv, host.weights, host.recurrent) == (Bytes(100, "formula"),) * 3
    assert host.compute == compute
    assert host.output.basis == "allocator"
    assert host.overhead.basis == "formula"
    assert both.notes == ()


def test_disagreement_takes_the_allocators_figure_and_says_so() -> None:
    kv = rounded(200, 5)
    both = reconcile(breakdown("formula"), breakdown("allocator", kv=kv))
    assert both.devices[0].kv == kv
    (note,) = both.notes
    assert note.startswith("kv on host: 195 to 205 bytes by the engine's allocator, 100 by formula")
    assert "a rule that the formula does not know" in note


def test_what_the_engine_really_uses_wins() -> None:
    both = reconcile(breakdown("formula"), evolve(breakdown("allocator"), context=768, batch=300))
    assert (both.context, both.batch) == (768, 300)
    assert len(both.notes) == 2


def test_devices_that_one_side_does_not_know_are_kept() -> None:
    both = reconcile(breakdown("formula", "gpu0"), breakdown("allocator", "host"))
    assert [device.device for device in both.devices] == ["host", "gpu0"]
    assert any("gpu0: by formula alone" in note for note in both.notes)


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 5243))
def test_the_standing_figure_is_always_one_of_the_two(ours: int, theirs: int, doubt: int) -> None:
    known = rounded(theirs, doubt)
    both = reconcile(breakdown("formula", kv=Bytes(ours, "formula")), breakdown("allocator", kv=known))
    agree = abs(ours - theirs) <= doubt
    assert both.devices[0].kv == (Bytes(ours, "formula") if agree else known)
    assert bool(both.notes) is not agree
