"""Elements of HTML and SVG as text, everything from outside escaped."""

from __future__ import annotations

import html
import re

# What XML 1.0 does not allow even escaped: control characters, lone surrogates, non-characters.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Markup(str):
    """Text that is HTML already; any other text is escaped when it is put into an element."""

    __slots__ = ()


def clean(text: str) -> str:
    """``text`` with what no document may hold replaced by U+FFFD."""
    return _FORBIDDEN.sub("\ufffd", text)


def escape(text: str) -> Markup:
    """``text`` as it stands in an element or an attribute; markup is left as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(clean(text)))


def element(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """One element. ``class_`` is ``class``, other underscores are hyphens; attributes of None are left out."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if not children and name in ("line", "rect", "path", "circle", "col"):
        return Markup(f"<{name}{shown}/>")
    return Markup(f"<{name}{shown}>{''.join(escape(child) for child in children)}</{name}>")


def join(parts: list[Markup] | tuple[Markup, ...], between: str = "") -> Markup:
    """Several pieces of markup as one."""
    return Markup(between.join(parts))


def number(value: float) -> str:
    """A coordinate, to a hundredth of a pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else number(value)
