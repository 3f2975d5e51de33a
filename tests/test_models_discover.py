"""GGUF files where other programs keep them, by the names people know."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from velollm_core.models.discover import Keeper, Root, default_roots, discover_ggufs


def gguf(path: Path, size: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF".ljust(size, b"\0"))
    return path


def names(root: Path, keeper: Keeper) -> list[str]:
    return [model.name for model in discover_ggufs([Root(keeper, root)])]


def test_hugging_face_files_are_named_by_repository_and_counted_once(tmp_path: Path) -> None:
    blob = gguf(tmp_path / "models--org--tiny-GGUF/blobs/abc", 321)
    for revision in ("one", "two"):
        link = tmp_path / f"models--org--tiny-GGUF/snapshots/{revision}/q4/tiny.gguf"
        link.parent.mkdir(parents=True)
        link.symlink_to(blob)
    (found,) = discover_ggufs([Root("huggingface", tmp_path)])
    assert (found.name, found.size, found.keeper) == ("org/tiny-GGUF/q4/tiny.gguf", 321, "huggingface")


def test_a_split_model_is_its_first_part_with_the_size_of_all(tmp_path: Path) -> None:
    for part in (1, 2, 3):
        gguf(tmp_path / f"big-0000{part}-of-00003.gguf", 100 * part)
    gguf(tmp_path / "cut-00001-of-00002.gguf")
    (found,) = discover_ggufs([Root("llamacpp", tmp_path)])
    assert (found.path.name, found.size) == ("big-00001-of-00003.gguf", 600)


def test_what_is_no_model_is_passed_over(tmp_path: Path) -> None:
    for name in ("mmproj-f16.gguf", "ggml-vocab-llama.gguf", "adapter-lora-f16.gguf"):
        gguf(tmp_path / name)
    (tmp_path / "half.gguf").write_bytes(b"GG")
    (tmp_path / "page.gguf").write_bytes(b"<html>")
    (tmp_path / "notes.txt").write_bytes(b"GGUF")
    (tmp_path / "folder.gguf").mkdir()
    assert names(tmp_path, "lmstudio") == []


def manifest(root: Path, place: str, layers: object) -> None:
    path = root / "manifests" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"layers": layers}))


def test_ollama_blobs_have_the_names_of_their_manifests(tmp_path: Path) -> None:
    gguf(tmp_path / "blobs/sha256-aa", 50)
    gguf(tmp_path / "blobs/sha256-bb", 60)
    model = {"mediaType": "application/vnd.ollama.image.model"}
    manifest(tmp_path, "registry.ollama.ai/library/llama3.2/3b", [model | {"digest": "sha256:aa"}])
    manifest(tmp_path, "registry.ollama.ai/me/mine/latest", [model | {"digest": "sha256:bb"}])
    manifest(tmp_path, "hf.co/org/repo/Q4_K_M", [model | {"digest": "sha256:missing"}])
    assert names(tmp_path, "ollama") == ["llama3.2:3b", "me/mine:latest"]


@pytest.mark.parametrize("layers", [None, 7, [7], [{}], [{"mediaType": "x", "digest": 1}]])
def test_a_strange_manifest_is_passed_over(tmp_path: Path, layers: object) -> None:
    manifest(tmp_path, "registry.ollama.ai/library/odd/latest", layers)
    (tmp_path / "manifests/junk").write_bytes(b"\xff{")
    assert names(tmp_path, "ollama") == []


def test_absent_and_unreadable_folders_cost_nothing(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    gguf(closed / "model.gguf")
    closed.chmod(0)
    try:
        found = names(closed, "llamacpp")
    finally:
        closed.chmod(0o700)
    assert found in ([], ["model.gguf"] if os.geteuid() == 0 else [])
    assert names(tmp_path / "nowhere", "huggingface") == []


def test_the_usual_places_follow_the_environment(tmp_path: Path) -> None:
    plain = {root.keeper: root.path for root in reversed(default_roots({}, tmp_path))}
    assert plain["huggingface"] == tmp_path / ".cache/huggingface/hub"
    assert plain["ollama"] == tmp_path / ".ollama/models"
    if sys.platform != "darwin":
        assert plain["llamacpp"] == tmp_path / ".cache/llama.cpp"
    moved = {"HF_HOME": "/data/hf", "LLAMA_CACHE": "/data/llama", "OLLAMA_MODELS": "/data/ollama"}
    found = {root.path for root in default_roots(moved, tmp_path)}
    assert {Path("/data/hf/hub"), Path("/data/llama"), Path("/data/ollama")} <= found


def test_the_same_file_under_two_roots_is_one_model(tmp_path: Path) -> None:
    gguf(tmp_path / "a/model.gguf")
    roots = [Root("llamacpp", tmp_path), Root("lmstudio", tmp_path / "a")]
    assert [model.name for model in discover_ggufs(roots)] == ["a/model.gguf"]
