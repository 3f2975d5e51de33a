"""The outcome of one part of the bench: for people as text, for programs as one JSON document."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version

from attrs import asdict, frozen

from velollm_cuda.bench.figure import Bar, Figure, Measurement

SCHEMA = "velollm.cuda.bench/1"
JUDGED_CARD = "H100"


@frozen
class Machine:
    """Where a part ran: the card's own name, None without one, and the versions that decide its speed."""

    card: str | None
    driver: str | None
    torch: str
    triton: str | None
    python: str

    @classmethod
    def here(cls) -> Machine:
        """This machine."""
        import torch

        card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        return cls(card, _driver(), torch.__version__, _version("triton"), platform.python_version())

    @property
    def judged(self) -> bool:
        """Whether the bars were set for this card."""
        return JUDGED_CARD in (self.card or "")

    def __str__(self) -> str:
        driver = f", driver {self.driver}" if self.driver else ""
        return f"{self.card or 'no GPU'}{driver}, torch {self.torch}, triton {self.triton}, python {self.python}"


@frozen
class PartReport:
    """One part: the card's own rates in this run, what was measured, and the bars. ``seconds`` is its wall time."""

    part: str
    machine: Machine
    rates: dict[str, Figure]
    measurements: tuple[Measurement, ...]
    bars: tuple[Bar, ...]
    seconds: float

    @property
    def json(self) -> str:
        """One document, figures with their span."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"

    @property
    def text(self) -> str:
        """A line for each measurement, and for each bar."""
        lines = [f"{self.part} on {self.machine}"]
        lines += [f"  {name}: {figure}" for name, figure in self.rates.items()]
        lines += [f"  {each}" for each in self.measurements]
        lines += [f"  {bar}" for bar in self.bars]
        return "\n".join([*lines, f"{self.part}: {self.seconds:.0f} s"]) + "\n"


def _driver() -> str | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        found = pynvml.nvmlSystemGetDriverVersion()
    except Exception:  # noqa: BLE001 - a name for the report is not worth a failure
        return None
    return found.decode() if isinstance(found, bytes) else str(found)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
