"""The page about Ollama's settings says what the tables say."""

from __future__ import annotations

from pathlib import Path

from velollm_ollama.guide import guide
from velollm_ollama.tables.names import NEVER
from velollm_ollama.tables.performance import PERFORMANCE

PAGE = Path(__file__).parents[3] / "docs" / "guides" / "CONFIG_GUIDE.md"


def test_the_page_is_what_the_tables_write() -> None:
    assert PAGE.read_text(encoding="utf-8") == guide(), "python -m velollm_ollama.guide > docs/guides/CONFIG_GUIDE.md"


def test_it_names_everything() -> None:
    text = guide()
    for variable in PERFORMANCE:
        assert f"`{variable.name}`" in text
    for name in NEVER:
        assert f"`{name}`" in text


def test_the_example_is_the_published_one() -> None:
    """1024, 544 and 288 MiB at 8192 tokens: the golden figures of llama.cpp itself."""
    line = next(line for line in guide().splitlines() if line.startswith("| 8192 | 1 |"))
    assert [cell.split()[0] for cell in line.split("|")[3:6]] == ["1073741824", "570425344", "301989888"]
