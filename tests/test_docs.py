"""What the documents say is what the code does."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from velollm_cuda.testing import write_tiny_model

from velollm_core import hookspecs
from velollm_core.benchmark.metrics import METRICS
from velollm_core.cli import COMMANDS, velollm
from velollm_core.testing import run_cli
from velollm_core.testing.test_model import write_test_model

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SERVERS = {"ollama"}


def leaves(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, *path, name)
        else:
            yield (*path, name), command


LEAVES = dict(leaves(velollm))


def test_every_hook_is_documented_as_it_is() -> None:
    headings = set(re.findall(r"^## (\w+\(.*\))$", (ROOT / "docs" / "hooks.md").read_text(), re.MULTILINE))
    specs = {
        f"{name}({', '.join(inspect.signature(hook).parameters)})"
        for name, hook in vars(hookspecs).items()
        if hasattr(hook, "velollm_spec")
    }
    assert len(specs) == 5
    assert headings == specs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert target.startswith(("http://", "https://")) or (page.parent / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_shows_an_example(path: tuple[str, ...]) -> None:
    assert re.match(rf"Example: velollm {' '.join(path)}\b", LEAVES[path].epilog or "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    write_test_model(folder / "model.gguf")
    write_tiny_model(folder / "test-model")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_example_runs(path: tuple[str, ...], folder: Path) -> None:
    if path == ("compare",):
        pytest.skip("its example needs two measurements: test_compare runs it")
    if path[-1] == "serve":
        pytest.skip("it serves until it is stopped: its plugin's own tests run it")
    words = shlex.split((LEAVES[path].epilog or "").partition("Example: velollm")[2].splitlines()[0])
    done = run_cli(*words, folder=folder)
    expected = {0, 1} if path[0] in SERVERS else {0}
    assert done.code in expected, done.stderr
    assert "Traceback" not in done.stderr


def test_every_metric_is_documented_with_its_formula() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert not [each.name for each in METRICS if f"| `{each.name}` | {each.unit} | {each.formula} |" not in page]


def test_the_commands_are_those_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert not [name for name in COMMANDS if f"velollm {name}" not in readme]
