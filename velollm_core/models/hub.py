"""Names of remote models: ``hf:org/repo/file.gguf``, ``hf:org/repo:Q4_K_M``, ``hf:org/repo``, or a URL."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from attrs import frozen

from velollm_core.errors import ModelFileError

PREFERRED = ("Q4_K_M", "Q4_0", "MXFP4")
"""Taken in this order where a repository has several files and nobody said which; the first is llama.cpp's choice."""
_REFERENCE = re.compile(
    r"hf:(?P<repo>[\w.-]+/[\w.-]+?)(?:/(?P<file>[^@:]+\.gguf)|:(?P<quant>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?"
)
_TRUE = {"1", "ON", "YES", "TRUE"}


@frozen
class Reference:
    """A model on a hub: one ``file``, the files of one quantization, or whatever the repository holds."""

    repo: str
    file: str | None = None
    quantization: str | None = None
    revision: str = "main"

    def source(self, file: str | None) -> str:
        """The name under which ``file`` of this repository is found again."""
        path = f"/{file}" if file else ""
        return f"hf:{self.repo}{path}" + (f"@{self.revision}" if self.revision != "main" else "")


def parse_reference(name: str) -> Reference:
    """Take ``hf:…`` apart.

    Raises:
        ModelFileError: it is of none of the forms.
    """
    match = _REFERENCE.fullmatch(name)
    if match is None:
        raise ModelFileError(
            f"{name}: expected hf:org/repo/file.gguf, hf:org/repo:Q4_K_M or hf:org/repo, each with @revision"
        )
    return Reference(match["repo"], match["file"], match["quant"], match["revision"] or "main")


def endpoint() -> str:
    """The hub's address: ``HF_ENDPOINT``, else huggingface.co."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` forbids to ask the hub."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE


def token() -> str | None:
    """The user's token: ``HF_TOKEN``, or what `hf auth login` kept."""
    from huggingface_hub import get_token

    return get_token()


def file_url(reference: Reference, file: str) -> str:
    """Where the hub keeps ``file``."""
    from huggingface_hub import hf_hub_url

    return hf_hub_url(reference.repo, file, revision=reference.revision, endpoint=endpoint())


def listing_url(reference: Reference) -> str:
    """Where the hub lists the repository's files."""
    return f"{endpoint()}/api/models/{reference.repo}/revision/{reference.revision}"


def cached_file(reference: Reference, file: str) -> str | None:
    """The path of ``file`` where the hub's client has it whole in its cache."""
    from huggingface_hub import try_to_load_from_cache

    cache = os.environ.get("HF_HUB_CACHE")
    found = try_to_load_from_cache(reference.repo, file, cache_dir=cache, revision=reference.revision)
    return found if isinstance(found, str) else None


def pick_gguf(reference: Reference, files: Sequence[str]) -> str | None:
    """The first file of the model that ``reference`` means, None where the repository has no GGUF.

    Projectors are no models, and of a split model the first part stands for all.

    Raises:
        ModelFileError: the wanted quantization is not there; the text names those that are.
    """
    models = sorted(file for file in files if file.endswith(".gguf") and "mmproj" not in file.lower())
    firsts = [file for file in models if not re.search(r"-(?!00001)\d{5}-of-\d{5}\.gguf$", file)]
    if reference.quantization is not None:
        found = [file for file in firsts if _is_quantized(file, reference.quantization)]
        if not found:
            known = ", ".join(firsts) or "no GGUF at all"
            raise ModelFileError(f"hf:{reference.repo}: nothing called {reference.quantization}; there is {known}")
        return found[0]
    for quantization in PREFERRED:
        for file in firsts:
            if _is_quantized(file, quantization):
                return file
    return firsts[0] if firsts else None


def url_name(url: str) -> str:
    """The file's name at the end of a URL."""
    return unquote(urlsplit(url).path.rsplit("/", 1)[-1]) or url


def _is_quantized(file: str, quantization: str) -> bool:
    return re.search(rf"(?:^|[-._/]){re.escape(quantization)}(?=[-./])", file, re.IGNORECASE) is not None
