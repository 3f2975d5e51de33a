"""docs/benchmarks.md out of the JSON documents that the benches wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Document = dict[str, Any]
ORDER = ("kernels", "prefill", "e2e-1b", "e2e-8b", "e2e-0.6b", "host", "online")
HEAD = """# Benchmarks

Every number here was printed by the command above its table, on the machine that is named there, and comes out of
`benchmarks/results/` by `make docs`. Medians, with the least and the most of the repeats in brackets. Shares are of a
floor computed from rates measured in the same run: weights and live KV read once a step at the card's own copy rate,
prefill at its own matmul rate, nothing else costing anything. SDPA is torch's cuDNN backend on contiguous KV.

"""


def benchmarks_page(folder: Path) -> str:
    """The page over the results in ``folder``: ``notes.md`` first, then a section for each part."""
    notes = folder / "notes.md"
    sections = [_section(json.loads(path.read_text())) for path in _results(folder)]
    return HEAD + (notes.read_text() + "\n" if notes.exists() else "") + "\n".join(sections)


def _results(folder: Path) -> list[Path]:
    found = {path.stem: path for path in folder.glob("*.json")}
    return [found[part] for part in ORDER if part in found]


def _section(document: Document) -> str:
    machine = document["machine"]
    where = f"{machine['card'] or 'no GPU'}, driver {machine['driver']}" if machine["card"] else "two cores of a CPU"
    lines = [
        f"## {document['part']}",
        "",
        f"    velollm cuda bench {document['part']}",
        "",
        f"{where}; torch {machine['torch']}, triton {machine['triton']}; commit {document.get('commit', 'unknown')}.",
        "",
    ]
    if document["rates"]:
        rates = ", ".join(f"{name} {_figure(figure)}" for name, figure in document["rates"].items())
        lines += [f"The card's own rates in this run: {rates}.", ""]
    lines += ["| what | figures |", "|---|---|"]
    lines += [f"| {each['name']} | {_figures(each)} |" for each in document["measurements"]]
    lines.append("")
    if document["bars"]:
        lines += ["| bar | reached | bound | |", "|---|---|---|---|"]
        lines += [_bar(bar) for bar in document["bars"]]
        lines.append("")
    return "\n".join(lines)


def _figures(measurement: Document) -> str:
    parts = [f"{name} {_figure(figure)}" for name, figure in measurement["figures"].items()]
    if note := measurement.get("note"):
        parts.append(str(note))
    return "; ".join(parts).replace("|", "\\|")


def _figure(figure: Document) -> str:
    value, low, high = (f"{figure[key]:,.4g}" for key in ("value", "low", "high"))
    spread = f" ({low}–{high})" if low != high else ""
    return f"{value}{spread} {figure['unit']}"


def _bar(bar: Document) -> str:
    sign = "≤" if bar["at_most"] else "≥"
    verdict = "not judged on this card" if bar["reached"] is None else "reached" if bar["reached"] else "**missed**"
    aim = f", aim {bar['aim']:g}" if bar["aim"] is not None else ""
    return f"| {bar['name']} | {bar['value']:,.4g} {bar['unit']} | {sign} {bar['bound']:g}{aim} | {verdict} |"
