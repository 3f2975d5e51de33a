"""The command that is printed is one that llama-server takes."""

from __future__ import annotations

import pytest
from attrs import evolve

from velollm_core.models.load import LoadSettings
from velollm_core.planning.server_command import server_arguments, server_command

# The options of llama-server b11434 that a plan may use.
KNOWN = {"-m", "-mu", "-hfr", "-hff", "-c", "-np", "--kv-unified", "--no-kv-unified", "-ctk", "-ctv", "-fa", "-b"}
KNOWN |= {"-ub", "--swa-full", "-ngl", "--n-cpu-moe", "--fit"}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/models/with space.gguf", "-m '/models/with space.gguf'"),
        ("hf:org/repo/sub/model.gguf", "-hfr org/repo -hff sub/model.gguf"),
        ("https://host/model.gguf", "-mu https://host/model.gguf"),
    ],
)
def test_a_model_is_named_as_the_server_finds_it(dense, source: str, words: str) -> None:
    command = server_command(evolve(dense(), source=source), LoadSettings(4096, gpu_layers=33))
    assert command == f"llama-server {words} -c 4096 -np 1 -ngl 33 --fit off"


def test_another_revision_is_named_by_its_url(dense) -> None:
    words = server_arguments(evolve(dense(), source="hf:org/repo/model.gguf@abc123"), LoadSettings(4096))
    assert words is not None
    assert words[1] == "-mu"
    assert words[2].startswith("http")
    assert words[2].endswith("/org/repo/resolve/abc123/model.gguf")


def test_what_it_cannot_load_has_no_command(dense) -> None:
    assert server_command(evolve(dense(), format="safetensors"), LoadSettings(4096)) is None
    assert server_command(evolve(dense(), format="ollama", source="llama3:8b"), LoadSettings(4096)) is None
    assert server_command(evolve(dense(), source="hf:org/repo"), LoadSettings(4096)) is None


def test_every_option_is_one_that_the_server_knows(dense) -> None:
    load = LoadSettings(
        8192,
        parallel=4,
        kv_unified=True,
        type_k="q8_0",
        type_v="q4_0",
        flash_attn="on",
        batch=4096,
        ubatch=1024,
        swa_full=True,
        gpu_layers=20,
        cpu_moe_layers=3,
    )
    words = server_arguments(dense(), load)
    assert words is not None
    assert {word for word in words[1:] if word.startswith("-")} <= KNOWN
    assert words[words.index("--n-cpu-moe") + 1] == "3"
    assert "-np" not in (server_arguments(dense(), evolve(load, parallel=None)) or ())
