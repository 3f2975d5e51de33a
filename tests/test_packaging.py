"""Six distributions, one version, one word each."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import velollm_core

ROOT = Path(__file__).parents[1]
PLUGINS = sorted((ROOT / "plugins").iterdir())


def project(folder: Path) -> dict[str, object]:
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


CORE = project(ROOT)


def test_one_version_everywhere() -> None:
    versions = {folder.name: project(folder)["version"] for folder in [ROOT, *PLUGINS]}
    assert set(versions.values()) == {velollm_core.__version__}
    assert f"## [{velollm_core.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_plugin_is_one_word_four_times(folder: Path) -> None:
    word = folder.name.removeprefix("velollm-")
    metadata = project(folder)
    assert metadata["name"] == f"velollm-{word}"
    assert (folder / "src" / f"velollm_{word}" / "py.typed").exists()
    assert metadata["entry-points"]["velollm"] == {word: f"velollm_{word}.plugin"}
    assert CORE["optional-dependencies"][word] == [f"velollm-{word}=={metadata['version']}"]
    assert f"velollm=={metadata['version']}" in metadata["dependencies"]
    assert (folder / "README.md").stat().st_size > 100


def test_all_is_every_plugin() -> None:
    words = {folder.name.removeprefix("velollm-") for folder in PLUGINS}
    assert set(CORE["optional-dependencies"]) == words | {"all"}
    assert set(re.findall(r"\w+", CORE["optional-dependencies"]["all"][0])) - {"velollm"} == words


def test_the_tested_path_installs_every_plugin() -> None:
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    assert "-e .[all]" in lines
    assert {f"-e plugins/{folder.name}" for folder in PLUGINS} <= set(lines)


def test_ci_runs_the_readme_test_command() -> None:
    assert "make test" in (ROOT / "README.md").read_text()
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")]
    assert commands[-1] == "make test"
