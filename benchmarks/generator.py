"""Load generators side by side: VeloLLM, a bare aiohttp reader, GuideLLM, AIPerf and `vllm bench serve` if installed.

A server of known schedule gives 32 users who ask again and again 256 chunks each, 5 ms apart after 20 ms. CPU seconds
are those of the generator and all its children, its start included, for 100 000 chunks. The bar, on an idle machine: at
most 5 CPU seconds, a median TTFT within 3 ms and a p99 within 12 ms of the schedule. Then 128 users at once, for the
rate that one core keeps up with: at least 20 000 chunks a second.

    python benchmarks/generator.py [--rounds N] [--guidellm PROGRAM] [--aiperf PROGRAM] [--vllm PROGRAM]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from attrs import frozen
from peers import OWN, PEERS, Load, Said, environment

FIRST, GAP, CHUNKS = 0.02, 0.005, 256
COMMON = Load(streams=32, requests=400, chunks=CHUNKS)
# Enough streams at the same gap for 25 000 chunks a second.
CROWD = Load(streams=128, requests=1600, chunks=CHUNKS)
CPU_SECONDS, MEDIAN, TAIL, RATE = 5.0, 0.003, 0.012, 20_000
SECONDS = 240


@frozen
class Turn:
    """One run: what the generator ``said``, its CPU seconds for 100 000 chunks, its KiB, the server's own lateness."""

    said: Said
    cpu_seconds: float
    memory: int
    late_p50: float
    late_p99: float


def main() -> int:
    """Measure in turns, print a table, and judge VeloLLM's best turn: other work on the machine only ever adds."""
    asked = _arguments()
    programs = {**OWN, **{name: found for name in PEERS if (found := _program(asked, name))}}
    print(f"{os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f}; python {sys.version.split()[0]}")
    turns: dict[str, list[Turn]] = {name: [] for name in PEERS if name in programs}
    for _ in range(asked.rounds):
        for name in turns:
            turns[name].append(_turn(name, programs[name], COMMON))
            _print(name, turns[name][-1])
    _table(turns)
    crowd = _turn("velollm", programs["velollm"], CROWD)
    share = crowd.cpu_seconds * (crowd.said.rate or 0.0) / 1e5
    print(f"\n{CROWD.streams} users: {crowd.said.rate:,.0f} chunks/s read, {share:.0%} of one core, TTFT", end=" ")
    print(f"{crowd.said.ttft_p50 * 1e3:.1f} ms (p99 {(crowd.said.ttft_p99 or 0) * 1e3:.1f})")
    return _judge(turns["velollm"], crowd)


def _judge(own: list[Turn], crowd: Turn) -> int:
    met = {
        f"≤ {CPU_SECONDS:g} CPU s": min(turn.cpu_seconds for turn in own) <= CPU_SECONDS,
        f"TTFT p50 within {MEDIAN * 1e3:g} ms": min(turn.said.ttft_p50 for turn in own) - FIRST <= MEDIAN,
        f"p99 within {TAIL * 1e3:g} ms": min(turn.said.ttft_p99 or 1.0 for turn in own) - FIRST <= TAIL,
        f"≥ {RATE:,} chunks/s": (crowd.said.rate or 0.0) >= RATE,
    }
    print("bar: " + "; ".join(f"{bar} {'met' if fine else 'MISSED'}" for bar, fine in met.items()))
    return 0 if all(met.values()) else 1


def _turn(name: str, program: str, load: Load) -> Turn:
    with tempfile.TemporaryDirectory() as place, _server() as url:
        folder = Path(place)
        command = PEERS[name].command(program, url, folder, load)
        with (folder / "output").open("w+") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT if name != "bare" else None, env=environment(folder)
            )
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            text = output.read()
        if process.returncode:
            raise SystemExit(f"{name} failed:\n{text[-2000:]}")
        late = json.loads(urllib.request.urlopen(f"{url}/lateness", timeout=10).read())
        cpu = (used.ru_utime + used.ru_stime) * 1e5 / (load.requests * load.chunks)
        said = PEERS[name].read(folder, text)
        return Turn(said, cpu, used.ru_maxrss, late["first"]["p50"], late["first"]["p99"])


@contextmanager
def _server() -> Iterator[str]:
    script = str(Path(__file__).with_name("paced_server.py"))
    command = [sys.executable, script, str(FIRST), str(GAP), str(CHUNKS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    for name in PEERS.keys() - OWN.keys():
        parser.add_argument(f"--{name}", metavar="PROGRAM", help=f"{PEERS[name].name}; found on PATH unless given")
    return parser.parse_args()


def _program(asked: argparse.Namespace, name: str) -> str | None:
    given = getattr(asked, name, None)
    return given or shutil.which(name)


def _print(name: str, turn: Turn) -> None:
    said = turn.said
    tail = "–" if said.ttft_p99 is None else f"{(said.ttft_p99 - FIRST) * 1e3:+.1f}"
    print(
        f"  {PEERS[name].name}: {turn.cpu_seconds:.2f} CPU s, {turn.memory / 1024:.0f} MiB, TTFT "
        f"{(said.ttft_p50 - FIRST) * 1e3:+.1f} ms (p99 {tail}), ITL {(said.itl_p50 or 0) * 1e3:.2f} ms, "
        f"{said.rate or 0:,.0f} chunks/s; the server itself was late by {turn.late_p50 * 1e3:.1f} (p99 "
        f"{turn.late_p99 * 1e3:.1f}) ms",
        flush=True,
    )


def _table(turns: dict[str, list[Turn]]) -> None:
    print("\n| generator | CPU s / 10⁵ chunks | MiB | TTFT p50 − 20 ms | p99 − 20 ms | ITL p50 | chunks/s |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, each in turns.items():
        cells = [
            _range([turn.cpu_seconds for turn in each], 1),
            _range([turn.memory / 1024 for turn in each], 0),
            _range([(turn.said.ttft_p50 - FIRST) * 1e3 for turn in each], 1),
            _range([(turn.said.ttft_p99 - FIRST) * 1e3 for turn in each if turn.said.ttft_p99 is not None], 1),
            _range([turn.said.itl_p50 * 1e3 for turn in each if turn.said.itl_p50 is not None], 2),
            _range([turn.said.rate for turn in each if turn.said.rate is not None], 0),
        ]
        print(f"| {PEERS[name].name} | {' | '.join(cells)} |")
    late = [turn for each in turns.values() for turn in each]
    print(f"\nThe server's own lateness: {_range([turn.late_p50 * 1e3 for turn in late], 1)} ms, ", end="")
    print(f"p99 {_range([turn.late_p99 * 1e3 for turn in late], 1)} ms.")


def _range(values: list[float], digits: int) -> str:
    if not values:
        return "–"
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
