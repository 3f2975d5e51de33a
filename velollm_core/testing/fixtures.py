"""The kit as pytest fixtures, for whoever asks for them with ``pytest_plugins = ["velollm_core.testing"]``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from velollm_core.hardware.machine import Hardware
from velollm_core.testing.fake_server import FakeServer
from velollm_core.testing.install import Outcome, run_cli
from velollm_core.testing.plugin_contract import some_hardware
from velollm_core.testing.reply import Answer


@pytest.fixture
def fake_server() -> Iterator[Callable[[Mapping[str, Answer]], FakeServer]]:
    """Start scripted servers, which end with the test: ``fake_server(routes).url``."""
    with ExitStack() as servers:
        yield lambda routes: servers.enter_context(FakeServer(routes))


@pytest.fixture
def velollm(tmp_path: Path) -> Callable[..., Outcome]:
    """Run the command with configuration, cache and state of its own: ``velollm("plugins", "--json")``."""

    def run(*arguments: str | Path, **options: object) -> Outcome:
        return run_cli(*arguments, **{"home": tmp_path / "home", **options})  # type: ignore[arg-type]

    return run


@pytest.fixture
def hardware() -> Hardware:
    """A plain machine without a GPU."""
    return some_hardware()
