"""What went wrong on the wire, as one line each."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from typing import Any

from velollm_core.config import variable
from velollm_core.errors import BackendError, BackendUnreachable

MAX_REASON = 300
KINDS = {401: "auth", 403: "auth", 404: "not_found", 408: "timeout", 429: "busy", 503: "busy"}


def one_line(text: str) -> str:
    """``text`` without line breaks, at most `MAX_REASON` characters."""
    text = " ".join(text.split())
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 1] + "…"


def reason_of(document: Any) -> str:
    """The text of an error object, in any of the shapes that servers use; empty where there is none."""
    if isinstance(document, str):
        return one_line(document)
    if not isinstance(document, Mapping):
        return ""
    for key in ("error", "message", "detail", "reason"):
        if text := reason_of(document.get(key)):
            return text
    return ""


def refusal(subject: str, path: str, status: int, body: bytes, headers: Mapping[str, str]) -> BackendError:
    """An answer whose HTTP status is not success."""
    if status < 400:
        where = headers.get("Location", "elsewhere")
        return BackendError(f"{subject} redirects {path} to {one_line(where)}: give that URL", status=status)
    reason = _reason_of_body(body)
    if status in (401, 403):
        reason = f"{reason or 'not allowed'}; is the API key right?"
    kind = KINDS.get(status, "server" if status >= 500 else "request")
    text = f"{subject} answers {path} with HTTP {status}"
    return BackendError(f"{text}: {reason}" if reason else text, status=status, kind=kind)


def stream_error(subject: str, error: Any) -> BackendError:
    """An error object inside a stream that began with 200."""
    code = error.get("code") if isinstance(error, Mapping) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else None
    kind = KINDS.get(status, "server") if status else "server"
    reason = reason_of(error) or one_line(json.dumps(error))
    return BackendError(f"{subject} broke off: {reason}", status=status, kind=kind)


def nobody_there(subject: str, name: str, error: OSError) -> BackendUnreachable:
    """Nobody listens at the address, or there is no such host; or it is we who cannot open another connection."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        text = f"{subject} was not asked: this process may not open more connections; raise `ulimit -n`, or ask less"
        return BackendUnreachable(text, kind="client")
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else one_line(str(error))
    return BackendUnreachable(f"{subject} does not answer ({reason}); start it, or set {variable(name, 'url')}")


def transport_failure(subject: str, name: str, error: Exception) -> BackendError:
    """A request that got no HTTP answer: nobody there, no such host, or something that does not speak HTTP."""
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorError):
        return nobody_there(subject, name, error.os_error)
    if isinstance(error, aiohttp.ServerTimeoutError):
        return nobody_there(subject, name, OSError("no connection in time"))
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)):
        return BackendUnreachable(f"{subject}: not an http(s) URL; set {variable(name, 'url')}", kind="request")
    if isinstance(error, aiohttp.ClientResponseError):
        return BackendError(f"{subject} does not speak HTTP: {one_line(error.message)}", kind="malformed")
    if isinstance(error, (aiohttp.ClientConnectionError, OSError)):
        return BackendUnreachable(f"{subject} closed the connection without an answer", kind="disconnected")
    return BackendError(f"{subject}: the request could not be sent: {one_line(str(error))}", kind="request")


def _reason_of_body(body: bytes) -> str:
    text = body.decode(errors="replace")
    try:
        reason = reason_of(json.loads(text))
    except (ValueError, RecursionError):
        return "" if text.lstrip().startswith("<") else one_line(text)
    return reason or one_line(text)
