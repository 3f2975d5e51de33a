"""Every one of llama.cpp's own figures: weights, KV and state to the byte, scratch within its interval."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from velollm_core.errors import ModelRefused
from velollm_core.models.load import LoadSettings
from velollm_core.models.memory import memory
from velollm_core.models.spec import ModelSpec

Case = Mapping[str, Any]
Specs = Callable[[str], ModelSpec]
MIB = 1 << 20


def cases(path: Path) -> list[Case]:
    found: list[Case] = json.loads(lzma.decompress(path.read_bytes()))
    return found


def load_of(settings: Mapping[str, Any], *, mmap: bool = False) -> LoadSettings:
    return LoadSettings(
        total_context=settings["ctx"],
        parallel=settings["parallel"],
        kv_unified=settings["kv_unified"],
        type_k=settings["ctk"],
        type_v=settings["ctv"],
        flash_attn=settings["flash_attn"],
        batch=settings["batch"],
        ubatch=settings["ubatch"],
        swa_full=settings["swa_full"],
        mmap=mmap,
    )


@pytest.fixture(scope="module", params=["golden", "golden_big"])
def figures(request: pytest.FixtureRequest, golden_file: Callable[[str], Path]) -> list[Case]:
    return cases(golden_file(f"{request.param}.json.xz"))


def test_as_many_cases_as_were_measured(golden_file: Callable[[str], Path]) -> None:
    assert len(cases(golden_file("golden.json.xz"))) == 1174
    assert len(cases(golden_file("golden_big.json.xz"))) == 144


def test_context_and_batch_are_what_llama_cpp_uses(figures: list[Case], golden_spec: Specs) -> None:
    for case in figures:
        if case["ok"]:
            found = memory(golden_spec(case["file"]), load_of(case["settings"]))
            used = (found.context, found.context_per_sequence, found.sequences, found.batch, found.ubatch)
            assert used == tuple(case[key] for key in ("n_ctx_used", "n_ctx_seq", "n_seq_max", "n_batch", "n_ubatch"))


def test_kv_and_state_to_the_byte(figures: list[Case], golden_spec: Specs) -> None:
    for case in figures:
        if case["ok"]:
            host = memory(golden_spec(case["file"]), load_of(case["settings"])).devices[0]
            assert host.kv.interval is None
            assert host.recurrent.interval is None
            assert host.kv.value + host.recurrent.value == case["context_bytes"], (case["file"], case["settings"])
            assert host.kv.value == case.get("kv_bytes", host.kv.value)
            assert host.recurrent.value == case.get("recurrent_bytes", host.recurrent.value)


def test_weights_to_the_byte(figures: list[Case], golden_spec: Specs) -> None:
    for case in figures:
        spec = golden_spec(case["file"])
        assert spec.tensor_bytes == case["weights_bytes"], case["file"]
        assert len(spec.tensors) == case["n_tensors"]
        if case["ok"]:
            host = memory(spec, load_of(case["settings"])).devices[0]
            assert host.weights.value == case["weights_loaded_bytes"], case["file"]


def test_refused_is_what_llama_cpp_refuses_and_nothing_else(figures: list[Case], golden_spec: Specs) -> None:
    for case in figures:
        refusal = None
        try:
            memory(golden_spec(case["file"]), load_of(case["settings"]))
        except ModelRefused as error:
            refusal = str(error)
        assert (refusal is None) == case["ok"], (case["file"], case["settings"], refusal)
        assert refusal is None or "\n" not in refusal


def test_scratch_within_a_tenth_or_64_mib_and_always_within_its_interval(
    figures: list[Case], golden_spec: Specs
) -> None:
    for case in figures:
        if case["ok"]:
            found = memory(golden_spec(case["file"]), load_of(case["settings"])).devices[0].compute
            true = case["compute_bytes"]
            assert found.interval is not None
            assert found.low <= true <= found.high, (case["file"], case["settings"])
            assert abs(found.value - true) <= max(true / 10, 64 * MIB), (case["file"], case["settings"])


def test_output_is_a_row_of_logits_a_slot(figures: list[Case], golden_spec: Specs) -> None:
    for case in figures:
        if "totals_mib" in case:
            found = memory(golden_spec(case["file"]), load_of(case["settings"])).devices[0].output.value
            assert abs(found / MIB - case["totals_mib"]["output"]) <= 0.0051
