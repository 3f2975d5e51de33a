"""Models from the hub: a stand-in on the loopback, reached as any program of the hub reaches it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from velollm_cuda.hub import find_model
from velollm_cuda.testing import write_tiny_model

from velollm_core.errors import ModelFileError
from velollm_core.testing import unused_url

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_mine"
SCRIPT = """
import sys
from velollm_core.errors import VeloError
from velollm_cuda.hub import find_model
try:
    folder = find_model(sys.argv[1], revision=sys.argv[2] or None, weights=sys.argv[3] == "weights")
except VeloError as error:
    sys.exit(f"refused: {error}")
print(*sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))
"""


class Hub(BaseHTTPRequestHandler):
    """Enough of the hub for a snapshot: the revision, its tree, and each file."""

    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"{self.command} {path}")
        if path.startswith("/api/models/tiny/busy"):
            return self._send(429, b"later", {})
        if path.startswith("/api/models/tiny/private"):
            # As the hub does: without a token nobody learns that it is there, with a wrong one the token is to blame.
            known = {"X-Error-Code": "RepoNotFound"} if self.headers.get("Authorization") is None else {}
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self._send(401, b"{}", known)
            return self._json([] if "/tree/" in path else {"id": "tiny/private", "sha": COMMIT, "siblings": []})
        if path.startswith(("/api/models/tiny/gated", "/tiny/gated")):
            return self._send(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "accept the terms"})
        if path in ("/api/models/tiny/llama/revision/main", f"/api/models/tiny/llama/revision/{COMMIT}"):
            siblings = [{"rfilename": name} for name in self._files()]
            return self._json({"id": "tiny/llama", "sha": COMMIT, "siblings": siblings})
        if path.startswith("/api/models/tiny/llama/revision/"):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if path.startswith("/api/models/tiny/llama/tree/"):
            return self._json([self._entry(name) for name in self._files()])
        name = path.removeprefix(f"/tiny/llama/resolve/{COMMIT}/")
        if name in self._files():
            content = (self.folder / name).read_bytes()
            return self._send(200, content, {"ETag": f'"{sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT})
        return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def _entry(self, name: str) -> dict[str, object]:
        content = (self.folder / name).read_bytes()
        return {"type": "file", "path": name, "size": len(content), "oid": sha1(content).hexdigest()}

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("HubOfOne", (Hub,), {"folder": folder, "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the copies and the folders that some have."""
    folder = write_tiny_model(tmp_path / "repository")
    for name in ("consolidated.safetensors", "pytorch_model.bin", "README.md", "original/params.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("not needed")
    return folder


def find(
    home: Path, url: str, name: str = "tiny/llama", revision: str = "", weights: str = "weights", **more: str
) -> subprocess.CompletedProcess[str]:
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    environment = {**keep, "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **more}
    command = [sys.executable, "-c", SCRIPT, name, revision, weights]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


NEEDED = "config.json generation_config.json {}tokenizer.json tokenizer_config.json"


def test_a_hub_id_is_downloaded_once(repository: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with serving(repository) as (url, asked):
        first = find(home, url)
        assert first.stdout.strip() == NEEDED.format("model.safetensors "), first.stderr
        downloads = [each for each in asked if each.startswith("GET") and "/resolve/" in each]
        assert len(downloads) == 5
        assert find(home, url).stdout == first.stdout
        assert [each for each in asked if each.startswith("GET") and "/resolve/" in each] == downloads
    assert find(home, url).stdout == first.stdout, "the cache answers where the hub does not"
    assert find(home, url, HF_HUB_OFFLINE="1").stdout == first.stdout


def test_a_benchmark_needs_no_weights(repository: Path, tmp_path: Path) -> None:
    with serving(repository) as (url, _):
        assert find(tmp_path / "home", url, weights="").stdout.strip() == NEEDED.format("")


@pytest.mark.parametrize(
    ("name", "revision", "words"),
    [
        ("tiny/missing", "", "the hub has no such model"),
        ("tiny/gated", "", "wants its terms accepted"),
        ("tiny/llama", "v9", "has no revision 'v9'"),
        ("tiny/private", "", "set HF_TOKEN if it is private"),
        ("tiny/busy", "", "the hub answers 429; try again later"),
    ],
)
def test_the_hub_refuses(repository: Path, tmp_path: Path, name: str, revision: str, words: str) -> None:
    with serving(repository) as (url, _):
        refused = find(tmp_path / "home", url, name, revision)
    assert refused.stderr.startswith(f"refused: {name}: "), refused.stderr
    assert words in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_the_token_is_shown_to_the_hub(repository: Path, tmp_path: Path) -> None:
    with serving(repository) as (url, _):
        refused = find(tmp_path / "home", url, "tiny/private", HF_TOKEN="hf_other")
        assert refused.stderr.splitlines() == [
            "refused: tiny/private: the hub does not take the token that it was given; check HF_TOKEN, or log in anew"
        ]
        assert find(tmp_path / "home", url, "tiny/private", HF_TOKEN=TOKEN).returncode == 0


def test_a_commit_is_a_revision(repository: Path, tmp_path: Path) -> None:
    with serving(repository) as (url, asked):
        assert find(tmp_path / "home", url, revision=COMMIT).stdout.strip() == NEEDED.format("model.safetensors ")
    assert not [each for each in asked if "revision/main" in each]


def test_the_hub_is_not_there(tmp_path: Path) -> None:
    refused = find(tmp_path / "home", unused_url())
    assert "the hub cannot be reached" in refused.stderr
    assert "HF_ENDPOINT" in refused.stderr


def test_what_is_neither_folder_nor_id(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.touch()
    assert find_model(tmp_path) == tmp_path
    with pytest.raises(ModelFileError, match="is a file; give the folder"):
        find_model(file)
    for name in (f"{tmp_path}/missing", "./missing", "a/b/c", "a b", ""):
        with pytest.raises(ModelFileError, match="no such folder, and not a hub id"):
            find_model(name)
