"""The tables against the names and defaults recorded from every release's own source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from velollm_ollama import catalogue
from velollm_ollama.tables.names import ELSEWHERE, NEVER
from velollm_ollama.version import Version, parse_version

SOURCE = json.loads((Path(__file__).parent / "recordings" / "source_names.json").read_text(encoding="utf-8"))


def version(text: str) -> Version:
    found = parse_version(text)
    assert found is not None
    return found


@pytest.mark.parametrize("release", SOURCE["names"])
def test_the_names_of_each_release_are_exactly_those_its_source_reads(release: str) -> None:
    assert sorted(catalogue.variables_in(version(release))) == SOURCE["names"][release]


@pytest.mark.parametrize("name", SOURCE["defaults"])
def test_defaults_change_when_they_changed_in_the_source(name: str) -> None:
    variable = catalogue.find(name)
    assert variable is not None
    for since, default in SOURCE["defaults"][name]:
        assert variable.default_in(version(since)) == default


def test_a_development_build_reads_what_the_newest_release_reads() -> None:
    assert catalogue.variables_in(version("0.0.0")).keys() == catalogue.variables_in(None).keys()
    assert version("0.0.0").development
    assert version("0.0.0").engine == "llama-server"


@pytest.mark.parametrize("name", [*NEVER, "OLLAMA_NUM_GPUS", "OLLAMA_FLASH_ATTN"])
def test_names_that_never_were_are_in_no_release(name: str) -> None:
    assert all(name not in names for names in SOURCE["names"].values())
    for release in SOURCE["names"]:
        assert catalogue.why_not(name, version(release))


def test_every_reason_says_what_to_do() -> None:
    modern, old = version("0.33.0"), version("0.24.0")
    assert "OLLAMA_CONTEXT_LENGTH" in (catalogue.why_not("OLLAMA_NUM_CTX", modern) or "")
    assert "gone since 0.30.0" in (catalogue.why_not("OLLAMA_NEW_ENGINE", modern) or "")
    assert catalogue.why_not("OLLAMA_NEW_ENGINE", old) is None
    assert "came with 0.30.0" in (catalogue.why_not("OLLAMA_IGPU_ENABLE", old) or "")
    assert "OLLAMA_FLASH_ATTENTION" in (catalogue.why_not("OLLAMA_FLASH_ATTENTON", modern) or "")
    assert catalogue.why_not("LLAMA_ARG_CACHE_RAM", modern) is None
    assert "from 0.30" in (catalogue.why_not("LLAMA_ARG_CACHE_RAM", old) or "")
    assert "flag wins" in (catalogue.why_not("LLAMA_ARG_CTX_SIZE", modern) or "")
    assert "flag wins" in (catalogue.why_not("LLAMA_ARG_LOG_FILE", modern) or "")
    assert "not known" in (catalogue.why_not("LLAMA_ARG_NO_SUCH", modern) or "")
    assert all(catalogue.why_not(name, modern) is None for name in ELSEWHERE)


@pytest.mark.parametrize(
    ("text", "triple", "engine"),
    [
        ("0.24.0", (0, 24, 0), "runners"),
        ("v0.29.9", (0, 29, 9), "runners"),
        ("0.30.0-rc5", (0, 30, 0), "llama-server"),
        ("0.33.3", (0, 33, 3), "llama-server"),
        ("1.0.0", (1, 0, 0), "llama-server"),
        ("0.0.0", (0, 0, 0), "llama-server"),
    ],
)
def test_versions(text: str, triple: tuple[int, int, int], engine: str) -> None:
    found = version(text)
    assert (found.triple, found.engine) == (triple, engine)
    assert found.newer_than_read == (triple in ((1, 0, 0), (0, 0, 0)))


@pytest.mark.parametrize("text", ["", None, "latest", "0.33", "٠.٣٣.٠", "x0.33.0"])
def test_other_texts_are_no_version(text: str | None) -> None:
    assert parse_version(text) is None
