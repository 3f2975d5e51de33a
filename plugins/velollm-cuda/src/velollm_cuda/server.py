"""A loaded model behind the core's server, until it is told to end."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable

from velollm_core.serving.server import serve
from velollm_core.serving.service import MOST_SECONDS, Service
from velollm_cuda.backend import OWNER
from velollm_cuda.served import ServedModel

SWITCH_SECONDS = 0.0005


def serve_model(
    served: ServedModel, *, host: str, port: int, api_key: str | None, ready: Callable[[str], None],
    most_seconds: float = MOST_SECONDS,
) -> None:  # fmt: skip
    """Serve until SIGINT or SIGTERM, then let the model go; ``ready`` is told the URL.

    A request may take ``most_seconds``.

    Raises:
        VeloError: the address cannot be had, or the engine failed; the text says why.
    """
    # The thread that takes in what a step gave shares the interpreter with the connections'. It needs a moment each
    # step, and must not wait for as long as a step takes; nor for the collector to walk through what stays.
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    try:
        service = Service(
            served.running, served.text, served.facts.max_model_len,
            abilities=frozenset({"penalties", "logprobs"}), defaults=served.text.sampling, most_seconds=most_seconds,
            owner=OWNER,
        )  # fmt: skip
        asyncio.run(serve(service, host=host, port=port, api_key=api_key, ready=ready))
    finally:
        served.close()
