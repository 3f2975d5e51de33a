"""The table of settings against what a real llama-server lists, and the ways to say them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from velollm_llamacpp.embedded import parameters
from velollm_llamacpp.engines import BinaryEngine, EmbeddedEngine, find_engine, listed_flags
from velollm_llamacpp.settings import BY_NAME, SETTINGS, chosen, environment, find, flags

from velollm_core.backends.setting import Setting, Value, Where
from velollm_core.errors import BackendError

VALUES: dict[str, Value] = {
    "--ctx-size": 4096,
    "--kv-unified": False,
    "--swa-full": True,
    "--flash-attn": "on",
    "--cache-ram": -1,
    "--load-mode": "none",
}


def setting(name: str, value: Value, where: Where = "flag") -> Setting:
    return Setting(name, value, where, "a test", "rule")


@pytest.fixture
def help_text(recordings: Path) -> str:
    return (recordings / "help_b11434.txt").read_text()


def test_llama_server_lists_every_flag_of_the_table(help_text: str) -> None:
    listed = listed_flags(help_text)
    spelled = {each for known in SETTINGS for each in (known.name, *known.aliases, known.negative) if each}
    assert spelled <= listed
    assert "--threads" in listed
    assert not {"--", "-", "-1", "--nonsense"} & listed


def test_llama_server_lists_every_variable_of_the_table(help_text: str) -> None:
    for known in SETTINGS:
        assert not known.env or f"(env: {known.env})" in help_text, known.name
    assert [known.name for known in SETTINGS if not known.env] == ["--threads-batch"]


def test_the_library_has_every_field_of_the_table() -> None:
    xllamacpp = pytest.importorskip("xllamacpp")
    for known in SETTINGS:
        owner: Any = xllamacpp.CommonParams()
        for part in known.field.split("."):
            owner = getattr(owner, part)


def test_flags_and_variables_say_the_same() -> None:
    assert flags(VALUES) == [
        *("--ctx-size", "4096", "--no-kv-unified", "--swa-full", "--flash-attn", "on"),
        *("--cache-ram", "-1", "--load-mode", "none"),
    ]
    assert environment(VALUES)["LLAMA_ARG_KV_UNIFIED"] == "false"
    assert environment(VALUES)["LLAMA_ARG_CTX_SIZE"] == "4096"
    assert len({known.env for known in SETTINGS}) == len(SETTINGS)


def test_a_flag_is_spelled_as_the_server_knows_it() -> None:
    assert flags({"--spec-draft-model": "d.gguf"}, frozenset({"--model-draft"})) == ["--model-draft", "d.gguf"]


@pytest.mark.parametrize("name", ["-c", "--ctx-size", "LLAMA_ARG_CTX_SIZE"])
def test_every_spelling_finds_its_setting(name: str) -> None:
    assert find(name).name == "--ctx-size"
    assert chosen([setting(name, 512)]) == {"--ctx-size": 512}


def test_settings_of_single_requests_do_not_start_a_server() -> None:
    assert chosen([setting("temperature", 0.5, "request")]) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("--ctx-size", -1),
        ("--ctx-size", True),
        ("--ctx-size", 1.5),
        ("--ctx-size", None),
        ("--kv-unified", "yes"),
        ("--cache-type-k", "q6_k"),
        ("--override-tensor", "exps=CPU\n--host 0.0.0.0"),
        ("--override-tensor", ""),
        ("num_ctx", 5),
        ("OLLAMA_NUM_CTX", 5),
    ],
)
def test_what_the_server_would_not_take_is_one_clear_line(name: str, value: Value) -> None:
    with pytest.raises(BackendError) as raised:
        chosen([setting(name, value)])
    assert len(str(raised.value).splitlines()) == 1
    assert raised.value.kind == "setting"


@given(st.sampled_from(SETTINGS), st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()))
def test_any_value_is_taken_or_refused(known: Any, value: Value) -> None:
    try:
        values = chosen([setting(known.name, value)])
    except BackendError:
        return
    assert all(isinstance(word, str) and "\n" not in word for word in flags(values))
    assert len(environment(values)) == bool(known.env)


def test_the_library_takes_every_value() -> None:
    pytest.importorskip("xllamacpp")
    values: dict[str, Value] = {
        **VALUES,
        "--cache-type-k": "iq4_nl",
        "--spec-type": "draft-simple",
        "--spec-draft-model": "d.gguf",
        "--n-cpu-moe": 2,
        "--override-tensor": "output=CPU",
        "--fit": "off",
        "--threads": 3,
    }
    params = parameters({"model": "m.gguf", "host": "127.0.0.1", "port": 5, "values": values})
    assert (params.n_ctx, params.n_parallel, params.cpuparams.n_threads) == (4096, -1, 3)
    assert (params.kv_unified, params.swa_full, params.fit_params) == (False, True, False)
    assert params.cache_type_k.name == "GGML_TYPE_IQ4_NL"
    assert params.flash_attn_type.name.endswith("ENABLED")
    assert params.speculative.draft.mparams.path == "d.gguf"
    assert params.tensor_buft_overrides.count("=CPU") == 3


@pytest.mark.parametrize("known", [known for known in SETTINGS if known.kind == "choice"], ids=lambda known: known.name)
def test_the_library_knows_every_choice(known: Any) -> None:
    pytest.importorskip("xllamacpp")
    for choice in known.choices:
        parameters({"model": "m.gguf", "host": "127.0.0.1", "port": 5, "values": {known.name: choice}})


def test_an_older_server_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    old = "-c,    --ctx-size N                     size\n--no-mmap                               do not\n"
    monkeypatch.setattr("velollm_llamacpp.engines.answer_of", lambda command: old)
    engine = BinaryEngine("/opt/llama-server")
    command = engine.command("m.gguf", {"--ctx-size": 512, "--load-mode": "none"}, 8081)
    assert command[-3:] == ["--ctx-size", "512", "--no-mmap"]
    with pytest.raises(BackendError, match="does not know --fit"):
        engine.command("m.gguf", {"--fit": "off"}, 8081)


def test_what_is_asked_for_is_found_or_told(pretender: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    program = pretender("well")
    engine = find_engine(program)
    assert isinstance(engine, BinaryEngine)
    assert engine.version == "1 (pretended)"
    monkeypatch.setenv("PATH", str(Path(program).parent))
    found = find_engine(None)
    assert found is not None
    assert found.location == program
    assert isinstance(find_engine("embedded"), EmbeddedEngine)
    with pytest.raises(BackendError, match="not a program"):
        find_engine("/nowhere")


def test_devices_are_told_from_their_list(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = "Available devices:\n  CUDA0: NVIDIA H100 80GB HBM3 (81089 MiB, 80000 MiB free)\n"
    monkeypatch.setattr("velollm_llamacpp.engines.answer_of", lambda command: listed)
    assert BinaryEngine("/opt/llama-server").offloads()
    monkeypatch.setattr("velollm_llamacpp.engines.answer_of", lambda command: "Available devices:\n  (none)\n")
    assert not BinaryEngine("/opt/llama-server").offloads()


def test_negative_flags_are_no_settings_of_their_own() -> None:
    assert BY_NAME["--no-kv-unified"] is BY_NAME["--kv-unified"]
