"""The settings in force, from every recorded state of a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from velollm_ollama.child import parse_command
from velollm_ollama.config import OllamaConfig
from velollm_ollama.effective import effective
from velollm_ollama.evidence import ChildReport, Effective, Evidence, LoadedModel
from velollm_ollama.log import ServerLog, read_log
from velollm_ollama.version import Version

from velollm_core.testing import read_http

Child = Callable[[str], ChildReport]
MODERN = Version(0, 33, 0)
CHILDREN = {
    "env_fa_off_word_kv_q8_par4/loaded": (4096, 4, 1024, "q8_0", "on", 512, None, None),
    "env_llama_arg/loaded": (4096, 2, 2048, "f16", "on", 512, None, None),
    "env_quirks/loaded": (2048, 1, 2048, "f16", "auto", 512, None, None),
    "faults/num_batch_0": (2048, 1, 2048, "f16", "auto", None, None, None),
    "faults/num_gpu_0": (2048, 1, 2048, "f16", "auto", 512, 0, 1),
}


def log_of(recordings: Path, folder: str) -> ServerLog:
    return read_log((recordings / folder / "server.log").read_text(encoding="utf-8"))


def state(recordings: Path, folder: str, child: ChildReport | None = None) -> Effective:
    """Everything recorded of one server, as it would be gathered from a running one."""
    process = OllamaConfig.from_env(child.environment, MODERN, "process 7") if child else None
    recorded = recordings / folder / "ps.http"
    ps = read_http(recorded).document["models"] if recorded.exists() else []
    assert isinstance(ps, list)
    loaded = tuple(LoadedModel.from_ps(entry) for entry in ps)
    children = (child,) if child else ()
    return effective(Evidence(MODERN, log_of(recordings, folder), "server log", process, children, loaded))


@pytest.mark.parametrize("name", CHILDREN)
def test_every_recorded_child(child_report: Child, name: str) -> None:
    report = child_report(f"{name}.child.txt")
    context, slots, per_slot, kind, attention, batch, layers, threads = CHILDREN[name]
    child = report.child
    assert (child.context, child.slots, child.type_k, child.flash_attention) == (context, slots, kind, attention)
    assert (child.batch, child.ubatch, child.gpu_layers, child.threads) == (batch, batch, layers, threads)
    assert (report.slots, report.context_per_slot, report.busy) == (slots, per_slot, 0)
    assert report.build == "b1-0c1e570"
    assert child.context_per_slot == context // slots
    assert child.load_mode == (None if name == "faults/num_gpu_0" else "none")


def test_quirks_become_what_they_became(recordings: Path, child_report: Child) -> None:
    found = state(recordings, "env_quirks", child_report("env_quirks/loaded.child.txt"))
    values = {entry.name: (entry.value, entry.note) for entry in found.settings if entry.model is None}
    assert values["OLLAMA_NUM_PARALLEL"] == ("1", "written '2x'")
    assert values["OLLAMA_CONTEXT_LENGTH"] == ("4096", "automatic, by the GPUs' memory")
    assert values["OLLAMA_KEEP_ALIVE"][0] == "5m0s"
    assert values["OLLAMA_GPU_OVERHEAD"] == ("0", "written '8G'")
    assert values["OLLAMA_SCHED_SPREAD"] == ("true", "written 'no'")
    assert values["OLLAMA_FLASH_ATTENTION"] == ("auto", None)
    wrong = {finding.name for finding in found.findings}
    assert {"OLLAMA_NUM_GPU", "OLLAMA_NUM_CTX", "OLLAMA_NUM_BATCH", "OLLAMA_NUM_THREAD"} <= wrong
    assert {"OLLAMA_NUM_PARALLEL", "OLLAMA_CONTEXT_LENGTH", "OLLAMA_KEEP_ALIVE", "OLLAMA_SCHED_SPREAD"} <= wrong


def test_what_passes_through_and_what_does_not(recordings: Path, child_report: Child) -> None:
    found = state(recordings, "env_llama_arg", child_report("env_llama_arg/loaded.child.txt"))
    model = {entry.name: (entry.value, entry.source) for entry in found.settings if entry.model}
    assert model["num_ctx"] == ("2048", "/api/ps")
    assert model["slots"] == ("2", "child's /slots")
    assert model["num_thread"] == ("1", "LLAMA_ARG_THREADS")
    assert model["prompt cache"] == ("64 MiB", "server log")
    assert model["unified KV"] == ("true", "server log")
    passed = found.get("LLAMA_ARG_CACHE_RAM")
    assert passed is not None
    assert passed.value == "64"
    assert found.get("LLAMA_ARG_CTX_SIZE") is None
    assert any(finding.name == "LLAMA_ARG_CTX_SIZE" and "flag wins" in finding.message for finding in found.findings)
    keep = found.get("OLLAMA_KEEP_ALIVE")
    assert keep is not None
    assert keep.value == "2562047h47m16.854775807s"


def test_the_word_off_is_on_and_says_so(recordings: Path, child_report: Child) -> None:
    found = state(recordings, "env_fa_off_word_kv_q8_par4", child_report("env_fa_off_word_kv_q8_par4/loaded.child.txt"))
    attention = found.get("OLLAMA_FLASH_ATTENTION")
    assert attention is not None
    assert (attention.value, attention.note) == ("on", "written 'off'")
    kind = found.get("OLLAMA_KV_CACHE_TYPE")
    assert kind is not None
    assert kind.value == "Q8_0"
    model = {entry.name: entry.value for entry in found.settings if entry.model}
    assert (model["slots"], model["context per slot"], model["KV type K"]) == ("4", "1024", "q8_0")


def test_off_and_automatic_are_one_word_in_the_log(recordings: Path) -> None:
    off = state(recordings, "env_fa_0_kv_q8").get("OLLAMA_FLASH_ATTENTION")
    auto = state(recordings, "parallel_4").get("OLLAMA_FLASH_ATTENTION")
    assert off is not None
    assert auto is not None
    assert (off.value, auto.value) == ("off", "auto")
    assert "command line" in off.source
    started = read_log('msg="server config" env="map[OLLAMA_FLASH_ATTENTION:false]"')
    nothing_loaded = effective(Evidence(MODERN, started))
    unsure = nothing_loaded.get("OLLAMA_FLASH_ATTENTION")
    assert unsure is not None
    assert "both" in (unsure.note or "")


@pytest.mark.parametrize(("folder", "words"), [("env_fa_0_kv_q8", "flash_attn"), ("env_kv_bogus", "int8")])
def test_loads_that_fail_are_findings(recordings: Path, folder: str, words: str) -> None:
    errors = [finding.message for finding in state(recordings, folder).findings if finding.severity == "error"]
    assert any(words in message for message in errors)
    assert all("\n" not in message for message in errors)


def test_nothing_known_gives_the_versions_defaults() -> None:
    for version, context in ((Version(0, 13, 0), "4096"), (MODERN, "automatic")):
        entry = effective(Evidence(version)).get("OLLAMA_CONTEXT_LENGTH")
        assert entry is not None
        assert (entry.value, entry.source) == (context, f"default of {version}")


def test_an_export_in_this_shell_does_not_reach_the_server(recordings: Path) -> None:
    shell = OllamaConfig.from_env({"OLLAMA_NUM_PARALLEL": "8", "OLLAMA_MAX_QUEUE": "512", "OLLAMA_HOST": "x"}, MODERN)
    found = effective(Evidence(MODERN, log_of(recordings, "parallel_4"), shell=shell))
    assert [(finding.name, finding.message) for finding in found.findings] == [
        ("OLLAMA_NUM_PARALLEL", "set in this shell, but the server runs with 4")
    ]


def test_a_loaded_models_share_on_the_gpu() -> None:
    loaded = LoadedModel.from_ps({"name": "m", "size": 1000, "size_vram": 250, "context_length": 4096})
    entries = {entry.name: entry for entry in effective(Evidence(MODERN, loaded=(loaded,))).settings if entry.model}
    assert entries["size"].note == "25% on GPU"
    assert entries["num_ctx"].value == "4096"


def test_other_command_lines_are_no_children() -> None:
    assert parse_command("") is None
    assert parse_command("/usr/bin/ollama serve") is None
    assert parse_command("/x/llama-server --version") is None
    assert parse_command('"/x/llama-server --model') is None
    found = parse_command([r"C:\ollama\llama-server.exe", "--model", "m", "-c", "bad", "-ngl", "99", "--main-gpu", "1"])
    assert found is not None
    assert (found.context, found.gpu_layers, found.main_gpu) == (None, 99, 1)
