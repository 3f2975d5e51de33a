"""What a plan needs to know of one server, learned before: planning itself asks nobody."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from velollm_core.backends.setting import Value
from velollm_ollama.evidence import Evidence
from velollm_ollama.version import NEWEST, Version


@frozen
class Facts:
    """``evidence`` is what was read of the server, None where it was not asked. ``own`` are the model's parameters.

    ``completes`` is False for a model that only embeds, which gets one slot.
    """

    evidence: Evidence | None = None
    own: Mapping[str, Value] = field(factory=dict)
    completes: bool = True

    @property
    def version(self) -> Version:
        """The server's version, the newest known one where it is not known."""
        return (self.evidence.version if self.evidence else None) or NEWEST
