"""Typed access to a model's metadata, in the shape of the GGUF keys, whoever supplied them."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from velollm_core.errors import ModelFileError
from velollm_core.models.wording import one_line

MAX_LAYERS = 512
"""More blocks than llama.cpp loads: a bound on what per-layer work an absurd header can cause."""


@frozen
class LongArray:
    """An array that was counted, not kept: a vocabulary, its scores and merges."""

    length: int


Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...] | LongArray


@frozen
class Metadata:
    """The keys of one model; ``{a}.`` in a key stands for its architecture.

    Every method raises `ModelFileError` naming the key for a missing required key or a value of the wrong kind.
    """

    source: str
    values: Mapping[str, Value]

    @property
    def architecture(self) -> str:
        """``general.architecture``."""
        value = self.values.get("general.architecture")
        if not isinstance(value, str) or not value:
            raise ModelFileError(one_line(f"{self.source}: general.architecture is {value!r}, not a name"))
        return value

    @property
    def block_count(self) -> int:
        """Blocks in the file, 1 to 512."""
        count = self.integer("{a}.block_count")
        if not 0 < count <= MAX_LAYERS:
            raise self.error("{a}.block_count", f"1 to {MAX_LAYERS}")
        return count

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return self._key(key) in self.values

    def integer(self, key: str, default: int | None = None) -> int:
        """A count; ``default`` where the key is missing, an error where there is no default either."""
        value = self._get(key)
        if value is None:
            if default is None:
                raise ModelFileError(one_line(f"{self.source}: the key {self._key(key)} is missing"))
            return default
        return self._count(key, value)

    def text(self, key: str, default: str = "") -> str:
        """A string, ``default`` where the key is missing."""
        value = self._get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.error(key, "text")
        return value

    def length(self, key: str) -> int | None:
        """How many elements an array has; None where there is no such array."""
        value = self._get(key)
        if isinstance(value, LongArray):
            return value.length
        return len(value) if isinstance(value, tuple) else None

    def per_layer(self, key: str, count: int, default: tuple[int, ...] | int | None = None) -> tuple[int, ...]:
        """One count per layer, from a scalar or an array of exactly ``count``."""
        value = self._get(key)
        if value is None:
            if default is None:
                raise ModelFileError(one_line(f"{self.source}: the key {self._key(key)} is missing"))
            return default if isinstance(default, tuple) else (default,) * count
        if not isinstance(value, tuple):
            return (self._count(key, value),) * count
        if len(value) != count:
            raise self.error(key, f"an array of {count}")
        return tuple(self._count(key, element) for element in value)

    def flags(self, key: str, count: int) -> tuple[bool, ...] | None:
        """One flag per layer from an array, missing ones False; None where the key is no array."""
        value = self._get(key)
        if isinstance(value, LongArray):
            raise self.error(key, f"an array of up to {MAX_LAYERS}")
        if not isinstance(value, tuple):
            return None
        if not value:
            raise self.error(key, "one flag per layer: whoever reported it left it out")
        found = tuple(bool(self._count(key, element)) for element in value)
        return (found + (False,) * count)[:count]

    def counts(self, key: str) -> tuple[int, ...] | None:
        """An array of counts as it is; None where the key is no array."""
        value = self._get(key)
        if not isinstance(value, tuple):
            return None
        return tuple(self._count(key, element) for element in value)

    def _key(self, key: str) -> str:
        return key.replace("{a}", self.architecture) if "{a}" in key else key

    def _get(self, key: str) -> Value | None:
        return self.values.get(self._key(key))

    def _count(self, key: str, value: Value) -> int:
        if not isinstance(value, int) or not 0 <= value < 1 << 32:
            raise self.error(key, "a count")
        return int(value)

    def error(self, key: str, wanted: str) -> ModelFileError:
        """The error for a key whose value is not what was wanted."""
        value = self._get(key)
        return ModelFileError(one_line(f"{self.source}: {self._key(key)} is {str(value)[:60]}, not {wanted}"))
