"""Bytes by formula, by the engine's allocator, and by both against each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import define, evolve, field

from velollm_core.backends.status import Status
from velollm_core.errors import BackendError, ModelRefused, VeloError
from velollm_core.figures import Bytes, Interval
from velollm_core.models.breakdown import MemoryBreakdown
from velollm_core.models.correction import Observation
from velollm_core.models.devices import devices
from velollm_core.models.load import LoadSettings
from velollm_core.models.memory import memory
from velollm_core.models.spec import ModelSpec
from velollm_core.planning.answer import make_answer
from velollm_core.planning.asked import Asked
from velollm_core.planning.sources import Engine, Sources, find_engine

LOAD = LoadSettings(4096)


@define
class Allocator:
    """An engine that answers as ``change`` makes of the formula's figures."""

    change: Callable[[MemoryBreakdown], MemoryBreakdown]
    name: str = "engine"
    knows_gpus: bool = False
    asked: list[LoadSettings] = field(factory=list)

    async def status(self) -> Status:
        return Status(reachable=True)

    def stream(self, request):
        raise NotImplementedError

    async def close(self) -> None: ...

    async def memory(self, model: ModelSpec, load: LoadSettings) -> MemoryBreakdown:
        self.asked.append(load)
        if load.gpu_layers and not self.knows_gpus:
            raise BackendError("engine: no GPU support")
        return self.change(memory(model, load))


def measured(found: MemoryBreakdown, *, kv: int = 1, compute: int = 7 << 20) -> MemoryBreakdown:
    """As an allocator says it: to two decimals of a MiB, with ``kv`` times the formula's cache."""
    host = found.devices[0]
    rounding = Interval(host.kv.value * kv - 5000, host.kv.value * kv + 5000)
    known = evolve(
        host,
        weights=Bytes(host.weights.value, "allocator"),
        kv=Bytes(host.kv.value * kv, "allocator", rounding),
        recurrent=Bytes(0, "allocator"),
        compute=Bytes(compute, "allocator"),
        output=Bytes(host.output.value, "allocator"),
        overhead=Bytes(0, "formula"),
    )
    return evolve(found, devices=(known, *found.devices[1:]))


def sources(spec: ModelSpec, hardware, allocator: Allocator | None) -> Sources:
    return Sources(spec, devices(hardware), Engine(allocator, allocator) if allocator else None)


def test_where_both_agree_the_formula_stands_and_compute_is_the_allocators(machine, dense) -> None:
    found, learnt = sources(dense(), machine("cpu"), Allocator(measured)).answer(LOAD, "both")
    host = found.devices[0]
    assert host.kv == memory(dense(), LOAD).devices[0].kv
    assert host.compute == Bytes(7 << 20, "allocator")
    assert host.overhead.basis == "nominal"
    assert learnt.scaling.kv == 1.0
    assert learnt.scaling.compute != 1.0


def test_where_they_differ_the_allocator_stands_and_teaches_the_rest(machine, dense) -> None:
    engine = Allocator(lambda found: measured(found, kv=3))
    found, learnt = sources(dense(), machine("cpu"), engine).answer(LOAD, "both")
    assert found.devices[0].kv.basis == "allocator"
    assert any("a rule that the formula does not know" in note for note in found.notes)
    other = evolve(LOAD, total_context=8192)
    plain = memory(dense(), other).devices[0].kv.value
    assert learnt.formula(other).devices[0].kv.value == 3 * plain


def test_the_basis_is_what_was_asked_for(machine, dense) -> None:
    engine = Allocator(measured)
    by_formula, _ = sources(dense(), machine("cpu"), engine).answer(LOAD, "formula")
    assert engine.asked == []
    assert by_formula.devices[0].compute.basis == "formula"
    by_engine, _ = sources(dense(), machine("cpu"), engine).answer(LOAD, "allocator")
    assert by_engine.devices[0].kv.basis == "allocator"
    with pytest.raises(VeloError, match="can ask its allocator"):
        sources(dense(), machine("cpu"), None).answer(LOAD, "allocator")


def test_an_allocator_that_fails_leaves_the_formula_and_a_note(machine, dense) -> None:
    def fail(found: MemoryBreakdown) -> MemoryBreakdown:
        raise BackendError("engine: died")

    found, learnt = sources(dense(), machine("cpu"), Allocator(fail)).answer(LOAD, "both")
    assert found.devices[0].kv.basis == "formula"
    assert learnt.note == "by formula alone: engine: died"
    with pytest.raises(BackendError, match="died"):
        sources(dense(), machine("cpu"), Allocator(fail)).answer(LOAD, "allocator")


def test_what_the_engine_refuses_is_refused(machine, dense) -> None:
    def refuse(found: MemoryBreakdown) -> MemoryBreakdown:
        raise ModelRefused("engine: not this")

    for basis in ("both", "allocator"):
        with pytest.raises(ModelRefused, match="not this"):
            sources(dense(), machine("cpu"), Allocator(refuse)).answer(LOAD, basis)


def test_a_library_without_gpus_is_asked_about_main_memory(machine, dense) -> None:
    engine = Allocator(lambda found: measured(found, kv=2))
    load = evolve(LOAD, gpu_layers=33)
    found, learnt = sources(dense(), machine("rtx4090"), engine).answer(load, "both")
    assert [each.gpu_layers for each in engine.asked] == [33, 0]
    assert [device.device for device in found.devices] == ["host", "gpu0"]
    plain = memory(dense(), load).devices[1].kv.value
    assert found.devices[1].kv.value == 2 * plain
    assert "main memory only" in (learnt.note or "")
    elsewhere = evolve(sources(dense(), machine("rtx4090"), engine), local=False)
    engine.asked.clear()
    assert elsewhere.answer(load, "both")[0] == found
    assert [each.gpu_layers for each in engine.asked] == [0]


def test_a_library_with_gpus_answers_for_them(machine, dense) -> None:
    engine = Allocator(measured, knows_gpus=True)
    load = evolve(LOAD, gpu_layers=33)
    found, learnt = sources(dense(), machine("rtx4090"), engine).answer(load, "both")
    assert len(engine.asked) == 1
    assert learnt.note is None
    assert found.devices[0].compute.basis == "allocator"


def test_the_first_backend_that_measures_is_the_engine(dense) -> None:
    engine = Allocator(measured)
    found = find_engine([engine])
    assert found is not None
    assert found.backend is engine
    assert find_engine([]) is None


def test_the_answer_asks_the_allocator_once(machine, dense) -> None:
    engine = Allocator(measured)
    answer = make_answer(sources(dense(), machine("cpu"), engine), Asked(context=4096))
    assert len(engine.asked) == 1
    assert answer.pick.memory.devices[0].compute.basis == "allocator"
    assert answer.alternatives.picks[0].load == answer.pick.load
    assert answer.pick.trade == "as asked for"


def test_the_answer_says_where_everything_lives(machine, dense, mixture) -> None:
    answer = make_answer(sources(dense(), machine("rtx4090"), None), Asked(context=4096, gpu_layers=20))
    assert answer.placement == (
        "layers 0–12 in main memory, layers 13–31 on gpu0 (NVIDIA GeForce RTX 4090), "
        "output on gpu0 (NVIDIA GeForce RTX 4090), token embeddings in main memory"
    )
    small = evolve(machine("rtx4090"), gpus=(evolve(machine("rtx4090").gpus[0], memory_free=8 << 30),))
    answer = make_answer(sources(mixture(), small, None), Asked(context=4096))
    assert f"routed experts of {answer.pick.load.cpu_moe_layers} layers in main memory" in answer.placement


def test_notes_say_what_was_assumed(machine, dense) -> None:
    notes = make_answer(sources(dense(), machine("cpu"), None), Asked()).notes
    assert any("planned for 8192 tokens a request" in note for note in notes)
    notes = make_answer(sources(dense(), machine("cpu"), None), Asked(context=200_000)).notes
    assert sum("trained for" in note for note in notes) == 1


@pytest.mark.parametrize(
    ("asked", "total", "context"),
    [
        (Asked(context=1000, parallel=3), 3000, 1000),
        (Asked(context=1000, parallel=3, kv_unified=True), 3000, 1000),
        (Asked(total_context=9000, parallel=3), 9000, 3000),
        (Asked(total_context=9000, parallel=3, kv_unified=True), 9000, 9000),
        (Asked(), 8192, 8192),
    ],
)
def test_context_is_what_one_request_may_use(dense, asked: Asked, total: int, context: int) -> None:
    assert asked.load_settings(dense()).total_context == total
    assert asked.request_context(dense()) == context
    assert Asked().request_context(evolve(dense(), context_length=2048)) == 2048


@pytest.mark.parametrize("times", [1, 3])
def test_what_the_engine_teaches_reaches_every_pick(machine, dense, times: int) -> None:
    engine = Allocator(lambda found: measured(found, kv=times))
    answer = make_answer(sources(dense(), machine("cpu"), engine), Asked(context=4096))
    assert len(answer.alternatives.picks) > 1
    for pick in answer.alternatives.picks[1:]:
        host = pick.memory.devices[0]
        assert host.kv.value == times * memory(dense(), pick.load).devices[0].kv.value
        assert host.compute.value != memory(dense(), pick.load).devices[0].compute.value
        assert pick.fit.verdict == "yes"


def test_a_refusal_by_the_engine_ends_the_answer(machine, dense) -> None:
    def refuse(found: MemoryBreakdown) -> MemoryBreakdown:
        raise ModelRefused("engine: not this")

    with pytest.raises(ModelRefused, match="not this"):
        make_answer(sources(dense(), machine("cpu"), Allocator(refuse)), Asked(context=4096))


def test_a_larger_scratch_than_the_formulas_can_cost_a_pick_its_place(machine, dense) -> None:
    small = evolve(machine("cpu"), memory=evolve(machine("cpu").memory, available=18 << 30))
    modest = make_answer(sources(dense(), small, None), Asked(context=4096))
    hungry = Allocator(lambda found: measured(found, compute=1 << 30))
    answer = make_answer(sources(dense(), small, hungry), Asked(context=4096))
    assert max(pick.context for pick in answer.alternatives.picks) < max(
        pick.context for pick in modest.alternatives.picks
    )
    assert all(pick.fit.verdict != "no" for pick in answer.alternatives.picks)


def test_the_answer_says_how_many_measurements_corrected_it(machine, dense) -> None:
    lessons = [
        Observation("decode", "host", "engine", "dense", 10.0, 8.0),
        Observation("decode", "gpu0", "engine", "dense", 10.0, 8.0),
        Observation("prefill", "host", "engine", "tiny", 1e6, 1e6),
    ]
    plain = make_answer(sources(dense(), machine("cpu"), None), Asked(context=4096))
    answer = make_answer(sources(dense(), machine("cpu"), None), Asked(context=4096), lessons=lessons)
    assert "the predictions are corrected by 1 earlier measurements on this machine" in answer.notes
    assert answer.pick.start.decode.value == pytest.approx(plain.pick.start.decode.value * 0.8)
    assert answer.pick.start.prefill == plain.pick.start.prefill
