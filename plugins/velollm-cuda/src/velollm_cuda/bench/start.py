"""How long a user waits for the first token, in a process of its own: ``python -m velollm_cuda.bench.start FOLDER``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from velollm_core.errors import VeloError
from velollm_cuda.bench.figure import Figure, Measurement

PROMPT = list(range(64))
DECODED = 16
PATIENCE = 300.0


def main() -> None:
    """Load the model in ``FOLDER``, answer one prompt, and write the seconds of each stage as JSON."""
    begun = time.perf_counter()
    from velollm_cuda import LLM, SamplingParams
    from velollm_cuda.bench.models import engine_options

    imported = time.perf_counter()
    llm = LLM(sys.argv[1], **engine_options())  # type: ignore[arg-type]
    loaded = time.perf_counter()
    llm.generate(PROMPT, SamplingParams(max_tokens=1, ignore_eos=True))
    first = time.perf_counter()
    llm.generate(PROMPT, SamplingParams(max_tokens=DECODED, ignore_eos=True))
    decoded = time.perf_counter()
    stages = {
        "import": imported - begun,
        "LLM()": loaded - imported,
        "first token": first - imported,
        f"{DECODED} more tokens": decoded - first,
    }
    print(json.dumps(stages))


def measure_start(folder: Path, rounds: int = 1) -> Measurement:
    """The stages of a start with nothing compiled yet, seconds; ``first token`` counts from ``LLM()``.

    Raises:
        VeloError: the process failed; its last line says why.
    """
    stages = [_start(folder) for _ in range(rounds)]
    figures = {name: Figure.of([each[name] for each in stages], "s") for name in stages[0]}
    return Measurement("start, Triton's cache cold", figures)


def _start(folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "velollm_cuda.bench.start", str(folder)]
    with tempfile.TemporaryDirectory() as cold:
        environment = {**os.environ, "TRITON_CACHE_DIR": cold}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=PATIENCE, check=False
        )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise VeloError(f"the start of {folder} failed: {last}")
    stages = json.loads(done.stdout.splitlines()[-1])
    return {str(name): float(seconds) for name, seconds in stages.items()}


if __name__ == "__main__":
    main()
