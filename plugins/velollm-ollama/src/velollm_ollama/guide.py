"""``docs/guides/CONFIG_GUIDE.md``, written from the tables that the code uses.

Run ``python -m velollm_ollama.guide`` for its text; a test compares the page with it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from velollm_core.models.load import LoadSettings
from velollm_core.models.memory import memory
from velollm_core.models.spec import LayerSpec, ModelSpec
from velollm_ollama.automatic import FIT_TARGET, PROMPT_CACHE
from velollm_ollama.kv_types import kv_types
from velollm_ollama.parameter import Parameter
from velollm_ollama.tables.names import NEVER
from velollm_ollama.tables.parameters import PARAMETERS
from velollm_ollama.tables.pass_through import PASS_THROUGH
from velollm_ollama.tables.performance import PERFORMANCE
from velollm_ollama.tables.removed import REMOVED
from velollm_ollama.tables.service import SERVICE
from velollm_ollama.variable import Variable
from velollm_ollama.version import NEWEST, OLDEST_READ, Triple, Version

MIB: Final = 2**20
_INTRODUCTION: Final = f"""\
# Ollama's settings

Written by `python -m velollm_ollama.guide` from the tables that VeloLLM uses itself, read from the sources of Ollama
0.5.0 to {NEWEST.major}.{NEWEST.minor}; a test compares them. See what your own server runs with:
`velollm ollama config show`.

There are **two kinds of settings**, and they are never mixed:

- **the server's environment** holds for every model, and is read once, when `ollama serve` starts. An `export` in your
  shell does not reach a server that runs already as a service, an app or a container.
- **parameters** belong to one model or one request. VeloLLM puts them into a derived model (`name:velo`), which shares
  the weights and takes no disk.

Four names that many guides give, `OLLAMA_NUM_GPU`, `OLLAMA_NUM_BATCH`, `OLLAMA_NUM_CTX` and `OLLAMA_NUM_THREAD`, exist
in no release. They do nothing, and nothing says so.
"""
_RULES: Final = f"""\
## How Ollama reads a value

- **Switches**: `0 f F false FALSE False` are off. Every other word is **on**, `off` and `no` too. Write `1` or `0`.
- **Numbers**: plain digits. `8k`, `2x`, `-1` and `1.5` are refused with a warning in the log, and the default stands.
- **Durations**: `30m`, `1h30m`, or whole seconds. Anything else, such as `1d` or `soon`, is the default without a word.
- **Cache types**: {", ".join(f"`{kind}`" for kind in kv_types(NEWEST))} from 0.30 on;
  {", ".join(f"`{kind}`" for kind in kv_types(Version(0, 24, 0)))} before. A quantized one needs flash attention.
- Spaces and then quotes around a value are dropped.
- The context of one request is `num_ctx` of the request, else of the model, else `OLLAMA_CONTEXT_LENGTH`, else by the
  GPUs' memory: 4096 tokens, 32768 from 23 GiB, 262144 from 47 GiB, whatever the model's size.
- Cache = context × `OLLAMA_NUM_PARALLEL`: every slot has a context of its own.
- Each loaded model may also keep a prompt cache of {PROMPT_CACHE // MIB} MiB in main memory, and llama.cpp leaves
  {FIT_TARGET // MIB} MiB free on each GPU.
"""
_PLACES: Final = """\
## Where to write the environment

| Ollama runs as | `velollm ollama config export` | In force after |
| --- | --- | --- |
| systemd service | `--as systemd` | `systemctl daemon-reload && systemctl restart ollama` |
| macOS app | `--as launchctl` | quit and start the app; lost at the next reboot |
| Windows app | `--as powershell` | quit in the tray and start again |
| container | `--as docker`, `--as compose`, `--as env` | the container is made anew |
| `ollama serve` in a shell | `--as sh` | start it in that shell |

A drop-in without its `[Service]` line is ignored by systemd without a word.
"""


def guide() -> str:
    """The whole page."""
    return "\n".join(_sections())


def _sections() -> Iterator[str]:
    yield _INTRODUCTION
    yield _RULES
    yield _PLACES
    yield "## Variables that change speed, memory or placement\n"
    yield _variables(PERFORMANCE)
    yield "## Parameters of a model or request\n"
    yield "Those marked *loads* reload the model when they differ between two requests.\n"
    yield _table(("Parameter", "Unit", "Default", "What it does"), map(_parameter, PARAMETERS.values()))
    yield "## An example, to the byte\n"
    yield _example()
    yield "## llama.cpp's own variables\n"
    yield "From 0.30 on Ollama starts a `llama-server`, which sees its environment. Ollama documents the first two.\n"
    acting = [entry for entry in PASS_THROUGH.values() if entry.effective]
    yield _table(("Variable", "Unit", "What it does", "Acts when"), (
        (f"`{entry.name}`", entry.unit, entry.effect, entry.condition or "always") for entry in acting))  # fmt: skip
    idle = ", ".join(f"`{entry.name}`" for entry in PASS_THROUGH.values() if not entry.effective)
    yield f"Without effect, because Ollama passes the flag itself: {idle}.\n"
    yield "## The server's other variables\n"
    yield _variables(SERVICE)
    yield "## Gone\n"
    yield _table(
        ("Variable", "Until", "Instead"), ((f"`{each.name}`", _dotted(each.until), each.instead) for each in REMOVED)
    )
    yield "## Never there\n"
    yield _table(("Name", "What to use"), ((f"`{name}`", instead) for name, instead in NEVER.items()))


def _variables(variables: Sequence[Variable]) -> str:
    rows = ((f"`{each.name}`", each.unit, _defaults(each), _since(each), each.effect) for each in variables)
    traps = [f"- `{each.name}`: {each.trap}" for each in variables if each.trap]
    table = _table(("Variable", "Unit", "Default", "Since", "What it does"), rows)
    return "\n".join([table, "Traps:\n", *traps, ""]) if traps else table


def _defaults(variable: Variable) -> str:
    if variable.kind == "tristate":
        return "unset: automatic"
    first, *later = [(since, f"`{default}`" if default else "unset") for since, default in variable.defaults]
    return "; ".join([first[1], *(f"from {_dotted(since)} {default}" for since, default in later)])


def _since(variable: Variable) -> str:
    return "before 0.5" if variable.since == OLDEST_READ else _dotted(variable.since)


def _parameter(parameter: Parameter) -> tuple[str, ...]:
    effect = f"{parameter.effect} {parameter.trap}".strip()
    return f"`{parameter.name}`", parameter.unit, parameter.default, f"*loads*: {effect}" if parameter.loads else effect


def _example() -> str:
    """The cache of Llama-3.1-8B by context, slots and type, by the same formula that plans."""
    blocks = tuple(
        LayerSpec(index, heads=32, kv_heads=8, key_length=128, value_length=128, feed_forward=14336)
        for index in range(32)
    )
    spec = ModelSpec("Llama-3.1-8B", "llama", "", "gguf", 131072, 4096, 128256, blocks)
    rows = []
    for context, slots in ((4096, 1), (8192, 1), (8192, 4), (131072, 1)):
        sizes = [_cache(spec, context, slots, kind) for kind in ("f16", "q8_0", "q4_0")]
        rows.append((str(context), str(slots), *(f"{size} ({size / MIB:.1f} MiB)" for size in sizes)))
    text = (
        "Llama-3.1-8B has 32 layers with 8 heads of 128 for keys and as many for values. Its cache takes, in bytes:\n"
    )
    return "\n".join([text, _table(("num_ctx", "Slots", "f16", "q8_0", "q4_0"), rows)])


def _cache(spec: ModelSpec, context: int, slots: int, kind: str) -> int:
    load = LoadSettings(context * slots, slots, False, kind, kind, "on")
    return sum(device.kv.value for device in memory(spec, load).devices)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _dotted(triple: Triple | None) -> str:
    return ".".join(map(str, triple)) if triple else ""


if __name__ == "__main__":
    sys.stdout.write(guide())
