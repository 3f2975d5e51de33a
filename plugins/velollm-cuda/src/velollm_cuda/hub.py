"""Finding a model: a folder on this machine, or a repository of the hub."""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import Path

from velollm_core.errors import ModelFileError

CONFIGURATION = ("*.json", "*.jinja")
WEIGHTS = ("*.safetensors",)
# Some repositories carry a second copy of the weights, under these names or in folders of their own.
COPIES = ("*/*", "consolidated*.safetensors")
HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")


def find_model(name: str | Path, *, revision: str | None = None, weights: bool = True) -> Path:
    """The folder of model ``name``: a folder's path, or a hub id, downloaded once and then read from the hub's cache.

    Without ``weights`` only the configuration is fetched. ``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN`` and
    ``HF_HUB_OFFLINE`` mean what they mean to every program of the hub.

    Raises:
        ModelFileError: there is neither, or the hub refuses or cannot be reached.
    """
    path = Path(name).expanduser()
    if str(name) and path.is_dir():
        return path
    if path.is_file():
        raise ModelFileError(f"{path}: is a file; give the folder with config.json and safetensors files")
    identifier = str(name)
    if not HUB_ID.fullmatch(identifier):
        raise ModelFileError(f"{identifier}: no such folder, and not a hub id (owner/name)")
    return _download(identifier, revision, (*CONFIGURATION, *WEIGHTS) if weights else CONFIGURATION)


def _download(identifier: str, revision: str | None, wanted: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            identifier, revision=revision, allow_patterns=list(wanted), ignore_patterns=list(COPIES)
        )
    except (OSError, ValueError, LookupError) as error:
        raise ModelFileError(f"{identifier}: {_reason(error, revision)}") from error
    return Path(folder)


def _reason(error: Exception, revision: str | None) -> str:
    """What the hub's exception means to whoever asked for the model."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "the hub wants its terms accepted first; do that on its page, then set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the hub has no revision {revision!r} of it"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such folder here, and the hub has no such model; check the name, or set HF_TOKEN if it is private"
    status = _status(error)
    if status == HTTPStatus.UNAUTHORIZED:
        return "the hub does not take the token that it was given; check HF_TOKEN, or log in anew"
    if status is not None and isinstance(error, errors.LocalEntryNotFoundError):
        return f"not in the hub's cache, and the hub answers {status}; try again later"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "not in the hub's cache, and the hub cannot be reached; check the network, HF_ENDPOINT, HF_HUB_OFFLINE"
    return f"the hub answers: {' '.join(str(error).split())[:200] or type(error).__name__}"


def _status(error: BaseException | None) -> int | None:
    """The HTTP status behind ``error``, None where nobody answered."""
    from huggingface_hub.errors import HfHubHTTPError

    while error is not None:
        if isinstance(error, HfHubHTTPError) and getattr(error, "response", None) is not None:
            return int(error.response.status_code)
        error = error.__cause__ or error.__context__
    return None
