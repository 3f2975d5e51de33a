"""Small transfers between host and device that make nobody wait."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import define, field
from torch import Tensor


def to_device(values: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """``values`` as a tensor on ``device``: through pinned memory, in the order of the stream."""
    if device.type != "cuda":
        return torch.tensor(values, dtype=dtype, device=device)
    return torch.tensor(values, dtype=dtype, pin_memory=True).to(device, non_blocking=True)


@define(eq=False)
class Returning:
    """Token ids on their way to the host."""

    _host: Tensor
    _event: torch.cuda.Event | None = field(default=None)

    @classmethod
    def of(cls, tokens: Tensor) -> Returning:
        """Begin to copy ``tokens [N]``."""
        if tokens.device.type != "cuda":
            return cls(tokens.clone())
        host = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
        host.copy_(tokens, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return cls(host, event)

    def wait(self) -> list[int]:
        """The token ids, once they are here."""
        if self._event is not None:
            self._event.synchronize()
        values: list[int] = self._host.tolist()
        return values
