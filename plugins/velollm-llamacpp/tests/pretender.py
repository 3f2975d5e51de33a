"""Pretends to be a llama-server; the variable PRETENDER says how it misbehaves. Standard library only."""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODE = os.environ.get("PRETENDER", "")


def value(flag: str, default: object) -> str:
    return sys.argv[sys.argv.index(flag) + 1] if flag in sys.argv else str(default)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        slots = int(value("--parallel", 1))
        if MODE == "other slots" and "--parallel" in sys.argv:
            slots += 1
        busy = MODE == "busy"
        pages = {
            "/health": {"status": "ok"},
            "/props": {"default_generation_settings": {"n_ctx": 512}, "total_slots": slots, "build_info": "b1"},
            "/slots": [{"id": index, "n_ctx": 512, "is_processing": busy} for index in range(slots)],
            "/v1/models": {"data": [{"id": "pretended"}]},
        }
        if MODE == "never loads":
            self.answer({"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}, 503)
        elif self.path in pages:
            self.answer(pages[self.path])
        else:
            self.answer({"error": {"message": "File Not Found"}}, 404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        event = {"content": "one", "tokens": [1], "stop": False}
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.flush()
        time.sleep(0.3)
        print("0.01.000.000 E ggml.c:17: GGML_ASSERT(luck) failed", file=sys.stderr, flush=True)
        os._exit(134)

    def answer(self, page: object, status: int = 200) -> None:
        body = json.dumps(page).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


def main() -> None:
    if "--help" in sys.argv:
        sys.stdout.write("" if MODE == "no help" else (Path(__file__).parent / "help_b11434.txt").read_text())
        return
    if "--version" in sys.argv:
        sys.stdout.write("version: 1 (pretended)\nbuilt with care\n")
        return
    if MODE == "refuses":
        print("0.00.006.230 E llama_model_load: error loading model: it is broken", file=sys.stderr)
        print("0.00.006.268 E srv  llama_server: exiting due to model loading error", file=sys.stderr)
        sys.exit(1)
    taken = Path(__file__).with_name("tried")
    if MODE == "port taken once" and not taken.exists():
        taken.touch()
        print("0.00.004.436 E srv  start: couldn't bind HTTP server socket", file=sys.stderr)
        sys.exit(1)
    if MODE == "hangs":
        time.sleep(600)
    ThreadingHTTPServer((value("--host", ""), int(value("--port", 0))), Handler).serve_forever()


main()
