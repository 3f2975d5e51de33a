"""What one streamed token costs the process that serves it: ``python benchmarks/serving_front.py [--tree FOLDER …]``.

The server is the one of `velollm cuda serve`, over an engine that only hands out tokens: all streams get one each,
once a step. Waking, text, JSON, framing and socket are what is measured, as CPU seconds of the server's process per
token, with a step each GAP ms and then as fast as steps go; after that requests of 1 000 token ids for one token. This
process reads and looks at nothing. ``--tree`` puts other checkouts beside this one, in turns. The bar: 20 µs a token.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from velollm_cuda.testing import SPECIAL, TINY, write_configuration

HERE = Path(__file__).resolve().parents[1]
BAR = 20.0
PROMPT = 1000
RATE = 100
KEPT = 10
CROWD = 400
WORDS = 32_000
SPOKEN = ("docs/engine.md", "docs/metrics.md", "docs/first-run.md", "velollm_core/engine/paged.py")
Figures = dict[str, float]


def main() -> int:
    """Measure each tree in turns, print a table, and fail above the bar."""
    asked = _arguments()
    trees = [HERE, *(tree.resolve() for tree in asked.tree)]
    found: dict[Path, list[Figures]] = {tree: [] for tree in trees}
    with tempfile.TemporaryDirectory() as place:
        folders = _write_models(Path(place))
        for kind, folder in folders.items():
            for _ in range(asked.rounds):
                for tree in trees:
                    with _server(tree, folder, asked.profile) as port:
                        found[tree].append(_measure(port, kind, asked))
    print(f"{os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f}; python {sys.version.split()[0]}")
    for name in dict.fromkeys(name for each in found[HERE] for name in each):
        values = {tree: [each[name] for each in found[tree] if name in each] for tree in trees}
        print(f"  {name:44}" + "   ".join(f"{_range(each):>28}" for each in values.values()))
    costs = [value for each in found[HERE] for name, value in each.items() if name.endswith("CPU µs a token")]
    return 0 if min(costs) <= BAR else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, action="append", default=[], help="another checkout, beside this one")
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--gap", type=float, default=15.0, help="ms from step to step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--profile", type=Path, help="where the server writes what cProfile saw of the last steps")
    return parser.parse_args()


def _range(values: Sequence[float]) -> str:
    return f"{median(values):,.1f} ({min(values):,.1f}–{max(values):,.1f})"


def _measure(port: int, kind: str, asked: argparse.Namespace) -> Figures:
    steady = _read(port, asked.streams, asked.steps, asked.gap / 1e3)
    full = _read(port, asked.streams, asked.steps, 0.0)
    return {
        f"{kind}, every {asked.gap:g} ms: CPU µs a token": steady["step_cpu"] / steady["tokens"] * 1e6,
        f"{kind}, at full speed: CPU µs a token": full["step_cpu"] / full["tokens"] * 1e6,
        f"{kind}, at full speed: tokens/s": full["tokens"] / full["seconds"],
        **_request_costs(port, asked.requests),
    }


def _read(port: int, streams: int, steps: int, gap: float) -> Figures:
    """What the server says of ``streams`` answers of ``steps`` tokens, a step each ``gap`` seconds."""
    _get(port, f"/expect?streams={streams}&gap={gap}")
    _drain([_ask(port, [1, 2, 3], steps) for _ in range(streams)])
    return _report(port)


def _request_costs(port: int, requests: int) -> Figures:
    """CPU µs of a request: by kept connections, and where as many as streams come at once on new ones."""
    _get(port, "/expect?streams=1&gap=0")
    begun = _report(port)["cpu"]
    _ask_steadily(port, requests)
    steadily = _report(port)["cpu"] - begun
    _get(port, f"/expect?streams={CROWD}&gap=0")
    begun = _report(port)["cpu"]
    _drain([_ask(port, [number % 100] * PROMPT, 1) for number in range(CROWD)])
    at_once = _report(port)["cpu"] - begun
    return {
        f"a request of {PROMPT} ids, {RATE} a second: CPU µs": steadily / requests * 1e6,
        f"{CROWD} of them at once, connections too: CPU µs": at_once / CROWD * 1e6,
    }


def _ask_steadily(port: int, requests: int) -> None:
    connections = [HTTPConnection("127.0.0.1", port) for _ in range(KEPT)]
    begun = time.perf_counter()
    for number in range(requests):
        time.sleep(max(0.0, begun + number / RATE - time.perf_counter()))
        connection = connections[number % KEPT]
        connection.request("POST", "/v1/completions", _body([number % 100] * PROMPT, 1))
        connection.getresponse().read()
    for connection in connections:
        connection.close()


def _ask(port: int, prompt: list[int], tokens: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    body = _body(prompt, tokens)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def _body(prompt: list[int], tokens: int) -> bytes:
    return json.dumps({"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "stream": True}).encode()


def _drain(connections: Sequence[socket.socket]) -> None:
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ, connection)
        while selector.get_map():
            for key, _ in selector.select():
                if not key.data.recv(1 << 16):
                    selector.unregister(key.data)
                    key.data.close()


def _get(port: int, path: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(1 << 16), b"")).partition(b"\r\n\r\n")[2]


def _report(port: int) -> Figures:
    return dict(json.loads(_get(port, "/report")))


def _write_models(place: Path) -> dict[str, Path]:
    """A model of bytes, and one whose tokenizer was made as those of real models are, of the text that is here."""
    folders = {"bytes": place / "bytes", f"BPE of {WORDS:,}": place / "words"}
    spoken = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SPOKEN)
    for folder in folders.values():
        write_configuration(folder, TINY)
        (folder / "spoken.txt").write_text(spoken, encoding="utf-8")
    _train().save(str(place / "words" / "tokenizer.json"))
    return folders


def _train() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    sources = [*HERE.glob("docs/**/*.md"), *HERE.glob("velollm_core/**/*.py"), *HERE.glob("plugins/*/src/**/*.py")]
    tokenizer.train([str(path) for path in sources], trainer)
    return tokenizer


@contextmanager
def _server(tree: Path, folder: Path, profile: Path | None) -> Iterator[int]:
    sources = [tree, *tree.glob("plugins/*/src")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources))}
    script = str(Path(__file__).with_name("token_server.py"))
    command = [sys.executable, script, str(folder), *([str(profile)] if profile else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
