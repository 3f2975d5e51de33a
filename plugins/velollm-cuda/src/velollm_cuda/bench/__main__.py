"""``python -m velollm_cuda.bench PART [--json] [-o FILE]``: the bench where neither click nor plugins are installed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from velollm_core.errors import VeloError
from velollm_cuda.bench.names import PARTS
from velollm_cuda.bench.parts import run_part


def main(arguments: list[str] | None = None) -> int:
    """Measure a part; the exit code is 1 where it could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m velollm_cuda.bench", description="Measure the engine on this card."
    )
    parser.add_argument("part", choices=PARTS, help="what to measure")
    parser.add_argument("--json", action="store_true", help="write one JSON document")
    parser.add_argument("-o", "--output", type=Path, help="write the JSON document to FILE, and the text to stdout")
    options = parser.parse_args(arguments)
    try:
        report = run_part(options.part)
        if options.output:
            options.output.write_text(report.json, encoding="utf-8")
    except (VeloError, OSError) as error:
        print(f"velollm: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    sys.stdout.write(report.json if options.json else report.text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
