"""What can go wrong, as one tree.

VeloError                 shown as one line, exit code 1
├── BackendError          it answered, but not with what was asked for
│   └── BackendUnreachable
├── ModelFileError        a GGUF or config that cannot be read: says which key or offset
├── ModelRefused          a model or setting that the engine itself would refuse to load: says why
├── PluginError           a plugin broke its contract; names plugin, distribution, version
└── OutOfBlocks           a request can never fit the cache

Wrong usage stays click's ``UsageError`` (exit code 2). Programming errors are not caught.
"""


class VeloError(Exception):
    """A failure the user can act on: its text is one line naming the subject, what was found, what to do."""


class BackendError(VeloError):
    """A backend answered, but not with what was asked for."""

    def __init__(self, message: str, *, status: int | None = None, kind: str = "error") -> None:
        """``status`` is the HTTP status where there was one; ``kind`` groups failures in a report."""
        super().__init__(message)
        self.status = status
        self.kind = kind


class BackendUnreachable(BackendError):
    """Nobody answered at the backend's address, or not in time."""

    def __init__(self, message: str, *, kind: str = "unreachable") -> None:
        super().__init__(message, kind=kind)


class ModelFileError(VeloError):
    """A model file or configuration cannot be read; the text names the key or the offset."""


class ModelRefused(VeloError):
    """The engine would refuse this model with these settings; the text gives its reason."""


class PluginError(VeloError):
    """A plugin broke its contract; the text names plugin, distribution and version."""


class OutOfBlocks(VeloError):
    """A request can never fit the KV cache; the text gives the arithmetic."""
