"""What amd-smi and rocm-smi know beyond the kernel's files, out of their JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from velollm_core.figures import Rate
from velollm_core.hardware.amd import SHARED_MEMORY, nominal_bandwidth
from velollm_core.hardware.gpu import Gpu
from velollm_core.hardware.loose import at, count, items, number, parse_json, size, text

AMD_SMI = ("amd-smi", "static", "--json")
ROCM_SMI = (
    "rocm-smi", "--showproductname", "--showmeminfo", "vram", "--showdriverversion", "--showbus", "--json",
)  # fmt: skip

SHARED_TYPES = ("DDR", "LPDDR")
"""Beginnings of the types of memory that only a GPU without memory of its own reports."""


@frozen
class AmdCard:
    """One card as a tool describes it: ``bits`` of memory bus, ``bandwidth`` in bytes a second, the rest as `Gpu`."""

    address: str | None
    name: str | None = None
    target: str | None = None
    compute_units: int | None = None
    driver: str | None = None
    memory_total: int | None = None
    memory_used: int | None = None
    memory_type: str | None = None
    bits: int | None = None
    bandwidth: float | None = None
    power_limit_watts: float | None = None


def parse_amd_smi(document: str) -> Sequence[AmdCard]:
    """The cards of ``amd-smi static --json``: a list, in newer versions inside ``gpu_data``."""
    found = parse_json(document)
    return [_amd_smi_card(entry) for entry in items(at(found, "gpu_data") or found, 64) if isinstance(entry, Mapping)]


def _amd_smi_card(entry: object) -> AmdCard:
    per_second = at(entry, "vram", "max_bandwidth")
    gigabytes = number(at(per_second, "value")) if isinstance(per_second, Mapping) else number(per_second)
    limit = at(entry, "limit")
    watts = next((at(limit, name) for name in ("socket_power", "max_power") if at(limit, name) is not None), None)
    return AmdCard(
        address=_address(at(entry, "bus", "bdf")),
        name=text(at(entry, "asic", "market_name")) or text(at(entry, "board", "product_name")),
        target=text(at(entry, "asic", "target_graphics_version")),
        compute_units=count(at(entry, "asic", "num_compute_units")),
        driver=text(at(entry, "driver", "version")) or text(at(entry, "driver", "driver_version")),
        memory_total=size(at(entry, "vram", "size"), "MB"),
        memory_type=text(at(entry, "vram", "type")),
        bits=count(at(entry, "vram", "bit_width", "value")) or count(at(entry, "vram", "bit_width")),
        bandwidth=gigabytes * 1e9 if gigabytes and 0 < gigabytes < 1e6 else None,
        power_limit_watts=number(at(watts, "value")) if isinstance(watts, Mapping) else number(watts),
    )


def parse_rocm_smi(document: str) -> Sequence[AmdCard]:
    """The cards of rocm-smi's JSON, whose keys change their capitals from version to version."""
    found = parse_json(document)
    if not isinstance(found, Mapping):
        return []
    cards = []
    for key, entry in list(found.items())[:64]:
        if isinstance(key, str) and key.startswith("card") and isinstance(entry, Mapping):
            fields = {name.lower(): value for name, value in entry.items() if isinstance(name, str)}
            cards.append(_rocm_smi_card(fields, text(at(found, "system", "Driver version"))))
    return cards


def _rocm_smi_card(fields: Mapping[str, object], driver: str | None) -> AmdCard:
    return AmdCard(
        address=_address(fields.get("pci bus")),
        name=text(fields.get("card series")) or text(fields.get("card model")),
        target=text(fields.get("gfx version")),
        driver=driver,
        memory_total=count(fields.get("vram total memory (b)")),
        memory_used=count(fields.get("vram total used memory (b)")),
    )


def add_cards(gpus: Sequence[Gpu], cards: Sequence[AmdCard], clocks: Mapping[str, int | None]) -> tuple[Gpu, ...]:
    """``gpus`` of the kernel completed by ``cards``; cards alone where the kernel showed none (another system).

    ``clocks`` are memory clocks in MHz by PCI address.
    """
    if not gpus:
        return tuple(
            _complete(Gpu(index, "amd", None, pci_bus_id=card.address), card, None) for index, card in enumerate(cards)
        )
    by_address = {card.address: card for card in cards}
    return tuple(
        _complete(gpu, card, clocks.get(gpu.pci_bus_id or ""))
        if gpu.pci_bus_id and (card := by_address.get(gpu.pci_bus_id))
        else gpu
        for gpu in gpus
    )


def _complete(gpu: Gpu, card: AmdCard, clock: int | None) -> Gpu:
    """The kernel's figures stand where it has them: they are bytes, and of this moment."""
    total = card.memory_total if gpu.memory_total is None else gpu.memory_total
    used = card.memory_used if gpu.memory_used is None else gpu.memory_used
    target = gpu.compute_capability or card.target
    shared = (card.memory_type or "").upper().startswith(SHARED_TYPES) or target in SHARED_MEMORY
    rate = Rate(card.bandwidth, "nominal") if card.bandwidth else nominal_bandwidth(card.memory_type, card.bits, clock)
    return evolve(
        gpu,
        name=card.name or gpu.name,
        driver=card.driver or gpu.driver,
        compute_capability=target,
        memory_total=total,
        memory_used=used,
        memory_free=max(0, total - used) if total is not None and used is not None else None,
        unified=gpu.unified or shared,
        bandwidth=rate,
        power_limit_watts=gpu.power_limit_watts or card.power_limit_watts,
        multiprocessors=gpu.multiprocessors or card.compute_units,
    )


def _address(value: object) -> str | None:
    """A PCI address as sysfs writes it; some versions leave out the domain."""
    found = (text(value) or "").lower()
    return (found if found.count(":") == 2 else f"0000:{found}") if found.count(":") in (1, 2) else None
