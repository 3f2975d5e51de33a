"""Write the documents that are generated: `make docs`. With ``--check``, say which are not what would be written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks_page import benchmarks_page
from velollm_ollama.guide import guide

ROOT = Path(__file__).parents[1]
PAGES: dict[Path, Callable[[], str]] = {
    ROOT / "docs" / "guides" / "CONFIG_GUIDE.md": guide,
    ROOT / "docs" / "benchmarks.md": lambda: benchmarks_page(ROOT / "benchmarks" / "results"),
}


def main() -> int:
    """Write every page, or only compare."""
    stale = [path for path, page in PAGES.items() if not path.exists() or path.read_text() != page()]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'is not what would be written' if '--check' in sys.argv else 'written'}")
        if "--check" not in sys.argv:
            path.write_text(PAGES[path]())
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
