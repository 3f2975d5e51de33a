"""Reading the fields of a request, each with its type and its bounds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from velollm_core.serving.refusals import Refusal

Fields = Mapping[str, object]
_PERHAPS_HALF = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")


def parse(body: bytes) -> Fields:
    """The fields of a request's ``body``.

    Raises:
        Refusal: it is no JSON, no object, or holds half of a character: what a client sends that cuts its strings in
            UTF-16. No tokenizer reads that.
    """
    try:
        text = body.decode(json.detect_encoding(body), "surrogatepass")
        fields = json.loads(text)
        if _PERHAPS_HALF.search(text):
            json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start : error.start + 1])
        raise Refusal(f"the body holds {half}, half of a character; cut strings between whole ones") from error
    except (ValueError, RecursionError) as error:
        raise Refusal(f"the body is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise Refusal("the body must be a JSON object")
    return fields


def whole(fields: Fields, name: str, default: int, low: int, high: int) -> int:
    """An integer from ``low`` to ``high``; null counts as absent."""
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Refusal(f"{name} must be a whole number from {low} to {high}, found {value!r}", param=name)
    return value


def number(fields: Fields, name: str, default: float, low: float, high: float) -> float:
    """A number from ``low`` to ``high``; null counts as absent."""
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise Refusal(f"{name} must be a number from {low:g} to {high:g}, found {value!r}", param=name)
    return float(value)


def flag(fields: Fields, name: str, *, default: bool = False) -> bool:
    """True or false; null counts as absent."""
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Refusal(f"{name} must be true or false, found {value!r}", param=name)
    return value


def text(fields: Fields, name: str, default: str = "") -> str:
    """A string; null counts as absent."""
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise Refusal(f"{name} must be a string, found {value!r:.80}", param=name)
    return value


def section(fields: Fields, name: str) -> Fields:
    """An object; null counts as an empty one."""
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refusal(f"{name} must be an object, found {value!r:.80}", param=name)
    return value
