"""Tables for people, JSON for programs: the only importer of cattrs."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import cattrs
from cattrs.preconf.json import make_converter

from velollm_core.errors import VeloError
from velollm_core.figures import Rate

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

_converter = make_converter(forbid_extra_keys=False)
_converter.register_unstructure_hook(Path, str)
_converter.register_structure_hook(Path, lambda value, _: Path(value))
# cattrs sees a union of plain types as ambiguous; JSON already carries the right one.
_converter.register_structure_hook_func(lambda kind: kind == str | int | float | bool | None, lambda value, _: value)


def document(command: str, version: int = 1, /, **fields: object) -> dict[str, object]:
    """The JSON document of ``command``: its schema, then ``fields`` with nouns turned into plain values."""
    return {"schema": f"velollm.{command}/{version}", **{name: plain(value) for name, value in fields.items()}}


def plain(value: object) -> object:
    """``value`` as JSON's own types: nouns become objects, tuples lists, paths text."""
    return _converter.unstructure(value)


def to_json(value: Mapping[str, object]) -> str:
    """One JSON document, indented, ending in a newline; no NaN, which is not JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def print_json(value: Mapping[str, object]) -> None:
    """Write ``value`` to stdout as its only content."""
    sys.stdout.write(to_json(value))


def structure(value: object, cls: type[T], subject: str) -> T:
    """Plain values as a noun of class ``cls``.

    Raises:
        VeloError: a field is missing or of the wrong type; ``subject`` names the document.
    """
    try:
        return _converter.structure(value, cls)
    except (cattrs.BaseValidationError, TypeError, ValueError, KeyError, AttributeError) as error:
        detail = "; ".join(cattrs.transform_error(error, format_exception=_said)[:2])
        article = "an" if cls.__name__[0] in "AEIOU" else "a"
        raise VeloError(f"{subject}: not {article} {cls.__name__} ({detail})") from error


def _said(error: BaseException, kind: type | None) -> str:
    """What a noun itself says of its values, else cattrs' own words."""
    return str(error) if isinstance(error, VeloError) else cattrs.v.format_exception(error, kind)


def read_document(path: Path, command: str, field: str, cls: type[T]) -> T:
    """The ``field`` of a document that ``velollm <command> --json`` wrote.

    Raises:
        VeloError: the file is missing, not JSON, of another schema, or lacks the field.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VeloError(f"{path}: cannot be read as JSON ({error})") from error
    schema = value.get("schema") if isinstance(value, dict) else None
    if not isinstance(value, dict) or schema != f"velollm.{command}/1":
        raise VeloError(
            f"{path}: schema is {schema!r}, expected 'velollm.{command}/1'; write it with `velollm {command} --json`"
        )
    if field not in value:
        raise VeloError(f"{path}: has no {field!r}; write it with `velollm {command} --json`")
    return structure(value[field], cls, str(path))


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` whole or not at all.

    Raises:
        VeloError: the file cannot be written.
    """
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise VeloError(f"{path}: cannot be written ({error.strerror or error})") from error


def console(*, stderr: bool = False) -> Console:
    """A rich console; `soft_wrap` is left to the caller, colours follow the terminal and NO_COLOR."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def format_bytes(count: float | None) -> str:
    """Bytes with a binary unit: ``1.25 GiB``; ``unknown`` for None."""
    if count is None:
        return "unknown"
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} TiB"


def format_rate(rate: Rate | None, unit: str = "tokens/s") -> str:
    """``37.5 tokens/s (30.1–44.9, predicted)``; bandwidths read in GB/s with ``unit="B/s"``; ``unknown`` for None."""
    if rate is None:
        return "unknown"
    scale, shown = (1e9, "GB/s") if unit == "B/s" else (1.0, unit)
    interval = rate.interval
    span = f"{interval.low / scale:.1f}–{interval.high / scale:.1f}, " if interval else ""
    return f"{rate.value / scale:.1f} {shown} ({span}{rate.basis})"
