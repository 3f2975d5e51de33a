"""vLLM's hooks and where they look."""

from __future__ import annotations

import pytest
import velollm_vllm.plugin
from velollm_vllm.backend import VllmBackend

from velollm_core.testing import PluginContract


class TestPlugin(PluginContract):
    plugin = velollm_vllm.plugin


def test_the_default_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VELOLLM_VLLM_URL", raising=False)
    (backend,) = velollm_vllm.plugin.detect()
    assert isinstance(backend, VllmBackend)
    assert backend.url == "http://127.0.0.1:8000"


def test_the_configured_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELOLLM_VLLM_URL", "https://gpu-box/v1")
    (backend,) = velollm_vllm.plugin.detect()
    assert isinstance(backend, VllmBackend)
    assert backend.url == "https://gpu-box"
