"""Which way imports point, and how big a room may grow: the table of docs/ARCHITECTURE.md, held."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "velollm_core"
SOURCES = sorted([*CORE.rglob("*.py"), *(path for path in ROOT.glob("plugins/*/src/**/*.py"))])
PLUGIN_SOURCES = [path for path in SOURCES if "plugins" in path.relative_to(ROOT).parts[0]]

NOUNS = {"errors", "figures", "hardware", "models", "engine", "config"}
BACKENDS = NOUNS | {"backends"}
MAY_IMPORT = {
    "errors": set(),
    "figures": set(),
    "config": {"errors"},
    "connections": set(),
    "isolation": set(),
    "hardware": {"errors", "figures", "config", "isolation"},
    "models": NOUNS - {"engine"},
    "engine": {"errors", "figures", "models", "backends"},
    "backends": NOUNS - {"engine"},
    "benchmark": BACKENDS | {"isolation", "interruptible"},
    "report": (BACKENDS - {"engine"}) | {"benchmark", "render", "views"},
    "tuning": BACKENDS | {"benchmark", "autopilot", "planning", "observations", "interruptible", "render", "views"},
    "serving": {"errors", "connections", "engine", "backends", "models"},
    "hookspecs": set(),
    "plugins": BACKENDS | {"hookspecs", "defaults", "isolation"},
    "defaults": {"hookspecs"},
    "parts": {"errors", "engine", "plugins"},
    "render": {"errors", "figures"},
    "options": {"config"},
    "cli": {"errors"},
}
HEAVY = {
    "aiohttp",
    "torch",
    "triton",
    "click",
    "psutil",
    "pynvml",
    "cattrs",
    "rich",
    "huggingface_hub",
    "numpy",
    "gguf",
}
LIGHT_ROOMS = {"errors", "figures", "hardware", "models", "engine"}


def imports(path: Path, *, module_level: bool = False) -> Iterator[str]:
    """Dotted names that ``path`` imports at run time; with ``module_level`` only those paid on import."""
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if module_level and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module == "velollm_core"
                else [node.module]
            )
        pending.extend(ast.iter_child_nodes(node))


def room(path: Path) -> str:
    """The folder below velollm_core, or the file itself where it lies there."""
    return path.relative_to(CORE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_rooms_import_one_way(name: str) -> None:
    allowed = MAY_IMPORT[name] | {name, "__version__"}
    for path in SOURCES:
        if not path.is_relative_to(CORE) or room(path) != name:
            continue
        level = name == "defaults"
        rooms = {each.split(".")[1] for each in imports(path, module_level=level) if each.startswith("velollm_core.")}
        assert rooms <= allowed, f"{path.relative_to(ROOT)} imports {rooms - allowed}"


def test_nouns_are_light() -> None:
    for path in SOURCES:
        if path.is_relative_to(CORE) and room(path) in LIGHT_ROOMS:
            heavy = {each.split(".")[0] for each in imports(path, module_level=True)} & HEAVY
            assert not heavy, f"{path.relative_to(ROOT)} imports {heavy} at module level"


def test_only_render_imports_cattrs() -> None:
    users = {path.name for path in SOURCES if any(each.split(".")[0] == "cattrs" for each in imports(path))}
    assert users == {"render.py"}


@pytest.mark.parametrize("path", PLUGIN_SOURCES, ids=lambda path: str(path.relative_to(ROOT / "plugins")))
def test_plugins_keep_to_the_seam(path: Path) -> None:
    own = path.relative_to(ROOT / "plugins").parts[2]
    forbidden = {f"velollm_core.{name}" for name in ("plugins", "commands", "cli", "defaults")}
    for name in imports(path):
        assert not any(name == each or name.startswith(f"{each}.") for each in forbidden), f"{path} imports {name}"
        assert not name.startswith("velollm_") or name.split(".")[0] in {own, "velollm_core"}, f"{path} imports {name}"


def test_no_file_over_300_lines() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in SOURCES}
    assert not {path: length for path, length in lengths.items() if length > 300}


def test_no_function_over_40_lines() -> None:
    long = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > 40:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {length} lines")
    assert not long


def test_public_functions_are_documented() -> None:
    undocumented = []
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        undocumented += [
            f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
            for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
            and not _overloads(node)
        ]
    assert not undocumented


def _overloads(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    return any("overload" in ast.dump(decorator) for decorator in node.decorator_list)


def test_the_test_sees_the_tree() -> None:
    assert len(SOURCES) > 40
    assert sys.version_info >= (3, 11)
