"""LocalAI's hooks and where they look."""

from __future__ import annotations

import pytest
import velollm_localai.plugin
from velollm_localai.backend import LocalAIBackend

from velollm_core.testing import PluginContract


class TestPlugin(PluginContract):
    plugin = velollm_localai.plugin


def test_the_default_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VELOLLM_LOCALAI_URL", raising=False)
    (backend,) = velollm_localai.plugin.detect()
    assert isinstance(backend, LocalAIBackend)
    assert backend.url == "http://127.0.0.1:8080"


def test_the_configured_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELOLLM_LOCALAI_URL", "gpu-box:9090/v1/")
    (backend,) = velollm_localai.plugin.detect()
    assert isinstance(backend, LocalAIBackend)
    assert backend.url == "http://gpu-box:9090"
