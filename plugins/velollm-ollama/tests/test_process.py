"""Processes that look like Ollama's, found and read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from velollm_ollama.config import OllamaConfig
from velollm_ollama.process import ServerProcess, find_server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="stands in for processes by a POSIX shell")

PORT = 18499
CHILD = "--model /m --port 5 --host 127.0.0.1 -c 6144 -np 3 --flash-attn auto -b 512 -ub 512"
CHILD_SCRIPT = 'exec -a /usr/lib/ollama/llama-server bash -c "echo ready; read _ || true" ' + CHILD
SERVER_SCRIPT = f"({CHILD_SCRIPT}); true"


@contextmanager
def stand_in() -> Iterator[int]:
    """A shell called ``ollama serve`` with a child called ``llama-server``; both end when their input does."""
    environment = {
        "OLLAMA_NUM_PARALLEL": "3",
        "OLLAMA_HOST": f"0.0.0.0:{PORT}",
        "LLAMA_ARG_THREADS": "1",
        "PATH": os.environ["PATH"],
    }
    # The shell gives `serve` to its script as $0, where the command line shows it.
    command = ["ollama", "-c", SERVER_SCRIPT, "serve"]
    with subprocess.Popen(
        command, executable="/bin/bash", env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        assert process.stdin is not None
        process.stdin.close()


def test_a_server_its_environment_and_its_child() -> None:
    with stand_in() as pid:
        server = find_server(PORT)
        config = OllamaConfig.from_process(pid)
        elsewhere = find_server(PORT + 1)
    assert isinstance(server, ServerProcess)
    assert server.pid == pid
    assert config.settings["OLLAMA_NUM_PARALLEL"] == "3"
    assert config.origin == f"process {pid}"
    assert elsewhere is None
    [child] = server.children
    assert (child.child.context, child.child.slots, child.child.port) == (6144, 3, 5)
    assert child.environment["LLAMA_ARG_THREADS"] == "1"


def test_no_server_is_found_where_none_runs() -> None:
    assert find_server(1) is None
