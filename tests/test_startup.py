"""`velollm --help` costs click and metadata, nothing of ours: held on `sys.modules`, not on a stopwatch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"aiohttp", "attr", "attrs", "cattrs", "pluggy", "psutil", "pynvml", "torch", "triton", "rich", "numpy"}
SCRIPT = """
import json, sys
before = set(sys.modules)
sys.argv = ["velollm", *{arguments!r}]
from velollm_core.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr)
"""


def modules_after(*arguments: str, environment: dict[str, str] | None = None) -> set[str]:
    script = SCRIPT.format(arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_metadata_only(arguments: list[str]) -> None:
    modules = modules_after(*arguments)
    assert not {name for name in modules if name.split(".")[0] in HEAVY}
    ours = {name for name in modules if name.startswith("velollm")}
    assert ours <= {"velollm_core", "velollm_core.cli", "velollm_core.errors"}


def test_completion_is_metadata_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_VELOLLM_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "velollm de")
    monkeypatch.setenv("COMP_CWORD", "1")
    script = "import sys; sys.argv=['velollm']; from velollm_core.cli import velollm\n" + (
        "try:\n    velollm(prog_name='velollm')\nexcept SystemExit: pass\n"
        "bad = {name.split('.')[0] for name in sys.modules} & " + repr(HEAVY) + "\nassert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["plain,detect"]


@pytest.mark.parametrize("plugin", ["ollama", "llamacpp", "localai", "vllm", "cuda"])
def test_plugin_modules_bring_no_engine(plugin: str) -> None:
    script = (
        f"import sys, velollm_{plugin}.plugin\n"
        "bad = {name.split('.')[0] for name in sys.modules} & {'torch', 'triton', 'xllamacpp', 'gguf', 'numpy'}\n"
        "assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
