"""Small transfers between host and device that make nobody wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Self, TypeVar

import torch
from attrs import define, field
from torch import Tensor


def to_device(values: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """``values`` as a tensor on ``device``: through pinned memory, in the order of the stream."""
    if device.type != "cuda":
        return torch.tensor(values, dtype=dtype, device=device)
    return torch.tensor(values, dtype=dtype, pin_memory=True).to(device, non_blocking=True)


Number = TypeVar("Number", int, float, list[float])


@define(eq=False)
class Returning(Generic[Number]):
    """Token ids, or log probabilities, on their way to the host; one of each row, or several."""

    _host: Tensor
    _event: torch.cuda.Event | None = field(default=None)

    @classmethod
    def of(cls, values: Tensor) -> Self:
        """Begin to copy ``values [N]`` or ``[N, M]``."""
        if values.device.type != "cuda":
            return cls(values.clone())
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return cls(host, event)

    def wait(self) -> list[Number]:
        """The values, once they are here."""
        if self._event is not None:
            self._event.synchronize()
        values: list[Number] = self._host.tolist()
        return values
