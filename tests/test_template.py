"""The page for backend authors: its template is copied, installed and judged as a stranger would do it."""

from __future__ import annotations

import json
import os
import re
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

from velollm_core.testing import Answer, BackendContract, Reply, Seen, document, json_lines

PAGE = Path(__file__).parents[1] / "docs" / "write-a-backend" / "README.md"
TEMPLATE = PAGE.parent / "template" / "velollm-NAME"
WORD = "acme"


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with a word for NAME, made by the page's own commands."""
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "docs").symlink_to(PAGE.parents[1])
    (block,) = re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    commands = [line.removeprefix("$ ") for line in block.splitlines()]
    making = commands[: next(index for index, line in enumerate(commands) if line.startswith("pip "))]
    done = run(["sh", "-ec", "\n".join(making)], folder)
    assert done.returncode == 0, done.stderr
    return folder / f"velollm-{WORD}"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, copied: Path) -> Path:
    """The interpreter of a fresh environment that sees this one's packages, with the plugin installed by pip."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    places = {"base": str(folder), "platbase": str(folder)}
    scripts = Path(sysconfig.get_path("scripts", "venv", places))
    packages = Path(sysconfig.get_path("purelib", "venv", places))
    lines = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]
    (packages / "velollm_tested.pth").write_text("\n".join(lines))
    python = scripts / Path(sys.executable).name
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install", "-q"]
    done = run([*pip, "--no-deps", "--no-index", "--no-build-isolation", str(copied)])
    assert done.returncode == 0, done.stderr
    return python


def run(command: list[str], folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environment}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=folder, env=environment
    )


def test_the_template_is_as_small_as_promised() -> None:
    lengths = {
        path.suffix: len(path.read_text().splitlines()) for path in TEMPLATE.iterdir() if "test" not in path.name
    }
    assert lengths[".py"] <= 40
    assert lengths[".toml"] <= 12
    assert len((TEMPLATE / "test_velollm_NAME.py").read_text().splitlines()) <= 13


@pytest.mark.slow
def test_its_contracts_are_green(python: Path, copied: Path) -> None:
    done = run([str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"], copied)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


@pytest.mark.slow
def test_velollm_lists_it(python: Path, tmp_path: Path) -> None:
    done = run([str(python), "-m", "velollm_core", "plugins", "--json"], tmp_path)
    assert done.returncode == 0, done.stderr
    (found,) = [each for each in json.loads(done.stdout)["plugins"] if each["name"] == WORD]
    assert found["distribution"] == f"velollm-{WORD}"
    assert found["version"] == "0.1.0"
    assert found["state"] == "loaded"
    assert found["hooks"] == ["detect"]


@pytest.mark.slow
def test_velollm_detects_it(python: Path, tmp_path: Path) -> None:
    address = {"VELOLLM_ACME_URL": "http://127.0.0.1:9", "VELOLLM_ONLY_PLUGINS": WORD}
    done = run([str(python), "-m", "velollm_core", "detect", "--no-probe", "--json"], tmp_path, **address)
    assert done.returncode == 0, done.stderr
    (backend,) = json.loads(done.stdout)["backends"]
    assert backend["name"] == WORD
    assert "127.0.0.1:9" in json.dumps(backend)
    assert done.stderr == ""


def example() -> Any:
    """The class that the page shows for a server with an interface of its own."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, str(PAGE), "exec"), names)
    return names["Server"]


def generate(seen: Seen) -> Reply:
    pieces = ["One", " chunk", " is not", " a token"][: seen.document["limit"]]
    end = {"done": "length", "read": 5, "written": min(7, seen.document["limit"])}
    return json_lines(*({"piece": piece} for piece in pieces), end)


OWN_ROUTES: dict[str, Answer] = {
    "GET /state": document({"version": "1", "loaded": ["acme-1b"]}),
    "POST /generate": generate,
}


class TestThePagesExample(BackendContract):
    backend = staticmethod(lambda url: example()(url))
    routes = OWN_ROUTES


def test_the_page_names_what_there_is() -> None:
    import velollm_core.testing as kit

    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)(?:\(\))?`", text)) & {"BackendContract", "AnyBackendContract", "PluginContract"}
    assert named == {"BackendContract", "AnyBackendContract", "PluginContract"}
    for name in kit.__all__:
        assert getattr(kit, name)
