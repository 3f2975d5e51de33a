"""LocalAI's hooks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from velollm_core.config import connection
from velollm_core.hookspecs import hookimpl
from velollm_localai.backend import LocalAIBackend

if TYPE_CHECKING:
    from velollm_core.backends.backend import Backend

DEFAULT_URL = "http://127.0.0.1:8080"


@hookimpl
def detect() -> list[Backend]:
    """Offer the LocalAI at the configured address, else at its own default one."""
    where = connection("localai")
    # LocalAI itself reads LOCALAI_API_KEY as a list of keys, any of which is good.
    api_key = where.api_key or os.environ.get("LOCALAI_API_KEY", "").split(",")[0]
    return [LocalAIBackend(where.url or DEFAULT_URL, api_key)]
