"""What `velollm plan` was asked for, and the settings that means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from velollm_core.models.load import FlashAttention, LoadSettings

if TYPE_CHECKING:
    from velollm_core.models.spec import ModelSpec

# Tokens a request may use where nobody says: enough to work with, small enough to start anywhere.
DEFAULT_CONTEXT = 8192


@frozen
class Asked:
    """The options of one plan; None means not given.

    ``context`` is what one request may use, ``total_context`` llama.cpp's ``-c`` instead. ``gpu_layers`` None lets
    the planner put on GPUs what surely fits.
    """

    context: int | None = None
    total_context: int | None = None
    parallel: int = 1
    kv_unified: bool | None = None
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attn: FlashAttention = "auto"
    batch: int = 2048
    ubatch: int = 512
    swa_full: bool = False
    gpu_layers: int | None = None

    def request_context(self, spec: ModelSpec) -> int:
        """Tokens that one request may use: all of a unified cache given by its total, else its part."""
        if self.total_context is not None:
            return self.total_context if self.kv_unified else max(1, self.total_context // self.parallel)
        return self.context or min(DEFAULT_CONTEXT, spec.context_length or DEFAULT_CONTEXT)

    def load_settings(self, spec: ModelSpec) -> LoadSettings:
        """In llama.cpp's terms, without layers on a GPU unless a number was asked for.

        ``context`` becomes a cache that holds it for every slot at once, unified or not.
        """
        load = LoadSettings(
            total_context=self.total_context or self.request_context(spec) * self.parallel,
            parallel=self.parallel,
            kv_unified=self.kv_unified,
            type_k=self.type_k,
            type_v=self.type_v,
            flash_attn=self.flash_attn,
            batch=self.batch,
            ubatch=self.ubatch,
            swa_full=self.swa_full,
        )
        return evolve(load, gpu_layers=self.gpu_layers or 0)

    def context_note(self, spec: ModelSpec) -> str | None:
        """What to say about a context that nobody asked for."""
        if self.context is not None or self.total_context is not None:
            return None
        return f"planned for {self.request_context(spec)} tokens a request; --context N asks for another length"
