"""A stranger's scheduler and block manager drive llama.cpp; a broken one costs one line. Run as users run it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from velollm_core.testing import Outcome, install_plugin, run_cli

HEAD = """
import sys
from velollm_core.engine.continuous import ContinuousScheduler
from velollm_core.engine.paged import PagedBlockManager
from velollm_core.hookspecs import hookimpl
"""
COUNTS = """
class Blocks(PagedBlockManager):
    asked = 0
    def allocate(self, sequence, num_tokens):
        Blocks.asked += 1
        return super().allocate(sequence, num_tokens)

class Scheduler(ContinuousScheduler):
    def schedule(self):
        output = super().schedule()
        if not output.is_empty:
            print(f"step {output.step}: {output.num_tokens} tokens, {Blocks.asked} allocations", file=sys.stderr)
        return output

@hookimpl
def allocate_kv(layout, memory): return Blocks(layout, layout.num_blocks(memory))

@hookimpl
def schedule(limits, blocks): return Scheduler(limits, blocks)
"""
BROKEN = {
    "raises": ("@hookimpl\ndef schedule(limits): raise ValueError('no')", "hook 'schedule' failed: ValueError: no"),
    "gives rubbish": ("@hookimpl\ndef allocate_kv(): return 42", "'allocate_kv' gave int, which is no BlockManager"),
    "fails in a step": (
        """
class Broken(ContinuousScheduler):
    def schedule(self): return 1 / 0

@hookimpl
def schedule(limits, blocks): return Broken(limits, blocks)
""",
        "failed in the engine's schedule(): ZeroDivisionError: division by zero",
    ),
}


def generate(model: Path, folder: Path, source: str) -> Outcome:
    install_plugin(folder / "site", "strange", HEAD + source, version="0.7")
    return run_cli(
        "llamacpp", "generate", model, "-p", "the", "--max-tokens", "3", "--threads", "1", "--json",
        plugins=[folder / "site"], home=folder / "home",
    )  # fmt: skip


def test_a_strangers_parts_drive_llama_cpp(model: Path, library: Path, tmp_path: Path) -> None:
    done = generate(model, tmp_path, COUNTS)
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["generation"]["answers"][0]["completion_tokens"] == 3
    steps = [line for line in done.stderr.splitlines() if line.startswith("step ")]
    assert [line.split(": ")[0] for line in steps] == ["step 1", "step 2", "step 3"]
    assert not steps[-1].endswith(" 0 allocations")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_one_costs_one_line(model: Path, library: Path, tmp_path: Path, nothing_left: None, name: str) -> None:
    source, said = BROKEN[name]
    done = generate(model, tmp_path, source)
    assert done.code == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("velollm: plugin 'strange' (velollm-strange 0.7)")
    assert said in line
