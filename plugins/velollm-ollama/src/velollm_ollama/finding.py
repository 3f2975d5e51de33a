"""What is wrong with a setting."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Severity = Literal["error", "warning"]


@frozen
class Finding:
    """One line about one variable. An ``error`` does not do what its text says, or breaks the server."""

    severity: Severity
    name: str
    value: str
    message: str

    def __str__(self) -> str:
        """The finding as it is shown."""
        return f"{self.severity}: {self.name}={self.value}: {self.message}"
