"""Ollama's hooks and where they look."""

from __future__ import annotations

import pytest
import velollm_ollama.plugin
from velollm_ollama.backend import OllamaBackend

from velollm_core.testing import PluginContract


class TestPlugin(PluginContract):
    plugin = velollm_ollama.plugin


@pytest.mark.parametrize(
    ("host", "url"),
    [
        (None, "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("http://box", "http://box:80"),
        ("box", "http://box:11434"),
    ],
)
def test_the_address_is_ollamas_own(monkeypatch: pytest.MonkeyPatch, host: str | None, url: str) -> None:
    monkeypatch.delenv("VELOLLM_OLLAMA_URL", raising=False)
    if host is None:
        monkeypatch.delenv("OLLAMA_HOST", raising=False)
    else:
        monkeypatch.setenv("OLLAMA_HOST", host)
    [backend] = velollm_ollama.plugin.detect()
    assert isinstance(backend, OllamaBackend)
    assert backend.url == url


def test_velollms_own_variable_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "box")
    monkeypatch.setenv("VELOLLM_OLLAMA_URL", "http://other:1")
    [backend] = velollm_ollama.plugin.detect()
    assert isinstance(backend, OllamaBackend)
    assert backend.url == "http://other:1"
