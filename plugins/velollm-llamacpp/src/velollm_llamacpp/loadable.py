"""A file that llama.cpp opens for a model whose weights need not be here: its header, with a hole for the rest."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from velollm_core.errors import BackendError
from velollm_core.models.gguf import read_header

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
    path = Path(model.source)
    if model.format != "gguf" or not path.is_file():
        raise BackendError(f"llamacpp: no GGUF header of {model.name} is on this machine", kind="unsupported")
    if model.data_present:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="velollm-") as folder:
        yield sparse_copy(path, Path(folder))


def sparse_copy(header_file: Path, folder: Path) -> Path:
    """Copy the header in ``header_file`` into ``folder`` and let a hole stand for its data; takes no disk space.

    Raises:
        ModelFileError: the header is unsound.
        BackendError: the file system cannot hold a hole of that size.
    """
    header = read_header(header_file)
    copy = folder / header_file.name
    with header_file.open("rb") as source, copy.open("wb") as target:
        target.write(source.read(header.data_offset))
    try:
        os.truncate(copy, full_size(header))
    except OSError as error:
        reason = f"llamacpp: {folder} cannot hold a sparse file of {full_size(header)} bytes: {error.strerror}"
        raise BackendError(reason, kind="unsupported") from error
    return copy


def full_size(header: GgufHeader) -> int:
    """Bytes of the whole file by its own tensor table."""
    ends = (tensor.offset + -(-tensor.bytes // ALIGNMENT) * ALIGNMENT for tensor in header.tensors)
    return max(header.file_bytes, header.data_offset + max(ends, default=0))
