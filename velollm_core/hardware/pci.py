"""Display and accelerator devices on the PCI bus: the hint that a vendor's probe is worth its time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from velollm_core.hardware.evidence import Evidence
from velollm_core.hardware.loose import text, whole

DEVICES = "/sys/bus/pci/devices"
MOST_DEVICES = 4096
NVIDIA, AMD, INTEL = 0x10DE, 0x1002, 0x8086
NAME_FILES = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids", "/usr/share/pci.ids")


@frozen
class PciDevice:
    """One device as the kernel lists it; ``address`` reads ``0000:03:00.0``, ``driver`` is None where none is bound."""

    address: str
    vendor: int
    device: int
    driver: str | None = None

    @property
    def identifier(self) -> str:
        """Vendor and device, as ``10de:2330``."""
        return f"{self.vendor:04x}:{self.device:04x}"


def display_devices(evidence: Evidence) -> Sequence[PciDevice]:
    """Devices of PCI class 03 (display) and 12 (accelerator), in bus order."""
    found = []
    for address in evidence.names(DEVICES)[:MOST_DEVICES]:
        kind = whole(evidence.read(f"{DEVICES}/{address}/class"))
        if kind is None or kind >> 16 not in (0x03, 0x12):
            continue
        vendor, device = (whole(evidence.read(f"{DEVICES}/{address}/{name}")) for name in ("vendor", "device"))
        if vendor is not None and device is not None:
            found.append(PciDevice(address, vendor, device, evidence.link(f"{DEVICES}/{address}/driver")))
    return found


def device_name(evidence: Evidence, device: PciDevice) -> str | None:
    """The name in this machine's copy of the PCI id list; None where there is no copy or no entry."""
    return text(evidence.value(f"pci name {device.identifier}", lambda: look_up(device, NAME_FILES)))


def look_up(device: PciDevice, places: Sequence[str]) -> str | None:
    """Search the first list that is there."""
    for place in places:
        try:
            document = Path(place).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        return parse_pci_ids(document, device)
    return None


def parse_pci_ids(document: str, device: PciDevice) -> str | None:
    """A device's name out of ``pci.ids``: its line stands, after one tab, below its vendor's."""
    _, found, below = ("\n" + document).partition(f"\n{device.vendor:04x}  ")
    if not found:
        return None
    for line in below.splitlines()[1:]:
        if line and not line.startswith(("\t", "#")):
            return None
        if line.startswith(f"\t{device.device:04x}  "):
            return text(line[7:])
    return None


def card_files(evidence: Evidence, card: PciDevice, names: Sequence[str], power: str) -> dict[str, str | None]:
    """A card's files by name, with power limit (µW) and temperature (thousandths of °C) of its first hwmon."""
    place = f"{DEVICES}/{card.address}"
    files = {name: evidence.read(f"{place}/{name}") for name in names}
    for monitor in evidence.names(f"{place}/hwmon")[:1]:
        files["power"] = evidence.read(f"{place}/hwmon/{monitor}/{power}")
        files["temperature"] = evidence.read(f"{place}/hwmon/{monitor}/temp1_input")
    return files
