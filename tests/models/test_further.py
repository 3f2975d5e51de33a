"""Architectures and odd keys beyond the golden files: what llama.cpp's allocator logged of 135 of them."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from velollm_core.errors import ModelRefused
from velollm_core.models.architectures import ARCHITECTURES
from velollm_core.models.building import build_spec
from velollm_core.models.load import LoadSettings
from velollm_core.models.memory import memory
from velollm_core.models.metadata import Metadata
from velollm_core.models.spec import ModelSpec

MIB = 1 << 20
ROUNDING = 0.0051
SETTINGS = {"ctk": "type_k", "ctv": "type_v", "ctx": "total_context"}


@pytest.fixture(scope="module")
def further(golden_file: Callable[[str], Path]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lzma.decompress(golden_file("further.json.xz").read_bytes()))
    return found


def spec_of(name: str, keys: dict[str, Any]) -> ModelSpec:
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in keys.items()}
    return build_spec(Metadata(name, values), (), name)


def load_of(settings: dict[str, Any]) -> LoadSettings:
    return LoadSettings(**{SETTINGS.get(key, key): value for key, value in settings.items()})


def test_kv_and_state_within_the_logs_rounding(further: dict[str, Any]) -> None:
    for name, model in further.items():
        spec = spec_of(name, model["keys"])
        for settings, logged in model["cases"]:
            if logged is None:
                continue
            found = memory(spec, load_of(settings))
            host = found.devices[0]
            lines = len(logged["kv"]) + len(logged["state"])
            ours, theirs = host.kv.value + host.recurrent.value, sum(logged["kv"]) + sum(logged["state"])
            assert abs(ours / MIB - theirs) <= ROUNDING * lines, (name, settings, ours / MIB, theirs)
            used = (found.context, found.context_per_sequence, found.batch, found.ubatch)
            assert used == tuple(logged[key] for key in ("n_ctx", "n_ctx_seq", "n_batch", "n_ubatch")), name


def test_what_it_refuses_is_refused(further: dict[str, Any]) -> None:
    for name, model in further.items():
        for settings, logged in model["cases"]:
            if logged is None:
                with pytest.raises(ModelRefused):
                    memory(spec_of(name, model["keys"]), load_of(settings))


def test_nearly_every_architecture_in_the_table_was_asked_about(further: dict[str, Any]) -> None:
    asked = {model["keys"]["general.architecture"] for model in further.values()}
    assert asked <= set(ARCHITECTURES)
    assert len(asked) >= 130
