"""The GGUF reader: sound files of every kind are read, unsound ones refused in one line, bounded in time and memory."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.errors import ModelFileError
from velollm_core.models import gguf as gguf_module
from velollm_core.models.files import read_model
from velollm_core.models.gguf import read_gguf, read_header
from velollm_core.models.gguf_cursor import HeaderIncomplete
from velollm_core.models.gguf_header import MAX_KEPT, parse_header
from velollm_core.models.metadata import LongArray

Make = Callable[..., bytes]


def parse(data: bytes, size: int | None = None) -> Any:
    return parse_header("test.gguf", data, len(data) if size is None else size)


def refused(data: bytes) -> str:
    with pytest.raises(ModelFileError) as caught:
        parse(data)
    assert not isinstance(caught.value, HeaderIncomplete)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("test.gguf: ")
    return str(caught.value)


def test_a_whole_file(small: bytes) -> None:
    header = parse(small)
    assert header.version == 3
    assert header.data_present
    assert header.file_bytes == len(small)
    assert header.metadata["llama.block_count"] == 2
    assert header.metadata["tokenizer.ggml.tokens"] == LongArray(3)
    assert [tensor.name for tensor in header.tensors][:2] == ["token_embd.weight", "output_norm.weight"]
    assert [tensor.bytes for tensor in header.tensors] == [384, 256, 64 * 128 * 34 // 32, 64 * 128 * 18 // 32]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [2, 3])
def test_versions_and_byte_orders(gguf: Make, llama: dict[str, Any], order: str, version: int) -> None:
    llama["llama.rope.freq_base"] = 500000.0
    llama["llama.attention.sliding_window_pattern"] = [True, False]
    data = gguf(llama, [("token_embd.weight", "f16", (64, 3))], order=order, version=version)
    header = parse(data)
    assert header.version == version
    assert header.metadata["llama.rope.freq_base"] == 500000.0
    assert header.metadata["llama.attention.sliding_window_pattern"] == (True, False)
    assert header.tensors[0].shape == (64, 3)


def test_a_header_without_its_data_is_sound(gguf: Make, llama: dict[str, Any], small_tensors: Any) -> None:
    data = gguf(llama, small_tensors, data=False)
    header = parse(data)
    assert not header.data_present
    assert len(header.tensors) == 4
    assert not parse(data[:-3]).data_present  # the padding before the data may be missing too


def test_a_file_that_ends_inside_its_data_is_truncated(small: bytes) -> None:
    assert "truncated: tensor 'blk.1.ffn_up.weight' ends at byte" in refused(small[:-1])
    assert "truncated" in refused(small[: parse(small).data_offset + 1])


def test_every_shorter_beginning_is_incomplete_or_truncated(small: bytes) -> None:
    end = parse(small).data_offset
    for cut in range(0, end - 31, 3):
        with pytest.raises(HeaderIncomplete) as caught:
            parse(small[:cut], len(small))
        assert cut < caught.value.needed <= end
        refused(small[:cut])


def test_a_sparse_file(gguf: Make, llama: dict[str, Any], tmp_path: Path) -> None:
    data = gguf(llama, [("token_embd.weight", "f16", (1 << 20, 1 << 16))], data=False)
    path = tmp_path / "sparse.gguf"
    path.write_bytes(data)
    os.truncate(path, len(data) + (1 << 37))
    spec = read_model(path)
    assert spec.data_present
    assert spec.tensor_bytes == 1 << 37
    assert spec.file_bytes == len(data) + (1 << 37)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "truncated"),
        (b"GGU", "truncated"),
        (b"GGML" + bytes(60), "not a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 4, 0, 0), "version 4"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), "9223372036854775808 tensors cannot fit"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**62), "metadata keys cannot fit"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**60) + bytes(64), "needs 1152921504606846976 bytes"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 0) + bytes(64), "a name of 0 characters"),
    ],
)
def test_absurd_beginnings(data: bytes, says: str) -> None:
    assert says in refused(data)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (struct.pack("<I", 99), "unknown type 99"),
        (struct.pack("<IIQ", 9, 9, 1), "unknown or nested type 9"),
        (struct.pack("<IIQ", 9, 8, 2**60), "counts 1152921504606846976 strings"),
        (struct.pack("<IIQ", 9, 4, 2**61), "truncated"),
        (struct.pack("<IIQQ", 9, 8, 1, 2**60), "reaches byte"),
        (struct.pack("<IQ", 8, 2**60), "truncated"),
    ],
)
def test_absurd_values(value: bytes, says: str) -> None:
    key = struct.pack("<Q", 3) + b"key"
    message = refused(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + value + bytes(256))
    assert says in message
    assert "key" in message


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"kind": 99}, "unknown type 99"),
        ({"kind": 4}, "unknown type 4"),
        ({"shape": (0, 4)}, "dimension of zero"),
        ({"shape": (2**62, 4)}, "absurd shape"),
        ({"shape": (32, 1, 1, 1, 1)}, "5 dimensions"),
        ({"shape": ()}, "0 dimensions"),
        ({"kind": "q4_k", "shape": (64,)}, "block 256"),
        ({"name": "x" * 64}, "64 bytes"),
        ({"offset": 32}, "where 0 is due"),
        ({"offset": 2**63}, "overlap or leave a hole"),
    ],
)
def test_unsound_tensors(writer: Any, entry: dict[str, Any], says: str) -> None:
    tensor = {"name": "t", "kind": "f32", "shape": (32,), "offset": 0} | entry
    data = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
    data += writer().tensor(tensor["name"], tensor["kind"], tensor["shape"], tensor["offset"])
    assert says in refused(data + bytes(512))


def test_two_tensors_that_overlap_or_share_a_name(gguf: Make, llama: dict[str, Any]) -> None:
    pair = [("a", "f32", (32,)), ("b", "f32", (32,))]
    assert "'b' lies at data offset 0 where 128 is due" in refused(gguf(llama, pair, offsets={"b": 0}))
    assert "'a' stands there twice" in refused(gguf(llama, [pair[0], pair[0]]))


def test_a_key_that_stands_there_twice(writer: Any) -> None:
    key = writer().text("key") + writer().value(1)
    assert "'key' stands there twice" in refused(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + key + key)


@pytest.mark.parametrize("alignment", [0, 3, -32, 1 << 21, "32"])
def test_an_alignment_that_is_none(gguf: Make, llama: dict[str, Any], alignment: Any) -> None:
    assert "general.alignment" in refused(gguf({**llama, "general.alignment": alignment}))


def test_another_alignment(gguf: Make, llama: dict[str, Any], small_tensors: Any) -> None:
    header = parse(gguf({**llama, "general.alignment": 128}, small_tensors, alignment=128))
    assert header.data_offset % 128 == 0
    assert header.tensors[1].offset == 384


def test_long_arrays_are_counted_not_kept(gguf: Make, llama: dict[str, Any]) -> None:
    llama["kept"], llama["counted"] = [7] * MAX_KEPT, [7] * (MAX_KEPT + 1)
    metadata = parse(gguf(llama)).metadata
    assert metadata["kept"] == (7,) * MAX_KEPT
    assert metadata["counted"] == LongArray(MAX_KEPT + 1)


def test_a_big_vocabulary_takes_little_memory(gguf: Make, llama: dict[str, Any]) -> None:
    data = gguf({**llama, "tokenizer.ggml.tokens": [f"token {number}" for number in range(200_000)]})
    tracemalloc.start()
    assert parse(data).metadata["tokenizer.ggml.tokens"] == LongArray(200_000)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_file_is_read_in_growing_pieces(small: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_module, "FIRST_READ", 7)
    (tmp_path / "small.gguf").write_bytes(small)
    assert read_header(tmp_path / "small.gguf") == parse_header("small.gguf", small, len(small))


def test_a_header_longer_than_any_is_given_up(small: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_module, "FIRST_READ", 8)
    monkeypatch.setattr(gguf_module, "MAX_HEADER", 100)
    (tmp_path / "long.gguf").write_bytes(small)
    with pytest.raises(ModelFileError, match="not a sound GGUF"):
        read_header(tmp_path / "long.gguf")


def test_no_file_and_no_gguf(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        read_model(tmp_path / "absent.gguf")
    with pytest.raises(ModelFileError, match="without a GGUF"):
        read_model(tmp_path)
    (tmp_path / "text.gguf").write_text("this is no model")
    with pytest.raises(ModelFileError, match="not a GGUF file"):
        read_model(tmp_path / "text.gguf")


def split(gguf: Make, llama: dict[str, Any], tensors: Any, folder: Path) -> Sequence[Path]:
    paths = []
    for part in range(2):
        keys = {"split.no": part, "split.count": 2, "split.tensors.count": len(tensors)}
        path = folder / f"model-{part + 1:05}-of-00002.gguf"
        path.write_bytes(gguf({**(llama if part == 0 else {}), **keys}, tensors[part * 2 : part * 2 + 2]))
        paths.append(path)
    return paths


def test_a_split_model_by_any_of_its_parts(
    gguf: Make, llama: dict[str, Any], small_tensors: Any, tmp_path: Path
) -> None:
    paths = split(gguf, llama, small_tensors, tmp_path)
    whole = read_model(paths[0])
    assert read_model(paths[1]).tensors == whole.tensors
    assert [tensor.part for tensor in whole.tensors] == [0, 0, 1, 1]
    assert whole.file_bytes == sum(path.stat().st_size for path in paths)
    assert whole.source == str(paths[0])
    assert read_model(tmp_path).tensors == whole.tensors


def test_a_split_model_with_a_part_missing_renamed_or_swapped(
    gguf: Make, llama: dict[str, Any], small_tensors: Any, tmp_path: Path
) -> None:
    first, second = split(gguf, llama, small_tensors, tmp_path)
    second.rename(tmp_path / "elsewhere.gguf")
    with pytest.raises(ModelFileError, match=r"00002-of-00002.gguf: no such file"):
        read_gguf(first)
    with pytest.raises(ModelFileError, match="not named NAME-00001"):
        read_gguf(tmp_path / "elsewhere.gguf")
    second.write_bytes(first.read_bytes())
    with pytest.raises(ModelFileError, match="part 2 of 2 says another number"):
        read_gguf(first)
    keys = {"split.no": 1, "split.count": 2}
    second.write_bytes(gguf(keys, [("token_embd.weight", "f16", (64, 3))]))
    with pytest.raises(ModelFileError, match="a tensor stands in two parts"):
        read_gguf(first)
    second.write_bytes(gguf(keys, [("blk.1.x.weight", "f16", (64, 3))]))
    with pytest.raises(ModelFileError, match="4 tensors announced"):
        read_gguf(first)


def sound_or_one_line(data: bytes) -> None:
    said = ""
    try:
        parse(data)
    except ModelFileError as error:
        said = str(error)
    assert said.isprintable()
    assert len(said) < 400


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_behind_the_magic(data: bytes) -> None:
    sound_or_one_line(b"GGUF" + struct.pack("<I", 3) + data)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_mutation_of_a_sound_file(small: bytes, data: st.DataObject) -> None:
    end = parse(small).data_offset
    changed = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, end - 8))
        changed[position : position + 8] = data.draw(
            st.sampled_from([bytes(8), b"\xff" * 8, struct.pack("<Q", 2**63), struct.pack("<Q", 2**31)])
            | st.binary(min_size=8, max_size=8)
        )
    sound_or_one_line(bytes(changed))


@settings(max_examples=100, deadline=None)
@given(
    metadata=st.dictionaries(
        st.text(min_size=1, max_size=20),
        st.integers(-(2**63), 2**63 - 1)
        | st.booleans()
        | st.text(max_size=50)
        | st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20)
        | st.lists(st.text(max_size=8), min_size=1, max_size=20),
        max_size=8,
    ),
    order=st.sampled_from(["<", ">"]),
)
def test_what_is_written_is_read(gguf: Make, metadata: dict[str, Any], order: str) -> None:
    metadata.pop("general.alignment", None)
    found = parse(gguf(metadata, order=order)).metadata
    for key, value in metadata.items():
        if isinstance(value, list):
            assert found[key] == (LongArray(len(value)) if isinstance(value[0], str) else tuple(value))
        else:
            assert found[key] == value
