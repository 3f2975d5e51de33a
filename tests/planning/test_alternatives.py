"""Ranked picks: they fit, they respect the floors, and the engine takes them."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.errors import ModelRefused
from velollm_core.figures import Rate
from velollm_core.hardware.machine import Hardware
from velollm_core.models.alternatives import alternatives
from velollm_core.models.contexts import largest_context, with_cache
from velollm_core.models.load import LoadSettings
from velollm_core.models.offload import offload
from velollm_core.models.pick import Scene, Turn, weigh
from velollm_core.models.ranking import Floors, quality

GIB = 1 << 30


def sized(hardware: Hardware, free: int, gpu_free: int | None = None) -> Hardware:
    gpus = tuple(evolve(gpu, memory_free=gpu_free) for gpu in hardware.gpus) if gpu_free else ()
    return evolve(hardware, memory=evolve(hardware.memory, available=free), gpus=gpus)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_picks_fit_respect_the_floors_and_are_taken_by_the_engine(machine, dense, mixture, scene, data) -> None:
    spec = data.draw(st.sampled_from([dense(), dense(window=1024), mixture()]))
    free = data.draw(st.integers(2, 80)) * GIB
    gpu = data.draw(st.one_of(st.none(), st.integers(1, 24)))
    context = data.draw(st.sampled_from([300, 512, 8192, 50_000, 131_072]))
    load = LoadSettings(
        context,
        flash_attn=data.draw(st.sampled_from(["auto", "on", "off"])),
        type_k=data.draw(st.sampled_from(["f16", "q8_0", "q4_0"])),
        ubatch=data.draw(st.sampled_from([64, 512, 2048])),
    )
    floors = Floors(data.draw(st.sampled_from([None, 4096])), data.draw(st.sampled_from([None, 5.0, 1000.0])))
    made = scene(spec, sized(machine("rtx4090"), free, gpu and gpu * GIB), context)
    placed = offload(made, load)
    found = alternatives(made, placed, context, floors)
    for pick in found.picks:
        assert pick.fit.verdict in ("yes", "maybe")
        assert floors.problem(pick) is None
        assert pick.load.flash_attn != "off" or pick.load.type_v == "f16"
        made.measure(pick.load)
        assert pick.trade
        assert pick.reason
    asked = weigh(made, placed, context)
    assert asked is not None
    if asked.fit.verdict == "yes" and floors.problem(asked) is None:
        assert found.picks[0].load == placed
    assert (found.closest is None) == bool(found.picks)
    if found.closest is not None:
        assert found.why
        assert found.missing == found.closest.fit.missing


@settings(max_examples=25, deadline=None)
@given(
    context=st.integers(1, 130_000),
    more=st.integers(1, 60_000),
    layers=st.integers(0, 33),
    flash=st.booleans(),
    slots=st.integers(1, 4),
)
def test_a_bigger_context_never_takes_less(
    machine, dense, scene, context: int, more: int, layers: int, flash: bool, slots: int
) -> None:
    made = scene(dense(window=1024), machine("rtx4090"), context)
    load = LoadSettings(context, gpu_layers=layers, flash_attn="on" if flash else "off", parallel=slots)
    small, large = (made.measure(evolve(load, total_context=total)) for total in (context, context + more))
    assert large.total >= small.total
    for one, other in zip(small.devices, large.devices, strict=True):
        assert other.kv.value >= one.kv.value


@settings(max_examples=15, deadline=None)
@given(gpu=st.integers(1, 24), start=st.integers(0, 33))
def test_the_search_for_a_placement_finds_the_same_from_anywhere(machine, dense, mixture, scene, gpu, start) -> None:
    for spec in (dense(), mixture()):
        made = scene(spec, sized(machine("rtx4090"), 64 * GIB, gpu * GIB), 8192)
        load = LoadSettings(8192)
        near = evolve(load, gpu_layers=start, cpu_moe_layers=start)
        found = offload(made, load)
        assert offload(made, load, near) == found
        if found.gpu_layers == spec.block_count + 1 and found.cpu_moe_layers == 0:
            continue
        further = (
            evolve(found, cpu_moe_layers=found.cpu_moe_layers - 1)
            if found.cpu_moe_layers
            else evolve(found, gpu_layers=found.gpu_layers + 1)
        )
        verdicts = [device.verdict for device in made.fit(further).devices if device.device != "host"]
        assert any(verdict != "yes" for verdict in verdicts)


def test_the_largest_context_is_the_last_that_fits(machine, dense, scene) -> None:
    made = scene(dense(), sized(machine("cpu"), 20 * GIB), 8192)
    load = LoadSettings(8192, parallel=2)
    largest = largest_context(made, load, 2)
    assert largest is not None
    assert largest % 256 == 0
    assert made.fit(evolve(load, total_context=largest * 2)).verdict == "yes"
    assert made.fit(evolve(load, total_context=(largest + 256) * 2)).verdict != "yes"
    assert largest_context(scene(dense(), sized(machine("cpu"), GIB), 8192), load, 2) is None


def test_an_eight_bit_cache_needs_flash_attention_for_v() -> None:
    assert with_cache(LoadSettings(512, flash_attn="off"), "q8_0").type_v == "f16"
    made = with_cache(LoadSettings(512), "q8_0")
    assert (made.type_k, made.type_v, made.flash_attn) == ("q8_0", "q8_0", "on")


def test_nothing_fits_says_what_is_missing(machine, dense, scene) -> None:
    made = scene(dense(), sized(machine("cpu"), 4 * GIB), 8192)
    found = alternatives(made, LoadSettings(8192), 8192)
    assert found.picks == ()
    assert found.missing > 10 * GIB
    assert "short of a sure fit" in (found.why or "")
    assert any("bits a weight would fit" in hint for hint in found.hints)


def test_a_floor_that_nothing_reaches_is_the_reason(machine, dense, scene) -> None:
    made = scene(dense(), machine("cpu"), 8192)
    found = alternatives(made, LoadSettings(8192), 8192, Floors(decode=1e6))
    assert found.picks == ()
    assert "below the floor of 1e+06" in (found.why or "")
    assert found.missing == 0
    found = alternatives(made, LoadSettings(8192), 8192, Floors(context=10**6))
    assert "below the floor of 1000000 tokens" in (found.why or "")


def test_a_floor_on_an_unknown_speed_is_said_to_be_unchecked(machine, dense, scene) -> None:
    hardware = machine("cpu")
    made = scene(dense(), evolve(hardware, cpu=evolve(hardware.cpu, bandwidth=None)), 8192)
    found = alternatives(made, LoadSettings(8192), 8192, Floors(decode=10.0))
    assert found.picks
    assert any("could not be checked" in hint for hint in found.hints)


def test_four_bit_caches_are_a_hint_and_never_a_pick(machine, dense, scene) -> None:
    made = scene(dense(), sized(machine("cpu"), 22 * GIB), 8192)
    found = alternatives(made, LoadSettings(8192), 8192)
    assert all(quality(pick.load) < 3 for pick in found.picks)
    assert any("--kv-type q4_0" in hint for hint in found.hints)
    asked = LoadSettings(8192, type_k="q4_0", type_v="q4_0", flash_attn="on")
    found = alternatives(made, asked, 8192)
    assert found.picks[0].load == asked
    assert not any("4-bit" in hint for hint in found.hints)


def test_experts_give_way_before_layers(machine, mixture, scene) -> None:
    made = scene(mixture(), sized(machine("rtx4090"), 64 * GIB, 8 * GIB), 8192)
    placed = offload(made, LoadSettings(8192))
    assert placed.gpu_layers == 25
    assert 0 < placed.cpu_moe_layers < 24


def test_slots_are_offered_for_what_they_give_together(machine, dense, scene) -> None:
    made = scene(dense(), machine("h100"), 8192)
    found = alternatives(made, offload(made, LoadSettings(8192)), 8192)
    more = next(pick for pick in found.picks if pick.slots > 1)
    assert "tokens/s together instead of" in more.trade
    assert more.together.value > 2 * found.picks[0].together.value


def test_refusals_are_no_picks(machine, dense) -> None:
    def refuse(load: LoadSettings):
        raise ModelRefused("not this one")

    made = Scene(dense(), (), refuse, Turn.within(8192))
    found = alternatives(made, LoadSettings(8192), 8192)
    assert (found.picks, found.closest) == ((), None)


def test_corrections_reach_every_prediction(machine, dense, scene) -> None:
    made = scene(dense(), machine("cpu"), 8192)
    halved = evolve(made, correct=lambda rate, phase, placement: rate and Rate(rate.value / 2, rate.basis))
    plain, corrected = (weigh(each, LoadSettings(8192), 8192) for each in (made, halved))
    assert corrected.start.decode.value * 2 == plain.start.decode.value
    assert corrected.full.prefill.value * 2 == plain.full.prefill.value


def test_a_turn_fits_its_context() -> None:
    for context in (1, 10, 512, 2048, 100_000):
        turn = Turn.within(context)
        assert turn.prompt >= 1
        assert turn.answer >= 1
        assert context < 3 or turn.prompt + turn.answer <= context


def test_two_gpus_share_the_layers_as_their_memory_is_free(machine, dense, scene) -> None:
    hardware = machine("rtx4090")
    card = hardware.gpus[0]
    pair = evolve(hardware, gpus=(evolve(card, memory_free=8 * GIB), evolve(card, index=1, memory_free=16 * GIB)))
    made = scene(dense(), pair, 8192)
    placed = offload(made, LoadSettings(8192))
    assert placed.gpu_layers == 33
    found = alternatives(made, placed, 8192)
    first, second = (found.picks[0].memory.device(name) for name in ("gpu0", "gpu1"))
    assert 1.5 < second.kv.value / first.kv.value < 2.5
    assert [each.verdict for each in found.picks[0].fit.devices] == ["yes"] * 3
    alone = scene(dense(), evolve(pair, gpus=pair.gpus[:1]), 8192)
    assert offload(alone, LoadSettings(8192)).gpu_layers < 33
