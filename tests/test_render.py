"""JSON for programs, figures for people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attrs import frozen

from velollm_core.errors import VeloError
from velollm_core.figures import Bytes, Interval, Rate
from velollm_core.render import (
    document,
    format_bytes,
    format_rate,
    plain,
    print_json,
    read_document,
    structure,
    to_json,
    write_text,
)


@frozen
class Sample:
    """A noun with every kind of field."""

    path: Path
    bytes: Bytes
    value: str | int | float | bool | None
    children: tuple[Interval, ...] = ()


SAMPLE = Sample(Path("a/b"), Bytes(3, "formula", Interval(1, 4)), True, (Interval(0.5, 1),))


def test_a_document_is_its_schema_and_its_fields() -> None:
    assert document("detect", sample=SAMPLE) == {
        "schema": "velollm.detect/1",
        "sample": {
            "path": "a/b",
            "bytes": {"value": 3, "basis": "formula", "interval": {"low": 1, "high": 4}},
            "value": True,
            "children": [{"low": 0.5, "high": 1}],
        },
    }


@pytest.mark.parametrize("value", ["text", 7, 0.5, False, None])
def test_a_document_reads_back(tmp_path: Path, value: str | float | None) -> None:
    sample = Sample(Path("x"), Bytes(1, "measured"), value)
    file = tmp_path / "sample.json"
    file.write_text(to_json(document("detect", sample=sample)))
    read = read_document(file, "detect", "sample", Sample)
    assert read == sample
    assert type(read.value) is type(value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "schema is None"),
        ('{"schema": "velollm.plan/1"}', "schema is 'velollm.plan/1', expected 'velollm.detect/1'"),
        ('{"schema": "velollm.detect/1"}', "has no 'sample'"),
        ('{"schema": "velollm.detect/1", "sample": {"path": "x"}}', "not a Sample"),
        ('{"schema": "velollm.detect/1", "sample": 3}', "not a Sample"),
    ],
)
def test_a_wrong_document_is_one_line(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "wrong.json"
    file.write_text(content)
    with pytest.raises(VeloError, match=says) as raised:
        read_document(file, "detect", "sample", Sample)
    assert "\n" not in str(raised.value)


def test_a_missing_document_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(VeloError, match="cannot be read"):
        read_document(tmp_path / "none.json", "detect", "sample", Sample)


def test_stdout_holds_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(document("detect", sample=SAMPLE))
    assert json.loads(capsys.readouterr().out)["schema"] == "velollm.detect/1"


def test_nan_is_not_json() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json({"value": float("nan")})


def test_plain_and_structure_are_inverse() -> None:
    assert structure(plain(SAMPLE), Sample, "here") == SAMPLE


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    write_text(target, "new")
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    with pytest.raises(VeloError, match="cannot be written"):
        write_text(tmp_path / "no" / "folder.json", "text")


@pytest.mark.parametrize(
    ("count", "shown"),
    [(None, "unknown"), (0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (3 << 29, "1.50 GiB"), (5 << 40, "5.00 TiB")],
)
def test_bytes_carry_a_binary_unit(count: int | None, shown: str) -> None:
    assert format_bytes(count) == shown


def test_a_rate_says_its_basis() -> None:
    assert format_rate(None) == "unknown"
    assert format_rate(Rate(37.52, "measured")) == "37.5 tokens/s (measured)"
    assert format_rate(Rate(2e10, "measured", Interval(1.8e10, 2.1e10)), "B/s") == "20.0 GB/s (18.0–21.0, measured)"
