"""The allocator against llama.cpp's own figures: a sample here, all of them by scripts/golden_table.py."""

from __future__ import annotations

import asyncio
import json
import lzma
import random
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from velollm_llamacpp.allocator import Allocator

from velollm_core.errors import ModelRefused
from velollm_core.models.files import read_model
from velollm_core.models.load import LoadSettings
from velollm_core.models.memory import memory as by_formula
from velollm_core.models.reconcile import reconcile

GOLDEN = Path(__file__).parents[3] / "tests" / "golden"
SAMPLE, SEED = 90, 3

HERE = (GOLDEN / "golden.json.xz").is_file()
pytestmark = pytest.mark.skipif(not HERE, reason="tests/golden is not in this checkout")


def sample() -> list[tuple[str, dict[str, Any]]]:
    """Cases of every file, some that llama.cpp refuses among them."""
    if not HERE:
        return []
    coins = random.Random(SEED)
    tiny = packed("golden")
    big = packed("golden_big")
    refused = [case for case in tiny if not case["ok"]]
    chosen = coins.sample(tiny, SAMPLE) + coins.sample(refused, 6) + coins.sample(big, 12)
    return [(f"{number}-{case['file']}", case) for number, case in enumerate(chosen)]


def packed(name: str) -> list[dict[str, Any]]:
    """The cases of one file."""
    cases: list[dict[str, Any]] = json.loads(lzma.decompress((GOLDEN / f"{name}.json.xz").read_bytes()))
    return cases


def header(case: dict[str, Any], folder: Path) -> Path:
    """The file of ``case``, header only."""
    name = str(case["file"])
    source = next(path for path in GOLDEN.glob(f"*/{name}.header.xz"))
    path = folder / name
    path.write_bytes(lzma.decompress(source.read_bytes()))
    return path


def load_settings(case: dict[str, Any]) -> LoadSettings:
    given = case["settings"]
    return LoadSettings(
        total_context=given["ctx"],
        parallel=given["parallel"],
        kv_unified=given["kv_unified"],
        type_k=given["ctk"],
        type_v=given["ctv"],
        flash_attn=given["flash_attn"],
        batch=given["batch"],
        ubatch=given["ubatch"],
        swa_full=given["swa_full"],
        mmap=False,
    )


@pytest.mark.parametrize(("name", "case"), sample(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_allocator_gives_llamacpps_own_figures(
    library: Path, tmp_path: Path, name: str, case: dict[str, Any]
) -> None:
    spec, load = read_model(header(case, tmp_path)), load_settings(case)
    if not case["ok"]:
        with pytest.raises(ModelRefused):
            asyncio.run(Allocator(library).memory(spec, load))
        return
    known = asyncio.run(Allocator(library).memory(spec, load))
    host = known.devices[0]
    assert host.kv.value + host.recurrent.value == case["context_bytes"]
    assert host.recurrent.value == case.get("recurrent_bytes", host.recurrent.value)
    assert host.weights.value == case["weights_loaded_bytes"]
    assert (known.context, known.context_per_sequence) == (case["n_ctx_used"], case["n_ctx_seq"])
    assert (known.batch, known.ubatch) == (case["n_batch"], case["n_ubatch"])
    # The figures are of another build: between builds only compute moves.
    assert host.compute.value == pytest.approx(case["compute_bytes"], rel=0.05)


def test_both_sources_agree_wherever_the_formula_knows_the_rule(library: Path, tmp_path: Path) -> None:
    for _, case in sample()[::6]:
        if not case["ok"]:
            continue
        spec, load = read_model(header(case, tmp_path)), evolve(load_settings(case), mmap=True)
        known = asyncio.run(Allocator(library).memory(spec, load))
        both = reconcile(by_formula(spec, load), known)
        assert {both.devices[0].kv.basis, both.devices[0].recurrent.basis} == {"formula"}, case
        assert not [note for note in both.notes if "a rule that the formula does not know" in note], case
