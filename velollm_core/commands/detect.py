"""`velollm detect`: the machine, its limits and GPUs, and the backends that can be used on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from velollm_core.backends.status import Status
from velollm_core.hardware.cpu import Cpu
from velollm_core.hardware.gpu import Gpu
from velollm_core.hardware.live import LiveEvidence
from velollm_core.hardware.machine import Hardware, Platform
from velollm_core.hardware.memory import Memory
from velollm_core.hardware.probe import read_hardware
from velollm_core.hardware.recording import Recorder
from velollm_core.options import json_option, output_option, verbose_option
from velollm_core.plugins import Plugins
from velollm_core.render import console, document, format_bytes, format_rate, plain, print_json, to_json, write_text

if TYPE_CHECKING:
    from rich.table import Table


@click.command(epilog="Example: velollm detect --no-probe")
@click.option("--no-probe", is_flag=True, help="Do not measure the memory bandwidth (half a second, once a machine).")
@click.option(
    "--doctor",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write every raw answer of the machine to FILE, for a bug report; names and keys are taken out.",
)
@output_option
@json_option
@verbose_option
def command(no_probe: bool, doctor: Path | None, output: Path | None, as_json: bool, verbose: bool) -> None:
    """See the machine: processor, memory and its limits, GPUs of every vendor, and the backends on it."""
    if output is not None and output.suffix not in ("", ".json"):
        raise click.UsageError(f"detect writes JSON: name the file {output.stem}.json, not {output.name}")
    recorder = Recorder(LiveEvidence())
    hardware = read_hardware(recorder, probe_bandwidth=not no_probe)
    plugins = Plugins.load()
    statuses = plugins.statuses(plugins.detect(hardware))
    backends = [
        {"name": name, "plugin": plugins.owners.get(name), "location": status.location, "status": status}
        for name, status in statuses.items()
    ]
    found = document("detect", hardware=hardware, backends=backends)
    if output is not None:
        write_text(output, to_json(found))
    if doctor is not None:
        _write_report(doctor, recorder, found)
    if as_json:
        print_json(found)
    else:
        _show(hardware, statuses, verbose=verbose)


def _write_report(path: Path, recorder: Recorder, found: Mapping[str, object]) -> None:
    from velollm_core.hardware.doctor import doctor_report, redactor_here

    report = doctor_report(
        recorder.kept, redactor_here(), hardware=found["hardware"], backends=plain(found["backends"])
    )
    write_text(path, to_json(report))
    click.echo(f"Wrote {path}: read it through before you attach it to a report.", err=True)


def _show(hardware: Hardware, statuses: Mapping[str, Status], *, verbose: bool) -> None:
    screen = console()
    screen.print(_grid(_machine(hardware, verbose=verbose)))
    for gpu in hardware.gpus:
        screen.print(f"\n[bold]GPU {gpu.vendor} {gpu.index}[/bold]  {_name(gpu)}", soft_wrap=True)
        screen.print(_grid(_gpu(gpu, verbose=verbose)))
    screen.print("\nNo GPU found.\n" if not hardware.gpus else "")
    none = "No backend is installed; `pip install velollm[ollama]` brings one."
    screen.print(_grid(_backends(statuses)) if statuses else none)
    for note in hardware.notes:
        screen.print(f"Note: {note}", markup=False, soft_wrap=True)


def _grid(rows: Iterator[tuple[str, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, Text(value))
    return grid


def _machine(hardware: Hardware, *, verbose: bool) -> Iterator[tuple[str, str]]:
    cpu = hardware.cpu
    yield "System", _system(hardware.platform)
    yield "Processor", f"{cpu.model or 'unknown'} ({cpu.architecture})"
    yield "Cores", _cores(cpu)
    most = f", {_hertz(cpu.max_frequency_hz)} at most" if cpu.max_frequency_hz else ""
    yield "Frequency", _hertz(cpu.frequency_hz) + most
    if verbose:
        yield "Instructions", " ".join(cpu.instruction_sets) or "unknown"
    yield "Memory", _memory(hardware.memory)
    yield "Memory speed", format_rate(cpu.bandwidth, "B/s") if cpu.bandwidth else "not measured"


def _system(platform: Platform) -> str:
    places = {"a container": platform.container, "a virtual machine": platform.virtual_machine}
    where = "".join(f", in {name}" for name, inside in places.items() if inside)
    kernel = " ".join(part for part in (platform.system, platform.release, platform.machine) if part)
    return f"{platform.distribution or platform.system} ({kernel}){where}"


def _cores(cpu: Cpu) -> str:
    kinds = f" ({cpu.performance_cores} performance, {cpu.efficiency_cores} efficiency)" if cpu.efficiency_cores else ""
    parts = [f"{_count(cpu.physical_cores)} cores{kinds}, {_count(cpu.threads)} threads"]
    if (cpu.allowed_threads, cpu.allowed_cores) != (cpu.threads, cpu.physical_cores):
        parts.append(f"{_count(cpu.allowed_cores)} cores and {_count(cpu.allowed_threads)} threads allowed here")
    if cpu.quota is not None:
        parts.append(f"{cpu.quota:g} cores' worth of time")
    return "; ".join(parts)


def _memory(memory: Memory) -> str:
    parts = [f"{format_bytes(memory.total)}, {format_bytes(memory.available)} available"]
    if memory.limit is not None:
        parts.append(f"limited to {format_bytes(memory.limit)}, of which {format_bytes(memory.limit_used)} used")
    if memory.swap_total:
        parts.append(f"swap {format_bytes(memory.swap_total)}, {format_bytes(memory.swap_free)} free")
    return "; ".join(parts)


def _name(gpu: Gpu) -> str:
    from rich.markup import escape

    state = (
        ""
        if gpu.visible
        else "  (cut into instances)"
        if gpu.mig and gpu.parent is None
        else "  (not visible to programs)"
    )
    return escape(f"{gpu.name or 'unknown'}{state}")


def _gpu(gpu: Gpu, *, verbose: bool) -> Iterator[tuple[str, str]]:
    yield "Memory", _gpu_memory(gpu)
    yield "Memory speed", format_rate(gpu.bandwidth, "B/s")
    compute = gpu.compute_capability and f"compute {gpu.compute_capability}"
    software = [gpu.driver and f"driver {gpu.driver}", gpu.runtime, compute]
    yield "Software", ", ".join(part for part in software if part) or "no driver"
    if gpu.power_limit_watts is not None:
        yield "Power limit", f"{gpu.power_limit_watts:g} W"
    for process in gpu.processes:
        yield "Process", f"{process.name or 'unknown'} ({process.pid}) holds {format_bytes(process.memory)}"
    if verbose:
        yield "Identity", ", ".join(each for each in (gpu.pci_bus_id, gpu.pci_device_id, gpu.uuid) if each) or "unknown"


def _gpu_memory(gpu: Gpu) -> str:
    parts = [f"{format_bytes(gpu.memory_total)}", f"{format_bytes(gpu.memory_free)} free"]
    if gpu.memory_used is not None:
        parts.append(f"{format_bytes(gpu.memory_used)} used")
    if gpu.memory_reserved:
        parts.append(f"{format_bytes(gpu.memory_reserved)} reserved by the driver")
    return ", ".join([*parts, "shared with the processor"] if gpu.unified else parts)


def _backends(statuses: Mapping[str, Status]) -> Iterator[tuple[str, str]]:
    for name, status in statuses.items():
        state = "running" if status.running else "ready" if status.reachable else "not reachable"
        where = [state, status.version and f"version {status.version}", status.location]
        yield name, ", ".join(part for part in where if part)
        models = ", ".join(status.models[:5]) + (
            f" and {len(status.models) - 5} more" if len(status.models) > 5 else ""
        )
        if detail := models if status.reachable else status.reason:
            yield "", detail


def _count(value: int | None) -> str:
    return "unknown" if value is None else str(value)


def _hertz(value: int | None) -> str:
    return "unknown" if value is None else f"{value / 1e9:.2f} GHz"
