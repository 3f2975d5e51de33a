"""llama.cpp's own allocator, asked for real, in its child process."""

from __future__ import annotations

import asyncio
import ctypes.util
import os
import stat
from pathlib import Path

import pytest
from attrs import evolve
from velollm_llamacpp.allocator import Allocator
from velollm_llamacpp.library import CONTEXT_DEFAULTS, Library, WrongBuildError, check_defaults
from velollm_llamacpp.loadable import sparse_copy
from velollm_llamacpp.structs import ContextParams

from velollm_core.errors import BackendError, ModelRefused
from velollm_core.models.breakdown import MemoryBreakdown
from velollm_core.models.files import read_model
from velollm_core.models.gguf import read_header
from velollm_core.models.load import LoadSettings
from velollm_core.models.memory import memory as by_formula
from velollm_core.models.reconcile import reconcile

LOAD = LoadSettings(total_context=1024)


def ask(library: Path, path: Path, load: LoadSettings) -> MemoryBreakdown:
    return asyncio.run(Allocator(library).memory(read_model(path), load))


def header_of(model: Path, folder: Path) -> Path:
    header = folder / "header.gguf"
    header.write_bytes(model.read_bytes()[: read_header(model).data_offset])
    return header


def split(model: Path, folder: Path) -> list[Path]:
    """Headers of ``model`` in two parts, without data."""
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(model)
    paths = [folder / f"m-0000{part}-of-00002.gguf" for part in (1, 2)]
    for number, path in enumerate(paths):
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for field in reader.fields.values():
            if number == 0 and not field.name.startswith("GGUF.") and field.name != "general.architecture":
                kind, *inner = field.types
                writer.add_key_value(field.name, field.contents(), kind, inner[-1] if inner else None)
        for tensor in reader.tensors[number::2]:
            writer.add_tensor_info(tensor.name, tensor.data.shape, tensor.data.dtype, tensor.n_bytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        size = -(-path.stat().st_size // 32) * 32
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    return paths


@pytest.mark.parametrize(
    "load",
    [
        LOAD,
        evolve(LOAD, parallel=None),
        evolve(LOAD, parallel=3, total_context=3000),
        evolve(LOAD, type_k="q8_0", type_v="q4_0", flash_attn="on"),
        evolve(LOAD, flash_attn="off", ubatch=128, mmap=False),
    ],
)
def test_formula_and_allocator_agree_to_the_byte(library: Path, model: Path, load: LoadSettings) -> None:
    known = ask(library, model, load)
    computed = by_formula(read_model(model), load)
    assert known.devices[0].kv.value == computed.devices[0].kv.value
    assert reconcile(computed, known).notes == ()
    assert known.devices[0].compute.value > 0


def test_weights_need_not_be_there(library: Path, model: Path, tmp_path: Path) -> None:
    header = header_of(model, tmp_path)
    spec = read_model(header)
    assert not spec.data_present
    assert ask(library, header, LOAD) == ask(library, model, LOAD)


def test_a_remote_models_header_is_enough(library: Path, model: Path, tmp_path: Path) -> None:
    header = header_of(model, tmp_path)
    spec = evolve(read_model(header), source="hf:org/repo/model.gguf", header=str(header))
    assert asyncio.run(Allocator(library).memory(spec, LOAD)) == ask(library, model, LOAD)


def test_headers_of_a_split_model_are_enough(library: Path, model: Path, tmp_path: Path) -> None:
    paths = split(model, tmp_path)
    spec = evolve(read_model(paths[0]), source="hf:org/repo/m-00001-of-00002.gguf", header=str(paths[0]))
    assert not spec.data_present
    assert asyncio.run(Allocator(library).memory(spec, LOAD)) == ask(library, model, LOAD)


def test_a_sparse_copy_is_as_long_as_the_model_and_takes_no_disk(model: Path, tmp_path: Path) -> None:
    header = header_of(model, tmp_path)
    (tmp_path / "sparse").mkdir()
    copy = sparse_copy(header, tmp_path / "sparse")
    assert copy.stat().st_size == model.stat().st_size
    assert copy.stat().st_blocks * 512 < 1 << 20


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (evolve(LOAD, type_v="q8_0", flash_attn="off"), "requires flash_attn"),
        (evolve(LOAD, parallel=1000), "n_seq_max"),
    ],
)
def test_what_llamacpp_refuses_is_refused_with_its_reason(
    library: Path, model: Path, load: LoadSettings, reason: str
) -> None:
    with pytest.raises(ModelRefused, match=reason) as raised:
        ask(library, model, load)
    assert "\n" not in str(raised.value)


def test_a_build_without_gpus_says_so(library: Path, model: Path) -> None:
    if Library(library).call("llama_supports_gpu_offload"):
        pytest.skip("this xllamacpp knows GPUs")
    with pytest.raises(BackendError, match="no GPU support"):
        ask(library, model, evolve(LOAD, gpu_layers=2))


def test_an_absent_model_is_one_clear_line(library: Path, model: Path) -> None:
    spec = evolve(read_model(model), source="hf:org/repo/file.gguf")
    with pytest.raises(BackendError, match="no GGUF header"):
        asyncio.run(Allocator(library).memory(spec, LOAD))


def test_another_library_is_refused_before_it_is_called(model: Path) -> None:
    other = Path(next(path for path in (ctypes.util.find_library("c"), "libc.so.6") if path))
    with pytest.raises(BackendError, match="is not the llama"):
        ask(other, model, LOAD)


def test_a_shifted_default_is_noticed() -> None:
    params = ContextParams(n_ctx=512, n_batch=512)
    with pytest.raises(WrongBuildError, match="the default of n_batch is 512, not 2048"):
        check_defaults(params, CONTEXT_DEFAULTS)


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script that stands in for the child."""
    path = tmp_path / "python"
    monkeypatch.setattr("velollm_llamacpp.allocator.sys.executable", str(path))
    return path


def script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_an_abort_is_a_refusal_with_the_assertion(interpreter: Path, library: Path, model: Path) -> None:
    script(interpreter, "echo '/build/ggml.c:1797: GGML_ASSERT(x == NULL) failed' >&2; kill -ABRT $$")
    with pytest.raises(ModelRefused, match=r"would abort: ggml\.c:1797: GGML_ASSERT\(x == NULL\) failed"):
        ask(library, model, LOAD)


def test_a_crash_without_an_answer_is_one_clear_line(interpreter: Path, library: Path, model: Path) -> None:
    script(interpreter, "cat > /dev/null; echo 'out of luck' >&2; kill -SEGV $$")
    with pytest.raises(BackendError, match="died without an answer: out of luck"):
        ask(library, model, LOAD)


def test_a_hang_is_bounded(interpreter: Path, library: Path, model: Path) -> None:
    script(interpreter, "exec sleep 60")
    with pytest.raises(BackendError, match=r"no answer in 0\.2 s"):
        asyncio.run(Allocator(library, seconds=0.2).memory(read_model(model), LOAD))


def test_answers_are_remembered(library: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allocator, spec = Allocator(library), read_model(model)
    first = asyncio.run(allocator.memory(spec, LOAD))
    monkeypatch.setattr("velollm_llamacpp.allocator.sys.executable", os.devnull)
    assert asyncio.run(allocator.memory(spec, LOAD)) is first
