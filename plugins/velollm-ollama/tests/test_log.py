"""The start log of every recorded server, read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from velollm_ollama.config import OllamaConfig
from velollm_ollama.log import BadValue, ServerLog, read_log, split_map
from velollm_ollama.logfmt import fields, unquote
from velollm_ollama.version import Version

from velollm_core.errors import VeloError

FOREVER = "2562047h47m16.854775807s"
RECORDED = {
    "api": {"OLLAMA_DEBUG": "DEBUG", "OLLAMA_NUM_PARALLEL": "1"},
    "env_fa_0_kv_q8": {"OLLAMA_FLASH_ATTENTION": "false", "OLLAMA_KV_CACHE_TYPE": "q8_0"},
    "env_fa_off_word_kv_q8_par4": {
        "OLLAMA_FLASH_ATTENTION": "true",
        "OLLAMA_KV_CACHE_TYPE": "Q8_0",
        "OLLAMA_NUM_PARALLEL": "4",
        "OLLAMA_CONTEXT_LENGTH": "1024",
    },
    "env_kv_bogus": {"OLLAMA_KV_CACHE_TYPE": "int8"},
    "env_llama_arg": {
        "OLLAMA_FLASH_ATTENTION": "true",
        "OLLAMA_KEEP_ALIVE": FOREVER,
        "OLLAMA_NUM_PARALLEL": "2",
        "LLAMA_ARG_FIT": "",
    },
    "env_max_queue_1": {"OLLAMA_MAX_QUEUE": "1"},
    "env_quirks": {
        "OLLAMA_NUM_PARALLEL": "1",
        "OLLAMA_CONTEXT_LENGTH": "0",
        "OLLAMA_KEEP_ALIVE": "5m0s",
        "OLLAMA_GPU_OVERHEAD": "0",
        "OLLAMA_MAX_QUEUE": "512",
        "OLLAMA_LOAD_TIMEOUT": FOREVER,
        "OLLAMA_SCHED_SPREAD": "true",
        "OLLAMA_NOHISTORY": "true",
        "OLLAMA_DEBUG": "DEBUG-4",
    },
    "faults": {"OLLAMA_DEBUG": "DEBUG"},
    "parallel_4": {"OLLAMA_NUM_PARALLEL": "4"},
    "queue_full": {"OLLAMA_MAX_QUEUE": "1"},
    "repeats": {"OLLAMA_NUM_PARALLEL": "1"},
}


def server_log(recordings: Path, folder: str) -> ServerLog:
    return read_log((recordings / folder / "server.log").read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", RECORDED)
def test_every_recorded_start(recordings: Path, folder: str) -> None:
    log = server_log(recordings, folder)
    assert log.version == Version(0, 33, 0)
    assert len(log.values) == 39
    assert {name: log.values[name] for name in RECORDED[folder]} == RECORDED[folder]
    assert log.values["OLLAMA_HOST"] == f"http://{log.address}"
    assert log.values["OLLAMA_ORIGINS"].endswith("vscode-file://*]")
    assert log.values["OLLAMA_MODELS"] == "/models"
    assert log.default_context == 4096
    assert log.devices[0]["library"] == "cpu"


@pytest.mark.parametrize("folder", RECORDED)
def test_our_rules_make_of_the_settings_what_the_server_made_of_them(recordings: Path, folder: str) -> None:
    config = OllamaConfig.from_log(server_log(recordings, folder))
    again = OllamaConfig.from_env(config.typed, config.version)
    assert {name: value for name, value in again.read.items() if name in config.logged} == dict(config.logged)


def test_values_that_were_not_taken_are_named_with_what_replaced_them(recordings: Path) -> None:
    assert server_log(recordings, "env_quirks").warnings == (
        BadValue("OLLAMA_GPU_OVERHEAD", "8G", "0"),
        BadValue("OLLAMA_MAX_QUEUE", "-1", "512"),
        BadValue("OLLAMA_NUM_PARALLEL", "2x", "1"),
        BadValue("OLLAMA_CONTEXT_LENGTH", "8k", "0"),
    )
    assert server_log(recordings, "api").warnings == ()


def test_loads_that_succeeded(recordings: Path) -> None:
    [load] = server_log(recordings, "env_fa_off_word_kv_q8_par4").loads
    assert (load.child.context, load.child.slots, load.child.flash_attention) == (4096, 4, "on")
    assert (load.child.type_k, load.child.type_v, load.child.batch) == ("q8_0", "q8_0", 512)
    assert (load.slots, load.context_per_slot, load.unified, load.flash_attention) == (4, 1024, False, True)
    assert load.prompt_cache == 8192 * 2**20
    assert load.buffers["CPU KV"] == int(4.25 * 2**20)
    assert load.failure is None


def test_llama_cpps_own_variables_reached_the_child(recordings: Path) -> None:
    [load] = server_log(recordings, "env_llama_arg").loads
    assert (load.unified, load.prompt_cache, load.child.context) == (True, 64 * 2**20, 4096)


def test_loads_that_failed_say_why(recordings: Path) -> None:
    [flash] = server_log(recordings, "env_fa_0_kv_q8").loads
    assert "quantized V cache requires flash_attn" in (flash.failure or "")
    assert flash.child.flash_attention == "off"
    [bogus] = server_log(recordings, "env_kv_bogus").loads
    assert "Unsupported cache type: int8" in (bogus.failure or "")


def test_a_child_that_was_killed_and_its_successor(recordings: Path) -> None:
    assert len(server_log(recordings, "faults").loads) == 2


def test_the_last_start_counts_and_a_journals_prefix_does_not_matter(recordings: Path) -> None:
    first = (recordings / "env_quirks" / "server.log").read_text(encoding="utf-8")
    second = (recordings / "parallel_4" / "server.log").read_text(encoding="utf-8")
    log = read_log("\n".join(f"Nov 22 13:14:13 box ollama[7]: {line}" for line in (first + second).splitlines()))
    assert log.values["OLLAMA_NUM_PARALLEL"] == "4"
    assert log.warnings == ()


def test_a_runner_before_0_30_prints_its_settings_as_one_structure() -> None:
    text = (
        'time=2026-01-01T00:00:00Z level=INFO source=routes.go:1 msg="server config" env="map[OLLAMA_NUM_PARALLEL:2]"\n'
        'time=2026-01-01T00:00:00Z level=INFO source=r.go:1 msg="Listening on 127.0.0.1:11434 (version 0.24.0)"\n'
        'time=2026-01-01T00:00:00Z level=INFO source=runner.go:1297 msg=load request="{Operation:commit LoraPath:[] '
        "Parallel:2 BatchSize:512 FlashAttention:Enabled KvSize:8192 KvCacheType:q8_0 NumThreads:6 "
        'GPULayers:29[ID:GPU-1 Layers:29(0..28)] MultiUserCache:false ProjectorPath: MainGPU:0 UseMmap:false}"\n'
    )
    log = read_log(text)
    assert log.version == Version(0, 24, 0)
    [load] = log.loads
    assert (load.child.context, load.child.slots, load.child.context_per_slot) == (8192, 2, 4096)
    assert (load.child.type_k, load.child.flash_attention, load.child.threads) == ("q8_0", "on", 6)


def test_a_log_without_a_start_is_refused() -> None:
    assert read_log("hello\nworld") == ServerLog()
    with pytest.raises(VeloError, match="no start"):
        OllamaConfig.from_server_log("hello")


def test_values_may_hold_spaces_and_colons_and_new_names_split_too() -> None:
    found = split_map("map[OLLAMA_NEW:1 OLLAMA_ORIGINS:[http://a https://b:*] OLLAMA_X: http_proxy:http://p:1]")
    assert found == {
        "OLLAMA_NEW": "1",
        "OLLAMA_ORIGINS": "[http://a https://b:*]",
        "OLLAMA_X": "",
        "http_proxy": "http://p:1",
    }


@given(
    st.dictionaries(
        st.sampled_from(["OLLAMA_HOST", "OLLAMA_MODELS", "CUDA_VISIBLE_DEVICES"]),
        st.from_regex(r"[a-z/:. ]{0,12}", fullmatch=True),
    )
)
def test_a_printed_map_reads_back(values: dict[str, str]) -> None:
    printed = "map[" + " ".join(f"{name}:{values[name]}" for name in sorted(values)) + "]"
    assert split_map(printed) == values


def test_quoted_fields() -> None:
    assert fields(r'time=1 msg="a \"b\" c" error="x\ny" k=v empty=') == {
        "time": "1",
        "msg": 'a "b" c',
        "error": "x\ny",
        "k": "v",
        "empty": "",
    }
    assert unquote('"a\\') == '"a\\'


@settings(max_examples=50)
@given(st.text(max_size=200))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    read_log(text)
    read_log(f'msg="server config" env="{text}"\n{text}')
