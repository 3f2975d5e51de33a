"""Machines, shapes and scenes for everything that plans."""

from __future__ import annotations

import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from velollm_core.hardware.machine import Hardware
from velollm_core.models.devices import devices
from velollm_core.models.files import read_model
from velollm_core.models.fit import with_overhead
from velollm_core.models.memory import memory
from velollm_core.models.pick import Scene, Turn, gpu_shares
from velollm_core.models.spec import LayerSpec, ModelSpec
from velollm_core.render import read_document

HERE = Path(__file__).parent
BIG = HERE.parent / "golden" / "big"


def machine_file(name: str) -> Path:
    return HERE / "machines" / f"{name}.json"


def read_machine(name: str) -> Hardware:
    return read_document(machine_file(name), "detect", "hardware", Hardware)


@pytest.fixture(scope="session")
def machine() -> Callable[[str], Hardware]:
    """A machine of the folder beside this: ``h100``, ``rtx4090``, ``cpu``, ``laptop``, ``m2max``."""
    return read_machine


@pytest.fixture(scope="session")
def machine_path() -> Callable[[str], Path]:
    """The same as a file for ``--hardware``."""
    return machine_file


def dense_model(layers: int = 32, *, window: int = 0, kv_heads: int = 8) -> ModelSpec:
    """The shape of Llama 3.1 8B in F16, without its tensor table; every second layer has ``window``, if any."""
    blocks = tuple(
        LayerSpec(
            index,
            attention="window" if window and index % 2 else "full",
            heads=32,
            kv_heads=kv_heads,
            key_length=128,
            value_length=128,
            window=window if index % 2 else 0,
            feed_forward=14336,
            dense_bytes=436_224_000,
        )
        for index in range(layers)
    )
    table = 128256 * 4096 * 2
    return ModelSpec(
        "dense",
        "llama",
        "dense.gguf",
        "gguf",
        131072,
        4096,
        128256,
        blocks,
        embedding_bytes=table,
        output_bytes=table,
        other_bytes=16384,
        parameters=(2 * table + layers * 436_224_000) // 2,
        quantization="F16",
    )


def mixture_model(layers: int = 24) -> ModelSpec:
    """A mixture of 32 experts, 4 at a time, 12 GB of which 11 are experts."""
    blocks = tuple(
        LayerSpec(
            index,
            heads=64,
            kv_heads=8,
            key_length=64,
            value_length=64,
            expert_feed_forward=2880,
            dense_bytes=30_000_000,
            expert_bytes=450_000_000,
        )
        for index in range(layers)
    )
    return ModelSpec(
        "mixture",
        "llama",
        "mixture.gguf",
        "gguf",
        131072,
        2880,
        201088,
        blocks,
        embedding_bytes=1_000_000_000,
        output_bytes=500_000_000,
        expert_count=32,
        expert_used=4,
        parameters=20_000_000_000,
    )


@pytest.fixture(scope="session")
def dense() -> Callable[..., ModelSpec]:
    """`dense_model`."""
    return dense_model


@pytest.fixture(scope="session")
def mixture() -> Callable[..., ModelSpec]:
    """`mixture_model`."""
    return mixture_model


def make_scene(spec: ModelSpec, hardware: Hardware, context: int) -> Scene:
    found = devices(hardware)
    return Scene(
        spec, found, lambda load: with_overhead(memory(spec, load, gpu_shares(found)), found), Turn.within(context)
    )


@pytest.fixture(scope="session")
def scene() -> Callable[[ModelSpec, Hardware, int], Scene]:
    """What `alternatives` compares settings in, by formula."""
    return make_scene


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelSpec]:
    """A published model by the name of its header, ``llama-3.1-8b-q4km``."""
    folder, known = tmp_path_factory.mktemp("big"), {}

    def read(name: str) -> ModelSpec:
        if name not in known:
            path = folder / f"{name}.gguf"
            path.write_bytes(lzma.decompress((BIG / f"{name}.gguf.header.xz").read_bytes()))
            known[name] = read_model(path)
        return known[name]

    return read
