"""What an Ollama logs at its start, written from its settings."""

from __future__ import annotations

import json

from velollm_ollama.catalogue import variables_in
from velollm_ollama.config import OllamaConfig
from velollm_ollama.parse import clean, parse_uint
from velollm_ollama.version import Version

_STAMP = "time=2026-11-22T13:12:56.816Z level"


def server_log(config: OllamaConfig, version: Version, url: str) -> str:
    """The lines that a reader of the log looks for."""
    known = variables_in(version)
    lines = []
    for name, variable in known.items():
        value = clean(config.typed.get(name, ""))
        if variable.kind == "uint" and value and parse_uint(value) is None:
            default = variable.default_in(version)
            lines.append(
                f'{_STAMP}=WARN source=config.go:263 msg="invalid environment variable, using default" '
                f"key={name} value={value} default={default}"
            )
    read = {name: value for name, value in sorted(config.read.items()) if known[name].logged}
    read["OLLAMA_HOST"] = url
    printed = json.dumps("map[" + " ".join(f"{name}:{value}" for name, value in read.items()) + "]")
    host = url.removeprefix("http://")
    lines += [
        f'{_STAMP}=INFO source=routes.go:1951 msg="server config" env={printed}',
        f'{_STAMP}=INFO source=routes.go:2008 msg="Listening on {host} (version {version})"',
        f'{_STAMP}=INFO source=routes.go:2058 msg="vram-based default context" total_vram="0 B" default_num_ctx=4096',
    ]
    return "\n".join(lines) + "\n"
