"""Machine, engine and workload, read off the first line of each run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from velollm_core.benchmark.lengths import Lengths
from velollm_core.render import format_bytes
from velollm_core.report.dossier import Choice, Fact

Head = Mapping[str, Any]

# What no two runs agree in.
_ALWAYS = {"measured at", "memory free"}


def facts_of(heads: Sequence[Head]) -> tuple[Fact, ...]:
    """What is known of at least one of the runs that begin with ``heads``; a single value where all agree."""
    told = [dict(_told(head)) for head in heads]
    names = dict.fromkeys(name for each in told for name in each)
    rows = [Fact(name, tuple(each.get(name, "unknown") for each in told)) for name in names]
    return tuple(row if row.differs else Fact(row.name, row.values[:1]) for row in rows)


def differences(facts: Sequence[Fact]) -> tuple[Choice, ...]:
    """The facts in which two sides differ, as settings without a reason of ours."""
    return tuple(
        Choice(fact.name, fact.values[0], fact.values[1], "as recorded")
        for fact in facts
        if fact.differs and len(fact.values) == 2 and fact.name not in _ALWAYS
    )


def load_of(head: Head) -> tuple[str, float]:
    """The load of a run in words, and a number to order it by: users in a closed loop, else requests a second."""
    workload = head.get("workload") or {}
    arrivals = (workload.get("load") or {}).get("arrivals") or {}
    if (times := arrivals.get("times")) and arrivals.get("pattern") == "replay":
        rate = len(times) / max(max(times), 1.0)
        return f"trace of {len(times)} requests", rate
    if (rate := arrivals.get("rate")) is not None:
        return f"{rate:g} requests/s, {arrivals.get('pattern')}", float(rate)
    users = int(workload.get("concurrency") or 1)
    return ("1 user" if users == 1 else f"{users} users"), float(users)


def _told(head: Head) -> Iterator[tuple[str, str]]:
    environment, workload = head.get("environment") or {}, head.get("workload") or {}
    yield from _known(
        {
            "model": head.get("model"),
            "backend": head.get("backend"),
            "backend version": environment.get("backend_version"),
            "location": environment.get("location"),
            "measured at": environment.get("started_at"),
            "workload": workload.get("name"),
            "seed": workload.get("seed"),
            "prompt cache": "warm, on purpose" if workload.get("warm_cache") else "cold: every prompt is unique",
        }
    )
    yield "load", load_of(head)[0]
    yield from _load(workload.get("load") or {})
    yield from _known({f"setting {name}": value for name, value in (head.get("settings") or {}).items()})
    yield from _machine(environment.get("hardware") or {})
    yield from _known(
        {
            "system": environment.get("system"),
            "frequency governor": environment.get("governor"),
            "Python": environment.get("python"),
            "VeloLLM": environment.get("velollm"),
        }
    )


def _load(load: Head) -> Iterator[tuple[str, str]]:
    """What a load asks for, as far as it is not the default."""
    for name in ("prompt", "answer"):
        if lengths := load.get(name):
            yield f"{name} tokens asked for", str(Lengths(**lengths))
    arrivals = load.get("arrivals") or {}
    patterns = {"gamma": "burstiness", "burst": "burst", "ramp": "end_rate"}
    detail = patterns.get(str(arrivals.get("pattern")), "")
    shown = {
        "recorded requests": load.get("entries"),
        "turns of a conversation": load.get("turns", 1) - 1 and load.get("turns"),
        "shared prefix, tokens": load.get("shared"),
        "think time, s": load.get("think"),
        detail.replace("_", " "): arrivals.get(detail),
    }
    yield from _known({name: value for name, value in shown.items() if value})


def _machine(hardware: Head) -> Iterator[tuple[str, str]]:
    cpu, memory = hardware.get("cpu") or {}, hardware.get("memory") or {}
    platform = hardware.get("platform") or {}
    yield from _known({"distribution": platform.get("distribution"), "processor": cpu.get("model")})
    if cpu.get("allowed_cores") is not None:
        yield "cores", f"{cpu['allowed_cores']} of {cpu.get('physical_cores') or 'unknown'}"
    bandwidth = cpu.get("bandwidth") or {}
    if bandwidth.get("value"):
        yield "memory bandwidth", f"{bandwidth['value'] / 1e9:.1f} GB/s ({bandwidth.get('basis')})"
    if memory.get("total") is not None:
        yield "memory", format_bytes(memory["total"])
        yield "memory free", format_bytes(memory.get("available"))
    for gpu in hardware.get("gpus") or ():
        driver = f", driver {gpu['driver']}" if gpu.get("driver") else ""
        name = gpu.get("name") or gpu.get("vendor")
        yield f"GPU {gpu.get('index')}", f"{name}, {format_bytes(gpu.get('memory_total'))}{driver}"
    where = [
        word for key, word in (("container", "container"), ("virtual_machine", "virtual machine")) if platform.get(key)
    ]
    if where:
        yield "inside", ", ".join(where)


def _known(values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if value is not None:
            yield name, str(value)
