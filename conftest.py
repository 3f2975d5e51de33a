"""Every test has its own cache, state and configuration; tests that need a GPU run where they are asked for."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

# The kit's fixtures, for every plugin's tests; a GPU machine may have no more than the engine itself needs.
pytest_plugins = ["velollm_core.testing"] if find_spec("cattrs") else []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-gpu", action="store_true", help="run the tests marked gpu")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--run-gpu"):
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU: make gpu"))


@pytest.fixture(autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own: nothing of the user's configuration, cache or state is read or written."""
    home = tmp_path_factory.mktemp("home")
    for name in ("CONFIG", "CACHE", "STATE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    for name in [name for name in os.environ if name.startswith("VELOLLM_") and "_LLAMACPP_BINARY" not in name]:
        monkeypatch.delenv(name)
    return home
