"""How the server says no: status and body as OpenAI's clients expect them."""

from __future__ import annotations

from velollm_core.engine.streams import EngineBusy, EngineStopped
from velollm_core.errors import BackendError, OutOfBlocks, PluginError, VeloError


class Refusal(VeloError):
    """A request that is not served; ``param`` names the field at fault, ``code`` the kind for programs."""

    def __init__(
        self, message: str, *, status: int = 400, kind: str = "invalid_request_error",
        param: str | None = None, code: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.kind, self.param, self.code = status, kind, param, code

    @classmethod
    def of(cls, error: VeloError, *, is_chat: bool) -> Refusal:
        """The refusal that ``error`` amounts to; a chat is given in other fields than a completion."""
        if isinstance(error, Refusal):
            return error
        if isinstance(error, OutOfBlocks):
            return cls(str(error), code="context_length_exceeded", param="messages" if is_chat else "prompt")
        if isinstance(error, EngineBusy):
            return cls(str(error), status=429, kind="rate_limit_error", code="queue_full")
        if isinstance(error, (EngineStopped, BackendError, PluginError)):
            return cls(str(error), status=503, kind="unavailable_error")
        return cls(str(error))

    @property
    def body(self) -> dict[str, object]:
        """The JSON document."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}
