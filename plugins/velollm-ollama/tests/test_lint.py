"""What Ollama would misread, ignore or fall over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from velollm_ollama.finding import Severity
from velollm_ollama.lint import lint
from velollm_ollama.version import Version

MODERN, OLD = Version(0, 33, 0), Version(0, 24, 0)


@pytest.mark.parametrize(
    ("name", "value", "severity", "words"),
    [
        ("OLLAMA_FLASH_ATTENTION", "off", "error", "true"),
        ("OLLAMA_SCHED_SPREAD", "no", "error", "true"),
        ("OLLAMA_GPU_OVERHEAD", "8G", "error", "bytes"),
        ("OLLAMA_GPU_OVERHEAD", "1073741824", "warning", "LLAMA_ARG_FIT_TARGET"),
        ("OLLAMA_CONTEXT_LENGTH", "8k", "error", "uses 0"),
        ("OLLAMA_NUM_PARALLEL", "2x", "error", "uses 1"),
        ("OLLAMA_MAX_QUEUE", "-1", "error", "512"),
        ("OLLAMA_KEEP_ALIVE", "soon", "error", "5m0s"),
        ("OLLAMA_KV_CACHE_TYPE", "int8", "error", "fails to load"),
        ("OLLAMA_DEBUG", "verbose", "error", "INFO"),
        ("OLLAMA_HOST", "http://box", "warning", "80"),
        ("OLLAMA_HOST", "box:123456", "error", "123456"),
        ("OLLAMA_MODELS", "~/models", "error", "expanded"),
        ("OLLAMA_NUM_GPU", "999", "error", "num_gpu"),
        ("OLLAMA_NEW_ENGINE", "1", "warning", "llama-server"),
        ("LLAMA_ARG_CTX_SIZE", "256", "error", "flag wins"),
    ],
)
def test_one_bad_setting(name: str, value: str, severity: Severity, words: str) -> None:
    findings = lint({name: value}, MODERN)
    assert [(found.severity, found.name, found.value) for found in findings] == [(severity, name, value)]
    assert words in findings[0].message
    assert "\n" not in str(findings[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OLLAMA_FLASH_ATTENTION", "1"),
        ("OLLAMA_KEEP_ALIVE", "-1"),
        ("OLLAMA_KEEP_ALIVE", "24h"),
        ("OLLAMA_KV_CACHE_TYPE", "Q8_0"),
        ("OLLAMA_CONTEXT_LENGTH", '"8192"'),
        ("OLLAMA_HOST", "0.0.0.0"),
        ("OLLAMA_HOST", "https://box:443"),
        ("LLAMA_ARG_CACHE_RAM", "1024"),
        ("OLLAMA_API_KEY", "secret"),
        ("PATH", "/bin"),
        ("OLLAMA_NUM_PARALLEL", ""),
    ],
)
def test_good_settings_are_left_alone(name: str, value: str) -> None:
    assert lint({name: value}, MODERN) == ()


def test_a_quantized_cache_needs_flash_attention() -> None:
    both = {"OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_FLASH_ATTENTION": "0"}
    assert ["fails to load" in found.message for found in lint(both, MODERN)] == [True]
    assert ["f16 is used" in found.message for found in lint(both, OLD)] == [True]
    assert lint({**both, "OLLAMA_FLASH_ATTENTION": "1"}, MODERN) == ()
    assert lint({**both, "OLLAMA_KV_CACHE_TYPE": "bf16"}, MODERN) == ()
    assert lint({"OLLAMA_KV_CACHE_TYPE": "q8_0"}, MODERN) == ()  # automatic turns it on


def test_the_one_cache_type_hides_the_two() -> None:
    findings = lint({"OLLAMA_KV_CACHE_TYPE": "f16", "LLAMA_ARG_CACHE_TYPE_K": "q8_0"}, MODERN)
    assert ["wins" in found.message for found in findings] == [True]


def test_versions_differ() -> None:
    assert lint({"OLLAMA_NEW_ENGINE": "1"}, OLD) == ()
    assert "from 0.30" in lint({"LLAMA_ARG_CACHE_RAM": "64"}, OLD)[0].message
    assert "f16 is used" in lint({"OLLAMA_KV_CACHE_TYPE": "q5_0"}, OLD)[0].message
    assert lint({"OLLAMA_GPU_OVERHEAD": "1"}, OLD) == ()


@given(st.dictionaries(st.text(max_size=12).map(lambda text: "OLLAMA_" + text), st.text(max_size=20), max_size=4))
def test_any_environment_can_be_looked_at(environment: dict[str, str]) -> None:
    for finding in lint(environment, MODERN):
        assert finding.message
