"""The seed-made model: same bytes everywhere, a draft that is its first layer, a vocabulary that engines accept."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from velollm_core.testing.test_model import SHAPES, ModelShape, write_test_model
from velollm_core.testing.test_vocabulary import CONTROLS, make_vocabulary

if TYPE_CHECKING:
    from pathlib import Path

gguf = pytest.importorskip("gguf")

SMALL = "46bdc157e0af5bbc244ebe60eec25caf917ccda9aa90f064b58555548f12ee30"


def test_small_model_is_the_same_on_every_machine(tmp_path: Path) -> None:
    path = write_test_model(tmp_path / "sub" / "model.gguf")
    assert path.stat().st_size == 6_616_192
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SMALL
    assert [entry.name for entry in path.parent.iterdir()] == ["model.gguf"]


def test_draft_is_the_first_layer_of_the_model(tmp_path: Path) -> None:
    model = gguf.GGUFReader(write_test_model(tmp_path / "model.gguf"))
    draft = gguf.GGUFReader(write_test_model(tmp_path / "draft.gguf", draft=True))
    whole = {tensor.name: tensor.data.tobytes() for tensor in model.tensors}
    parts = {tensor.name: tensor.data.tobytes() for tensor in draft.tensors}
    assert {name.split(".")[1] for name in parts if name.startswith("blk.")} == {"0"}
    assert parts.items() <= whole.items()
    assert len(whole) == 3 + 9 * SHAPES["small"].layers


def test_silent_tokens_have_no_row_in_the_head(tmp_path: Path) -> None:
    model = gguf.GGUFReader(write_test_model(tmp_path / "model.gguf"))
    head = next(tensor.data for tensor in model.tensors if tensor.name == "output.weight")
    silent = make_vocabulary(300).silent
    assert not head[list(silent)].any()
    assert all(head[token].any() for token in range(300) if token not in silent)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", fail)
    with pytest.raises(OSError, match="disk full"):
        write_test_model(tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_vocabulary_holds_distinct_tokens_and_every_merge(shape: ModelShape) -> None:
    size = shape.vocabulary
    vocabulary = make_vocabulary(size)
    assert len(vocabulary.tokens) == len(set(vocabulary.tokens)) == len(vocabulary.types) == size
    assert vocabulary.tokens[-3:] == CONTROLS
    for merge in vocabulary.merges:
        left, right = merge.split(" ")
        assert {left, right, left + right} <= set(vocabulary.tokens)


@pytest.mark.slow
def test_medium_model_is_the_same_on_every_machine(tmp_path: Path) -> None:
    path = write_test_model(tmp_path / "medium.gguf", "medium")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == "07ea065909f36a8ee6f234a7f2865eaf23526f6a84a808bcb63a664747152d0b"
