"""A server's environment: from this shell, a log, a process; merged; written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from velollm_ollama.config import OllamaConfig
from velollm_ollama.version import Version

from velollm_core.errors import VeloError

MODERN = Version(0, 33, 0)


def test_from_env_keeps_only_what_is_ollamas(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("OLLAMA_", "LLAMA_ARG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OLLAMA_NUM_PARALLEL", "4")
    monkeypatch.setenv("LLAMA_ARG_CACHE_RAM", "64")
    monkeypatch.setenv("UNRELATED", "1")
    config = OllamaConfig.from_env(version=MODERN)
    assert {"OLLAMA_NUM_PARALLEL", "LLAMA_ARG_CACHE_RAM"} <= config.settings.keys()
    assert "UNRELATED" not in config.typed
    assert config.read["OLLAMA_NUM_PARALLEL"] == "4"


def test_from_env_reads_as_ollama_reads() -> None:
    config = OllamaConfig.from_env(
        {"OLLAMA_FLASH_ATTENTION": "off", "OLLAMA_CONTEXT_LENGTH": "8k", "OLLAMA_KEEP_ALIVE": "soon"}, MODERN
    )
    assert config.read["OLLAMA_FLASH_ATTENTION"] == "true"
    assert config.read["OLLAMA_CONTEXT_LENGTH"] == "0"
    assert config.read["OLLAMA_KEEP_ALIVE"] == "5m0s"
    assert [finding.severity for finding in config.lint()] == ["error"] * 3


@pytest.mark.parametrize(
    ("version", "context", "parallel"),
    [(Version(0, 9, 0), "4096", "0"), (Version(0, 13, 0), "4096", "1"), (MODERN, "0", "1")],
)
def test_defaults_follow_the_version(version: Version, context: str, parallel: str) -> None:
    read = OllamaConfig.from_env({}, version).read
    assert (read["OLLAMA_CONTEXT_LENGTH"], read["OLLAMA_NUM_PARALLEL"]) == (context, parallel)


def test_the_other_wins_a_merge() -> None:
    first = OllamaConfig.from_env({"OLLAMA_NUM_PARALLEL": "4", "OLLAMA_DEBUG": "1"}, MODERN, "first")
    both = first.merge(OllamaConfig.from_env({"OLLAMA_NUM_PARALLEL": "2"}, None, "second"))
    assert both.settings == {"OLLAMA_DEBUG": "1", "OLLAMA_NUM_PARALLEL": "2"}
    assert (both.version, both.origin) == (MODERN, "first + second")


def test_a_merge_over_a_log_changes_what_is_read(recordings: Path) -> None:
    text = (recordings / "parallel_4" / "server.log").read_text(encoding="utf-8")
    merged = OllamaConfig.from_server_log(text).merge(OllamaConfig.from_env({"OLLAMA_NUM_PARALLEL": "1"}))
    assert merged.read["OLLAMA_NUM_PARALLEL"] == "1"
    assert merged.settings["OLLAMA_MODELS"] == "/models"


def test_exports_of_a_recorded_server(recordings: Path) -> None:
    text = (recordings / "env_llama_arg" / "server.log").read_text(encoding="utf-8")
    exports = OllamaConfig.from_server_log(text).to_env_exports()
    assert "export OLLAMA_KEEP_ALIVE=-1\n" in exports
    assert "export OLLAMA_NUM_PARALLEL=2\n" in exports
    assert "ORIGINS" not in exports


def test_a_setting_that_would_be_misread_is_not_exported(recordings: Path) -> None:
    text = (recordings / "env_kv_bogus" / "server.log").read_text(encoding="utf-8")
    with pytest.raises(VeloError, match="int8"):
        OllamaConfig.from_server_log(text).to_env_exports()


def test_a_process_that_is_not_there_is_one_line() -> None:
    with pytest.raises(VeloError, match="there is none"):
        OllamaConfig.from_process(2**22 + 1)
