"""A fake Ollama: the routes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

from velollm_core.testing import FakeServer, Reply, Seen, document, json_lines, text
from velollm_ollama.config import OllamaConfig
from velollm_ollama.parse import parse_duration
from velollm_ollama.testing.generation import Refused, generate
from velollm_ollama.testing.log_text import server_log
from velollm_ollama.testing.store import (
    DIGEST,
    FakeLoaded,
    FakeModel,
    expiry,
    full_name,
    loading,
    tiny_model,
    wrong_option,
)
from velollm_ollama.version import Version, parse_version


class FakeOllama(FakeServer):
    """Answers as an Ollama of ``version`` started with ``environment`` does.

    Kept to: NDJSON framing, zeros left out, silent cutting of prompts, endless ``num_predict`` 0, the end without
    ``done`` after 30 equal chunks, wrong types as 500, unknown options ignored, reloads, 503 while a load is awaited.
    ``break_after`` chunks the next answer ends in an error line; ``load_seconds`` is what a load takes; ``refuses``
    is the error of every load.
    """

    def __init__(self, version: str = "0.33.0", environment: Mapping[str, str] | None = None) -> None:
        super().__init__({})
        self.version = version
        self.models: dict[str, FakeModel] = {"tiny:latest": tiny_model()}
        self.loaded: dict[str, FakeLoaded] = {}
        self.blobs: set[str] = {f"sha256:{DIGEST}"}
        self.loads = 0
        self.load_seconds = 0.0
        self.refuses: str | None = None
        self.break_after: int | None = None
        self._typed = dict(environment or {})
        self._busy_until = 0.0
        self._waiting = 0

    @property
    def config(self) -> OllamaConfig:
        """Its environment, as this version reads it."""
        return OllamaConfig.from_env(self._typed, self._version, "fake")

    def start_again(self, environment: Mapping[str, str]) -> None:
        """Forget what is loaded, and run with another environment."""
        self._typed = dict(environment)
        self.loaded.clear()

    def log(self) -> str:
        """What it would have logged since its start."""
        return server_log(self.config, self._version, self.url)

    def setting(self, name: str) -> int:
        """A whole number of its environment, as it reads it."""
        return int(self.config.read[name])

    @property
    def slots(self) -> int:
        """Requests that a model answers at a time."""
        return max(1, self.setting("OLLAMA_NUM_PARALLEL"))

    @property
    def _version(self) -> Version:
        found = parse_version(self.version)
        assert found is not None
        return found

    def _reply(self, request: Seen) -> Reply:
        route = f"{request.method} {request.path}"
        if route in self.routes:
            return super()._reply(request)
        try:
            return self._answer(request, route)
        except Refused as refused:
            return document({"error": str(refused)}, refused.status)

    def _answer(self, request: Seen, route: str) -> Reply:
        simple = {
            "GET /": lambda: text("Ollama is running"),
            "GET /api/version": lambda: document({"version": self.version}),
            "GET /api/status": lambda: document({"cloud": {"disabled": True, "source": "env"}}),
            "GET /api/tags": lambda: document({"models": [self._tag(name) for name in self.models]}),
            "GET /api/ps": lambda: document({"models": [self._ps(name) for name in self.loaded]}),
        }
        if route in simple:
            return simple[route]()
        if request.path.startswith("/api/blobs/"):
            return self._blob(request)
        posts = {
            "POST /api/show": self._show,
            "POST /api/generate": self._generate,
            "POST /api/chat": self._generate,
            "POST /api/create": self._create,
            "POST /api/copy": self._copy,
            "DELETE /api/delete": self._delete,
        }
        if route not in posts:
            known = request.path in {key.split(" ")[1] for key in (*simple, *posts)}
            return text("405 method not allowed", 405) if known else text("404 page not found", 404)
        return posts[route](_body(request))

    def _model(self, name: str) -> tuple[str, FakeModel]:
        full = full_name(name)
        if full not in self.models:
            raise Refused(f"model '{name}' not found", 404)
        return full, self.models[full]

    def _tag(self, name: str) -> dict[str, Any]:
        return {"name": name, "model": name, "size": self.models[name].size, "digest": DIGEST, "details": {}}

    def _ps(self, name: str) -> dict[str, Any]:
        entry, model = self.loaded[name], self.models[name]
        expires = entry.expires.isoformat() if entry.expires else "2319-03-04T12:58:47.854606691Z"
        size = model.size + 2048 * entry.context * self.slots
        return {"name": name, "model": name, "size": size, "size_vram": 0, "context_length": entry.context,
                "digest": DIGEST, "details": {}, "expires_at": expires}  # fmt: skip

    def _show(self, body: dict[str, Any]) -> Reply:
        _, model = self._model(str(body.get("model", "")))
        lines = [f"{name:<30} {json.dumps(value)}" for name, value in sorted(model.parameters.items())]
        return document(
            {
                "modelfile": f"FROM /models/blobs/sha256-{DIGEST}\n",
                "parameters": "\n".join(lines),
                "details": {"parent_model": model.parent, "format": "gguf", "family": "llama"},
                "model_info": model.info,
                "tensors": model.tensors,
                "capabilities": list(model.capabilities),
            }
        )

    def _create(self, body: dict[str, Any]) -> Reply:
        name = str(body.get("model") or "")
        if not name:
            raise Refused("invalid model name", 400)
        if "from" in body:
            parent, base = self._model(str(body["from"]))
            parameters = {**base.parameters, **(body.get("parameters") or {})}
            made = FakeModel(base.info, base.tensors, parameters, base.words, base.stops_after, parent, base.size)
        elif set((body.get("files") or {"": None}).values()) <= self.blobs:
            made = tiny_model()
        else:
            raise Refused("neither 'from' or 'files' was specified", 400)
        self.models[full_name(name)] = made
        done = {"status": "success"}
        return document(done) if body.get("stream") is False else json_lines({"status": "parsing GGUF"}, done)

    def _copy(self, body: dict[str, Any]) -> Reply:
        _, model = self._model(str(body.get("source", "")))
        self.models[full_name(str(body["destination"]))] = model
        return Reply()

    def _delete(self, body: dict[str, Any]) -> Reply:
        full, _ = self._model(str(body.get("model", "")))
        del self.models[full]
        self.loaded.pop(full, None)
        return Reply()

    def _blob(self, request: Seen) -> Reply:
        digest = request.path.rsplit("/", 1)[-1]
        if request.method == "HEAD":
            return Reply(status=200 if digest in self.blobs else 404)
        got = "sha256:" + hashlib.sha256(request.body).hexdigest()
        if got != digest:
            raise Refused(f'digest mismatch, expected "{digest}", got "{got}"', 400)
        self.blobs.add(digest)
        return Reply(status=201)

    def _generate(self, body: dict[str, Any]) -> Reply:
        full, model = self._model(str(body.get("model", "")))
        options = {**model.parameters, **(body.get("options") or {})}
        if problem := wrong_option(options):
            raise Refused(problem, 500)
        default = parse_duration(self.config.read["OLLAMA_KEEP_ALIVE"]) or 0
        try:
            expires = expiry(body.get("keep_alive"), default)
        except ValueError as error:
            raise Refused(str(error), 400) from error
        empty = not body.get("prompt") and not body.get("messages")
        if empty and body.get("keep_alive") == 0:
            self.loaded.pop(full, None)
            return self._one(body, {"response": "", "done": True, "done_reason": "unload"})
        delay = self._load(full, model, options)
        entry = self.loaded[full]
        if body.get("keep_alive") is not None:
            entry.expires = expires
        if empty:
            return self._one(body, {"response": "", "done": True, "done_reason": "load"}, delay)
        broken, self.break_after = self.break_after, None
        return generate(body, model, entry, options, loaded=delay, broken_after=broken, version=self._version)

    def _load(self, full: str, model: FakeModel, options: Mapping[str, Any]) -> float:
        """Load or reload where that is needed; the seconds that a request has to wait for it."""
        now = time.monotonic()
        wanted = loading(options)
        entry = self.loaded.get(full)
        if entry is not None and entry.options == wanted:
            return self._wait(now)
        if self.refuses:
            raise Refused(self.refuses, 500)
        if now < self._busy_until:
            self._wait(now)
        context = int(wanted.get("num_ctx") or self.setting("OLLAMA_CONTEXT_LENGTH") or 4096)
        default = parse_duration(self.config.read["OLLAMA_KEEP_ALIVE"]) or 0
        self.loaded[full] = FakeLoaded(wanted, max(4, min(context, model.trained)), expiry(None, default))
        self.loads += 1
        self._busy_until, self._waiting = now + self.load_seconds, 0
        return self.load_seconds

    def _wait(self, now: float) -> float:
        """Seconds until a load is over; a request too many is sent away."""
        if now >= self._busy_until:
            return 0.0
        self._waiting += 1
        if self._waiting > self.setting("OLLAMA_MAX_QUEUE"):
            raise Refused("server busy, please try again.  maximum pending requests exceeded", 503)
        return self._busy_until - now

    def _one(self, body: Mapping[str, Any], line: dict[str, Any], delay: float = 0.0) -> Reply:
        whole = {"model": body["model"], "created_at": "2026-11-22T13:08:11.7Z", **line}
        return Reply((json.dumps(whole).encode() + b"\n",), content_type="application/x-ndjson", delay=delay)


def _body(request: Seen) -> dict[str, Any]:
    if not request.body:
        raise Refused("missing request body", 400)
    try:
        found = json.loads(request.body)
    except ValueError as error:
        raise Refused("invalid character looking for beginning of value", 400) from error
    if not isinstance(found, dict):
        raise Refused("json: cannot unmarshal into Go value", 400)
    return found
