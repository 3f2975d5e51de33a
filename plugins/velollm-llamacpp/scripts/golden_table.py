"""Compare llama.cpp's own allocator, and the formula, with every case of tests/golden; print a table.

Example: python plugins/velollm-llamacpp/scripts/golden_table.py tests/golden
"""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import asdict
from velollm_llamacpp.allocation import breakdown, explicit
from velollm_llamacpp.library import find_library
from velollm_llamacpp.loadable import loadable

from velollm_core.errors import ModelRefused
from velollm_core.models.breakdown import MemoryBreakdown
from velollm_core.models.files import read_model
from velollm_core.models.load import LoadSettings
from velollm_core.models.memory import memory
from velollm_core.models.spec import ModelSpec

Case = dict[str, Any]
ROWS = (
    "cases",
    "refused, as llama.cpp does",
    "context, batch equal",
    "weights equal",
    "KV + state equal",
    "KV equal",
    "recurrent state equal",
    "compute equal",
    "compute within 1%",
    "compute within 10% or 64 MiB",
)


def main() -> None:
    """Print the table."""
    golden = Path(sys.argv[1])
    table: dict[str, Counter[str]] = {"allocator": Counter(), "formula": Counter()}
    architectures: dict[str, set[str]] = defaultdict(set)
    for path, cases in files(golden):
        spec = read_model(path)
        found = {"allocator": by_allocator(spec, cases), "formula": by_formula(spec, cases)}
        for source, answers in found.items():
            for case, answer in zip(cases, answers, strict=True):
                judged = Counter(judge(case, answer))
                table[source].update(judged)
                if case["ok"] and not judged["compute within 1%"]:
                    architectures[source].add(case["architecture"])
    for row in ROWS:
        print(f"{row:<32} {table['allocator'][row]:>10} {table['formula'][row]:>10}")
    for source, names in architectures.items():
        print(f"compute beyond 1% by {source}: {', '.join(sorted(names))}")


def files(golden: Path) -> Iterator[tuple[Path, list[Case]]]:
    """Each header with its cases."""
    with tempfile.TemporaryDirectory() as folder:
        for document, kind in (("golden", "headers"), ("golden_big", "big")):
            cases: dict[str, list[Case]] = defaultdict(list)
            for case in json.loads(lzma.decompress((golden / f"{document}.json.xz").read_bytes())):
                cases[case["file"]].append(case)
            for name, group in cases.items():
                path = Path(folder) / name
                path.write_bytes(lzma.decompress((golden / kind / f"{name}.header.xz").read_bytes()))
                yield path, group


def settings(case: Case) -> LoadSettings:
    """The settings of ``case``; weights as they were loaded for it, without mmap."""
    given = case["settings"]
    return LoadSettings(
        total_context=given["ctx"],
        parallel=given["parallel"],
        kv_unified=given["kv_unified"],
        type_k=given["ctk"],
        type_v=given["ctv"],
        flash_attn=given["flash_attn"],
        batch=given["batch"],
        ubatch=given["ubatch"],
        swa_full=given["swa_full"],
        mmap=False,
    )


def by_formula(spec: ModelSpec, cases: list[Case]) -> list[MemoryBreakdown | None]:
    """The formula's answers; None where it refuses."""
    answers: list[MemoryBreakdown | None] = []
    for case in cases:
        try:
            answers.append(memory(spec, settings(case)))
        except ModelRefused:
            answers.append(None)
    return answers


def by_allocator(spec: ModelSpec, cases: list[Case]) -> list[MemoryBreakdown | None]:
    """The allocator's answers, one child for a file, another where one aborts; None where it refuses."""
    answers: list[MemoryBreakdown | None] = []
    with loadable(spec) as path:
        while len(answers) < len(cases):
            rest = [explicit(settings(case)) for case in cases[len(answers) :]]
            request = {"library": str(find_library()), "model": str(path), "loads": [asdict(load) for load in rest]}
            child = subprocess.run(
                [sys.executable, "-P", "-m", "velollm_llamacpp.measure"],
                input=json.dumps(request),
                capture_output=True,
                text=True,
                check=False,
            )
            lines = [json.loads(line) for line in child.stdout.splitlines()]
            for line, load in zip(lines, rest, strict=False):
                answers.append(None if "refused" in line else breakdown(line, load.parallel or 1, 0))
            if len(lines) < len(rest):
                answers.append(None)
    return answers


def judge(case: Case, answer: MemoryBreakdown | None) -> Iterator[str]:
    """The rows that ``answer`` counts for."""
    yield "cases"
    if answer is None or not case["ok"]:
        if (answer is None) and not case["ok"]:
            yield "refused, as llama.cpp does"
        return
    host = answer.devices[0]
    shape = (answer.context, answer.context_per_sequence, answer.batch, answer.ubatch)
    compute, known = host.compute.value, case["compute_bytes"]
    truths = {
        "context, batch equal": shape == (case["n_ctx_used"], case["n_ctx_seq"], case["n_batch"], case["n_ubatch"]),
        "weights equal": host.weights.value == case["weights_loaded_bytes"],
        "KV + state equal": host.kv.value + host.recurrent.value == case["context_bytes"],
        "KV equal": host.kv.value == case.get("kv_bytes"),
        "recurrent state equal": host.recurrent.value == case.get("recurrent_bytes"),
        "compute equal": compute == known,
        "compute within 1%": abs(compute - known) <= known / 100,
        "compute within 10% or 64 MiB": abs(compute - known) <= max(known / 10, 64 << 20),
    }
    yield from (row for row, true in truths.items() if true)


if __name__ == "__main__":
    main()
