"""The aiohttp application: routes, key, bounds, and every error as a document."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from velollm_core.errors import VeloError
from velollm_core.serving.refusals import Refusal
from velollm_core.serving.service import Service

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LARGEST_BODY = 16 * 2**20
KEYLESS = {"/health"}
CHAT = "/v1/chat/completions"
LARGEST = web.AppKey("largest_body", int)


def make_app(service: Service, *, api_key: str | None = None, largest_body: int = LARGEST_BODY) -> web.Application:
    """The server's application. With ``api_key`` all but ``/health`` asks for it; bodies are bounded, in bytes."""
    app = web.Application(client_max_size=largest_body, middlewares=[_documented, _keyed(api_key)])
    # aiohttp does not say the bound where it refuses a body.
    app[LARGEST] = largest_body
    app.router.add_get("/health", service.health)
    app.router.add_get("/metrics", service.metrics)
    app.router.add_get("/v1/models", service.models)
    app.router.add_get("/v1/models/{name:.+}", service.named_model)
    app.router.add_post("/v1/completions", service.completions)
    app.router.add_post(CHAT, service.chat)
    return app


@web.middleware
async def _documented(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors in the form that OpenAI's clients read."""
    try:
        return await handler(request)
    except VeloError as error:
        refusal = Refusal.of(error, is_chat=request.path == CHAT)
        headers = {"Retry-After": "1"} if refusal.status in (429, 503) else {}
        return web.json_response(refusal.body, status=refusal.status, headers=headers)
    except web.RequestPayloadError as error:
        refusal = Refusal(f"the body cannot be read: {' '.join(str(error).split())}")
        return web.json_response(refusal.body, status=refusal.status)
    except web.HTTPException as error:
        reason = f"{error.reason}; {request.app[LARGEST]} bytes may come" if error.status == 413 else error.reason
        refusal = Refusal(f"{request.method} {request.path}: {reason}", status=error.status)
        return web.json_response(refusal.body, status=error.status, headers=_kept(error))


def _kept(error: web.HTTPException) -> dict[str, str]:
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}


def _keyed(api_key: str | None) -> Middleware:
    expected = f"Bearer {api_key}".encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode(errors="replace")
        if api_key is not None and request.path not in KEYLESS and not hmac.compare_digest(given, expected):
            raise Refusal(
                "this server asks for its API key: send `Authorization: Bearer KEY`",
                status=401, kind="authentication_error", code="invalid_api_key",
            )  # fmt: skip
        return await handler(request)

    return check
