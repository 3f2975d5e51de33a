"""Recorded traffic of real servers, as replies to play and documents to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from attrs import frozen

from velollm_core.testing.reply import Reply

TRANSFER_HEADERS = {"transfer-encoding", "content-length", "connection", "keep-alive", "content-type"}


@frozen
class Recording:
    """One exchange. ``body`` is the response's, ``sent`` the request's; header names in lower case."""

    method: str
    path: str
    sent: bytes
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, object]:
        """The response's body as a JSON object."""
        return cast("dict[str, object]", json.loads(self.body))

    def reply(self) -> Reply:
        """The same response, to be played again as one piece."""
        headers = tuple((name, value) for name, value in self.headers.items() if name not in TRANSFER_HEADERS)
        return Reply((self.body,), self.status, self.headers.get("content-type", "text/plain"), headers)


def read_http(path: Path) -> Recording:
    """An ``.http`` file: request head (``> ``) and body, a blank line, response head (``< ``) and body."""
    data = path.read_bytes()
    request, _, response = data.partition(b"\n< HTTP/")
    head, _, sent = request.partition(b"\n>\n")
    method, target, *_ = head.decode("latin-1").removeprefix("> ").splitlines()[0].split(" ")
    status, *lines = b"".join((b"< HTTP/", response)).split(b"\n")
    count = next((index for index, line in enumerate(lines) if not line.startswith(b"< ")), len(lines))
    pairs = (line[2:].decode("latin-1").partition(":") for line in lines[:count])
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    body = b"\n".join(lines[count + 1 :])
    return Recording(method, target, sent.strip(), int(status.split(b" ")[2]), headers, body)


def read_body(path: Path) -> Recording:
    """A ``.body`` file with its ``.meta.json`` beside it, which holds the request, the status and the headers."""
    meta = json.loads(path.with_suffix(".meta.json").read_text(encoding="utf-8"))
    request = meta["request"]
    sent = json.dumps(request["body"]).encode() if request.get("body") is not None else b""
    headers = {name.lower(): value for name, value in meta["headers"].items()}
    return Recording(request["method"], request["path"], sent, meta["status"], headers, path.read_bytes())
