"""A stranger's plugin that misbehaves costs one line on stderr; every command still works. Run as users run it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from velollm_core.testing import Outcome, install_plugin, run_cli

HEAD = "from velollm_core.hookspecs import hookimpl\nfrom velollm_core.backends.status import Status\n"
BACKEND = """
class Backend:
    name = "strange"
    async def status(self): {status}
    async def stream(self, request):
        yield None
    async def close(self): pass

@hookimpl
def detect(hardware): return [Backend()]
"""
BAD = {
    "raises on import": "raise RuntimeError('two\\nlines')",
    "exits on import": "import sys; sys.exit(3)",
    "needs what is not there": "import no_such_package",
    "is not Python": "def detect(:",
    "misspells a hook": HEAD + "@hookimpl\ndef detekt(hardware): return []",
    "asks for what is not offered": HEAD + "@hookimpl\ndef detect(hardwear): return []",
}
BAD_IN_USE = {
    "raises in detect": HEAD + "@hookimpl\ndef detect(): raise ValueError('no')",
    "exits in detect": HEAD + "@hookimpl\ndef detect(): raise SystemExit(3)",
    "returns rubbish": HEAD + "@hookimpl\ndef detect(): return 42",
    "offers rubbish": HEAD + "@hookimpl\ndef detect(): return [object()]",
    "offers a coroutine": HEAD + "@hookimpl\nasync def detect(): return []",
    "raises in status": HEAD + BACKEND.format(status="raise RuntimeError('two\\nlines')"),
    "says rubbish in status": HEAD + BACKEND.format(status="return 'fine'"),
    "hangs in status": HEAD + "import asyncio" + BACKEND.format(status="await asyncio.sleep(3600)"),
    "blocks in status": HEAD + "import time" + BACKEND.format(status="time.sleep(3600)"),
}
HANGS = HEAD + "import time\n@hookimpl\ndef detect(): time.sleep(3600)"


@pytest.fixture
def velollm(tmp_path: Path):
    """Run the command with one plugin alone, made of ``source``."""

    def run(source: str, *arguments: str) -> Outcome:
        site = tmp_path / "site"
        if not site.exists():
            install_plugin(site, "strange", source, version="0.7")
        only = {"VELOLLM_ONLY_PLUGINS": "strange"}
        return run_cli(*arguments, plugins=[site], environment=only, home=tmp_path / "home", folder=tmp_path)

    return run


def one_line(outcome: Outcome) -> str:
    assert outcome.code == 0, outcome
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("velollm: plugin 'strange' (velollm-strange 0.7) ")
    return line


@pytest.mark.parametrize("name", BAD)
def test_a_plugin_that_cannot_be_loaded_costs_one_line(velollm, name: str) -> None:
    listed = velollm(BAD[name], "plugins", "--json")
    one_line(listed)
    (found,) = [each for each in json.loads(listed.stdout)["plugins"] if each["name"] == "strange"]
    assert found["state"] == "failed"
    assert found["reason"]
    assert velollm(BAD[name], "--help").stderr == ""


@pytest.mark.parametrize("name", BAD_IN_USE)
def test_a_plugin_that_fails_in_use_costs_one_line(velollm, name: str) -> None:
    detected = velollm(BAD_IN_USE[name], "detect", "--no-probe", "--json")
    one_line(detected)
    assert json.loads(detected.stdout)["hardware"]
    assert velollm(BAD_IN_USE[name], "plugins").stderr == ""


@pytest.mark.slow
def test_a_plugin_that_hangs_in_detect_is_left_behind(velollm) -> None:
    detected = velollm(HANGS, "detect", "--no-probe", "--json")
    assert "no answer within" in one_line(detected)
    assert json.loads(detected.stdout)["hardware"]


def test_the_traceback_is_there_for_who_asks(tmp_path: Path) -> None:
    install_plugin(tmp_path, "strange", BAD["raises on import"])
    outcome = run_cli("plugins", plugins=[tmp_path], environment={"VELOLLM_RAISE": "1"}, home=tmp_path)
    assert outcome.code == 0
    assert "Traceback" in outcome.stderr


def test_a_blocked_plugin_costs_nothing(tmp_path: Path) -> None:
    install_plugin(tmp_path, "strange", BAD["raises on import"])
    outcome = run_cli("--block-plugin", "strange", "plugins", "--json", plugins=[tmp_path], home=tmp_path)
    assert "strange" not in outcome.stderr
    (found,) = [each for each in json.loads(outcome.stdout)["plugins"] if each["name"] == "strange"]
    assert found["state"] == "blocked"


def test_a_command_that_cannot_be_imported_names_its_origin(tmp_path: Path) -> None:
    install_plugin(tmp_path, "strange", "raise RuntimeError('broken')", commands={"strange": "command"})
    assert "strange" in run_cli("--help", plugins=[tmp_path], home=tmp_path).stdout
    outcome = run_cli("strange", plugins=[tmp_path], home=tmp_path)
    assert outcome.code == 1
    (line,) = outcome.stderr.splitlines()
    assert "velollm-strange 1.0" in line
    assert "RuntimeError: broken" in line
