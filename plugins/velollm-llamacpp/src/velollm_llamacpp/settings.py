"""The server's settings that VeloLLM knows: how llama.cpp spells each, what it takes, where the library keeps it.

Names, environment variables and fields are those of llama.cpp b11434 to b11549; a binary's own ``--help`` is asked
before a flag is handed to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from velollm_core.errors import BackendError

if TYPE_CHECKING:
    from velollm_core.backends.setting import Setting, Value

Kind = Literal["count", "text", "choice", "switch", "mark"]

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
QUANTIZED = frozenset(CACHE_TYPES[3:])
ON_OFF = ("on", "off")
DRAFTS = (
    "none",
    "draft-simple",
    "draft-eagle3",
    "draft-mtp",
    "ngram-simple",
    "ngram-map-k",
    "ngram-mod",
    "ngram-cache",
)


@frozen
class ServerSetting:
    """One setting. ``name`` is its flag as documents spell it, ``aliases`` other spellings, ``env`` its variable or "".

    A ``count`` is a whole number not below ``least``, a ``choice`` one of ``choices``; a ``switch`` has a second flag,
    ``negative``, for false; a ``mark`` is there or not. ``field`` is the attribute of xllamacpp's ``CommonParams``.
    """

    name: str
    env: str
    kind: Kind
    field: str
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    negative: str = ""
    least: int = 0


SETTINGS = (
    ServerSetting("--ctx-size", "LLAMA_ARG_CTX_SIZE", "count", "n_ctx", ("-c",)),
    ServerSetting("--parallel", "LLAMA_ARG_N_PARALLEL", "count", "n_parallel", ("-np",), least=-1),
    ServerSetting(
        "--kv-unified", "LLAMA_ARG_KV_UNIFIED", "switch", "kv_unified", ("-kvu",), negative="--no-kv-unified"
    ),
    ServerSetting("--cache-type-k", "LLAMA_ARG_CACHE_TYPE_K", "choice", "cache_type_k", ("-ctk",), CACHE_TYPES),
    ServerSetting("--cache-type-v", "LLAMA_ARG_CACHE_TYPE_V", "choice", "cache_type_v", ("-ctv",), CACHE_TYPES),
    ServerSetting("--flash-attn", "LLAMA_ARG_FLASH_ATTN", "choice", "flash_attn_type", ("-fa",), ("auto", "on", "off")),
    ServerSetting("--batch-size", "LLAMA_ARG_BATCH", "count", "n_batch", ("-b",), least=1),
    ServerSetting("--ubatch-size", "LLAMA_ARG_UBATCH", "count", "n_ubatch", ("-ub",), least=1),
    ServerSetting("--threads", "LLAMA_ARG_THREADS", "count", "cpuparams.n_threads", ("-t",), least=-1),
    ServerSetting("--threads-batch", "", "count", "cpuparams_batch.n_threads", ("-tb",), least=-1),
    ServerSetting(
        "--n-gpu-layers", "LLAMA_ARG_N_GPU_LAYERS", "count", "n_gpu_layers", ("-ngl", "--gpu-layers"), least=-1
    ),
    ServerSetting("--n-cpu-moe", "LLAMA_ARG_N_CPU_MOE", "count", "tensor_buft_overrides", ("-ncmoe",)),
    ServerSetting("--override-tensor", "LLAMA_ARG_OVERRIDE_TENSOR", "text", "tensor_buft_overrides", ("-ot",)),
    ServerSetting(
        "--load-mode",
        "LLAMA_ARG_LOAD_MODE",
        "choice",
        "load_mode",
        ("-lm",),
        ("auto", "none", "mmap", "mlock", "mmap+mlock"),
    ),
    ServerSetting("--swa-full", "LLAMA_ARG_SWA_FULL", "mark", "swa_full"),
    ServerSetting("--cache-ram", "LLAMA_ARG_CACHE_RAM", "count", "cache_ram_mib", ("-cram",), least=-1),
    ServerSetting("--fit", "LLAMA_ARG_FIT", "choice", "fit_params", ("-fit",), ON_OFF),
    ServerSetting(
        "--spec-draft-model",
        "LLAMA_ARG_SPEC_DRAFT_MODEL",
        "text",
        "speculative.draft.mparams.path",
        ("-md", "--model-draft"),
    ),
    ServerSetting("--spec-type", "LLAMA_ARG_SPEC_TYPE", "choice", "speculative.types", choices=DRAFTS),
    ServerSetting("--spec-draft-n-max", "LLAMA_ARG_SPEC_DRAFT_N_MAX", "count", "speculative.draft.n_max"),
)
BY_NAME: Mapping[str, ServerSetting] = {
    spelling: setting
    for setting in SETTINGS
    for spelling in (setting.name, setting.env, setting.negative, *setting.aliases)
    if spelling
}
ALTERING = frozenset(
    spelling
    for spelling, setting in BY_NAME.items()
    if setting.name.startswith(("--cache-type-", "--flash-attn", "--spec-"))
)
"""Every spelling of those that change rounding or more, so that greedy answers may differ."""


def find(name: str) -> ServerSetting:
    """The setting that llama.cpp calls ``name``: a flag in any spelling, or a variable.

    Raises:
        BackendError: llama-server knows no such setting, or VeloLLM does not.
    """
    setting = BY_NAME.get(name)
    if setting is None:
        near = get_close_matches(name, BY_NAME, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise BackendError(f"llamacpp: {name!r} is no setting of llama-server that VeloLLM knows{hint}", kind="setting")
    return setting


def chosen(settings: Iterable[Setting]) -> dict[str, Value]:
    """The values of those ``settings`` that the server is started with, by `ServerSetting.name`; checked.

    Settings of single requests are left out: they are sent, not started with.

    Raises:
        BackendError: an unknown name, a value of the wrong kind, or a quantized V cache without flash attention.
    """
    values = {}
    for setting in settings:
        if setting.where == "request":
            continue
        known = find(setting.name)
        values[known.name] = checked(known, setting.value)
    if values.get("--flash-attn") == "off" and values.get("--cache-type-v") in QUANTIZED:
        reason = f"a quantized V cache ({values['--cache-type-v']}) needs flash attention, which is off"
        raise BackendError(f"llamacpp: {reason}", kind="setting")
    return values


def checked(setting: ServerSetting, value: Value) -> Value:
    """``value`` as ``setting`` takes it.

    Raises:
        BackendError: it does not.
    """
    wanted = ""
    if setting.kind in ("switch", "mark"):
        wanted = "" if isinstance(value, bool) else "true or false"
    elif setting.kind == "count":
        right = isinstance(value, int) and not isinstance(value, bool) and value >= setting.least
        wanted = "" if right else f"a whole number from {setting.least}"
    elif setting.kind == "choice":
        wanted = "" if value in setting.choices else f"one of {', '.join(setting.choices)}"
    elif not isinstance(value, str) or not value or not value.isprintable():
        wanted = "a text"
    if wanted:
        raise BackendError(f"llamacpp: {setting.name} takes {wanted}, not {value!r}", kind="setting")
    return value


def flags(values: Mapping[str, Value], known: frozenset[str] = frozenset()) -> list[str]:
    """The words of a command line, each flag in the first spelling that is ``known`` (default: its own name)."""
    words = []
    for name, value in values.items():
        setting = BY_NAME[name]
        flag = next((each for each in (name, *setting.aliases) if each in known), name)
        if setting.kind == "switch":
            words.append(flag if value else setting.negative)
        elif setting.kind == "mark":
            words += [flag] if value else []
        else:
            words += [flag, str(value)]
    return words


def environment(values: Mapping[str, Value]) -> dict[str, str]:
    """The same as environment variables, as far as there are any: see `without_variable`."""
    return {
        BY_NAME[name].env: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if BY_NAME[name].env
    }


def without_variable(values: Mapping[str, Value]) -> dict[str, Value]:
    """Those of ``values`` that llama-server reads from its command line only."""
    return {name: value for name, value in values.items() if not BY_NAME[name].env}


def unknown_to(values: Mapping[str, Value], known: frozenset[str]) -> list[str]:
    """Those of ``values`` that a server which lists ``known`` flags in its help would not take."""
    return [name for name in values if known.isdisjoint({name, *BY_NAME[name].aliases})]
