"""A file that llama.cpp opens for a model whose weights need not be here: its header, with a hole for the rest."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from velollm_core.errors import BackendError
from velollm_core.models.gguf import part_names, read_header, split_count

if TYPE_CHECKING:
    from velollm_core.models.gguf_header import GgufHeader
    from velollm_core.models.spec import ModelSpec

ALIGNMENT = 32


@contextmanager
def loadable(model: ModelSpec) -> Iterator[Path]:
    """The model's own file where its data is there, else a sparse copy of its header, gone afterwards.

    Raises:
        BackendError: neither the file nor its header is on this machine.
    """
    path = Path(model.source if model.data_present else model.header or model.source).expanduser()
    if model.format != "gguf" or not path.is_file():
        raise BackendError(f"llamacpp: no GGUF header of {model.name} is on this machine", kind="unsupported")
    if model.data_present:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="velollm-") as folder:
        yield sparse_copy(path, Path(folder))


def sparse_copy(first: Path, folder: Path) -> Path:
    """Copy the header in ``first``, and those of the other parts of a split model beside it, into ``folder``.

    A hole stands for the data of each: it takes no disk space. Returns the copy of ``first``.

    Raises:
        ModelFileError: a header is missing or unsound.
        BackendError: the file system cannot hold a hole of that size.
    """
    header = read_header(first)
    names = part_names(first.name, header) if split_count(first.name, header) > 1 else [first.name]
    for name in names:
        _copy(first.with_name(name), folder / name)
    return folder / names[0]


def _copy(source: Path, target: Path) -> None:
    header = read_header(source)
    with source.open("rb") as file:
        target.write_bytes(file.read(header.data_offset))
    try:
        os.truncate(target, full_size(header))
    except OSError as error:
        reason = f"{target.parent} cannot hold a sparse file of {full_size(header)} bytes: {error.strerror}"
        raise BackendError(f"llamacpp: {reason}", kind="unsupported") from error


def full_size(header: GgufHeader) -> int:
    """Bytes of the whole file by its own tensor table."""
    ends = (tensor.offset + -(-tensor.bytes // ALIGNMENT) * ALIGNMENT for tensor in header.tensors)
    return max(header.file_bytes, header.data_offset + max(ends, default=0))
