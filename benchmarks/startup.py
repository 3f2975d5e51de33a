"""What `velollm --help` costs, as a ratio to `python -c pass` in the same run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 21
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "velollm --help": [sys.executable, "-m", "velollm_core", "--help"],
    "velollm --version": [sys.executable, "-m", "velollm_core", "--version"],
    "velollm detect --no-probe": [sys.executable, "-m", "velollm_core", "detect", "--no-probe", "--json"],
}


def seconds(command: list[str]) -> float:
    """Wall-clock seconds of one whole process."""
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Interleave the commands, then print each one's median, spread and ratio."""
    samples: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            samples[name].append(seconds(command))
    base = statistics.median(samples["python -c pass"])
    for name, times in samples.items():
        quartiles = statistics.quantiles(times, n=4)
        middle = statistics.median(times)
        spread = f"({quartiles[0] * 1e3:.1f}–{quartiles[2] * 1e3:.1f})"
        print(f"{name:28} {middle * 1e3:7.1f} ms  {spread}  {middle / base:5.2f}×")


if __name__ == "__main__":
    main()
