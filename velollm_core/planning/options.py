"""The options of `velollm plan`, gathered into what was asked."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from velollm_core.models.load import FlashAttention
from velollm_core.planning.asked import Asked

if TYPE_CHECKING:
    from collections.abc import Callable

CACHE_TYPES = click.Choice(["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"])
_COUNT = click.IntRange(min=1)
_OPTIONS = (
    click.option("--context", type=_COUNT, metavar="N", help="Tokens that one request may use."),
    click.option("--total-context", type=_COUNT, metavar="N", help="The whole cache instead: llama.cpp's -c."),
    click.option("--parallel", type=_COUNT, default=1, show_default=True, metavar="N", help="Requests at a time."),
    click.option("--kv-unified/--no-kv-unified", default=None, help="One cache for all slots, or one each."),
    click.option("--kv-type", type=CACHE_TYPES, metavar="T", help="Type of the K and V cache: f16, q8_0, q4_0, …"),
    click.option("--kv-type-k", type=CACHE_TYPES, metavar="T", help="Type of the K cache alone."),
    click.option("--kv-type-v", type=CACHE_TYPES, metavar="T", help="Type of the V cache alone."),
    click.option("--flash-attn", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True),
    click.option("--batch", type=_COUNT, default=2048, show_default=True, help="Tokens submitted at a time."),
    click.option("--ubatch", type=_COUNT, default=512, show_default=True, help="Tokens computed at a time."),
    click.option("--swa-full", is_flag=True, help="Keep the whole context of sliding-window layers."),
    click.option("--gpu-layers", type=click.IntRange(min=0), metavar="N", help="Default: as many as surely fit."),
)


class Given(TypedDict):
    """The options as click hands them over."""

    context: int | None
    total_context: int | None
    parallel: int
    kv_unified: bool | None
    kv_type: str | None
    kv_type_k: str | None
    kv_type_v: str | None
    flash_attn: FlashAttention
    batch: int
    ubatch: int
    swa_full: bool
    gpu_layers: int | None


def load_options(command: Callable[..., None]) -> Callable[..., None]:
    """Context, slots, cache types, batches and layers on the GPU, handed to ``command`` as one ``asked``."""

    @wraps(command)
    def gathered(**options: object) -> None:
        given = {name: options.pop(name) for name in Given.__annotations__}
        command(asked=asked_for(**given), **options)  # type: ignore[arg-type]

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered


def asked_for(**given: Unpack[Given]) -> Asked:
    """What the options ask for.

    Raises:
        click.UsageError: two of them contradict each other.
    """
    both, k, v = given["kv_type"], given["kv_type_k"], given["kv_type_v"]
    if given["context"] and given["total_context"]:
        raise click.UsageError("--context is what one request may use, --total-context the whole cache: give one")
    if both and (k or v):
        raise click.UsageError("--kv-type sets both caches: give it alone, or --kv-type-k and --kv-type-v")
    return Asked(
        context=given["context"],
        total_context=given["total_context"],
        parallel=given["parallel"],
        kv_unified=given["kv_unified"],
        type_k=k or both or "f16",
        type_v=v or both or "f16",
        flash_attn=given["flash_attn"],
        batch=given["batch"],
        ubatch=given["ubatch"],
        swa_full=given["swa_full"],
        gpu_layers=given["gpu_layers"],
    )
