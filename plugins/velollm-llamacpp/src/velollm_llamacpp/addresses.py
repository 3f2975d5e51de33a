"""Where llama.cpp's servers listen where nobody said so."""

from __future__ import annotations

from collections.abc import Mapping

OWN_PORT = 8642
OWN_URL = f"http://127.0.0.1:{OWN_PORT}"
"""Of `velollm llamacpp serve`."""


def default_url(environment: Mapping[str, str]) -> str:
    """Where llama-server listens by its own variables, else by default; "everywhere" is reached at the loopback."""
    host = environment.get("LLAMA_ARG_HOST", "").split(",")[0].strip()
    if not host or host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{environment.get('LLAMA_ARG_PORT') or 8080}"
