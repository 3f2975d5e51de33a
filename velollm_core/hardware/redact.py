"""Take out of a report what names its owner: home, user, host, serial numbers, UUIDs, addresses, keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from attrs import define, field

from velollm_core.hardware.nvidia import base_name

UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE)
LONG_HEX = re.compile(r"\b(?:0x)?[0-9a-f]{16,128}\b", re.IGNORECASE)
KEYS = re.compile(r"\b(?:hf_|sk-|pk-|ghp_|gho_|github_pat_|xox[abp]-|AKIA|eyJ)[A-Za-z0-9_\-.]{8,}")
BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}")
ASSIGNED = re.compile(
    r"(?i)((?:api[_-]?key|token|secret|passw(?:or)?d|credential)s?[\"']?\s*[=:]\s*[\"']?)([^\s\"'&,;<]{4,})"
)
USER_INFO = re.compile(r"(?<=://)[^/\s@]+@")
MAIL = re.compile(r"\b[\w.+-]+@(?:[\w-]+\.)+[A-Za-z]{2,}\b")
MAC = re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", re.IGNORECASE)
IPV4 = re.compile(
    r"\b(?!127\.)(?!0\.0\.0\.0)(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}(?![.\d])"
)
HOMES = re.compile(r"(/home/|/Users/|\\Users\\)[^/\\\s\"'<:]+")
XML_SERIALS = re.compile(r"<(serial|\w*serial_number|pdi|\w*_guid|host_id|clusterUuid)>[^<]*<")
XML_PROCESS = re.compile(r"(?<=<process_name>)[^<]*")
KFD_IDENTIFIER = re.compile(r"(?<=\bunique_id )\d{5,20}\b")
JSON_SERIALS = re.compile(r"(?i)(\"[^\"]*(?:serial|unique.?id|fru_id|mac_address)[^\"]*\"\s*:\s*)(\"[^\"]*\"|-?\d+)")
SERIAL_KEY = re.compile(r"(?i)serial|\bpdi\b|guid")

COMMON = {
    "root", "user", "admin", "ubuntu", "debian", "fedora", "linux", "nvidia", "amd", "intel", "apple", "gpu", "test",
    "home", "host", "localhost", "proc", "sys", "model", "kernel", "memory", "cpu", "ec2-user", "velollm",
    "name", "none",
}  # fmt: skip
"""User and host names that are words of the reports themselves: taking them out would hide nobody."""


@define
class Redactor:
    """Replaces each identifier by a stand-in, the same one wherever it occurs, so that a report stays consistent."""

    home: str | None = None
    user: str | None = None
    host: str | None = None
    stand_ins: dict[str, str] = field(factory=dict)

    def text(self, value: str) -> str:
        """``value`` without identifiers and secrets."""
        if self.home and len(self.home) > 2:
            value = value.replace(self.home, "~")
        value = HOMES.sub(r"\1user", value)
        value = XML_PROCESS.sub(lambda match: base_name(match[0]) or "", XML_SERIALS.sub(r"<\1>removed<", value))
        value = KFD_IDENTIFIER.sub(lambda match: str(int(self._stand_in_of_hex(f"{int(match[0]):016x}"), 16)), value)
        value = JSON_SERIALS.sub(r'\1"removed"', value)
        value = KEYS.sub("removed", BEARER.sub(r"\1 removed", ASSIGNED.sub(r"\1removed", value)))
        value = MAIL.sub("removed@example.com", USER_INFO.sub("removed@", value))
        value = UUID.sub(self._uuid, value)
        value = IPV4.sub(self._numbered("192.0.2.{}"), MAC.sub("00:00:00:00:00:00", value))
        value = LONG_HEX.sub(self._hex, value)
        for name, stand_in in ((self.user, "user"), (self.host, "host")):
            if name and len(name) > 2 and name.lower() not in COMMON:
                value = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", stand_in, value)
        return value

    def value(self, value: object) -> object:
        """A JSON value with every text in it redacted, names of fields too; serial numbers go by their field's name."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(name)): self._field(str(name), each) for name, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(each) for each in value]
        return value

    def learn(self, value: object) -> None:
        """Meet every identifier in ``value`` once, so that beginnings of them can be told in `complete`."""
        for each in _texts(value):
            self.text(each)

    def complete(self, value: str) -> str:
        """A list of (beginnings of) UUIDs, as ``CUDA_VISIBLE_DEVICES`` may be, with each replaced by its stand-in."""
        return ",".join(self._completed(part.strip()) for part in value.split(","))

    def _completed(self, part: str) -> str:
        prefix, dash, digits = part.partition("-")
        if prefix.upper() not in ("GPU", "MIG") or not dash or not digits:
            return self.text(part)
        found = {uuid.removeprefix("hex "): stand_in for uuid, stand_in in self.stand_ins.items()}
        known = {stand_in for uuid, stand_in in found.items() if uuid.startswith(digits.lower())}
        return f"{prefix}-{known.pop()}" if len(known) == 1 else f"{prefix}-{'f' * 8}"

    def _field(self, name: str, value: object) -> object:
        return "removed" if SERIAL_KEY.search(name) else self.value(value)

    def _uuid(self, match: re.Match[str]) -> str:
        stand_in = f"{len(self.stand_ins):08x}-0000-0000-0000-000000000000"
        return self.stand_ins.setdefault(match[0].lower(), stand_in)

    def _hex(self, match: re.Match[str]) -> str:
        """A stand-in of the same length; numbers stay, which are bytes, clocks and masks rather than names."""
        digits = match[0].lower().removeprefix("0x")
        if digits.isdecimal() or digits.isalpha() or digits.startswith("0" * (len(digits) - 8)):
            return match[0]
        return match[0][: len(match[0]) - len(digits)] + self._stand_in_of_hex(digits)

    def _stand_in_of_hex(self, digits: str) -> str:
        return self.stand_ins.setdefault(f"hex {digits}", f"{len(self.stand_ins) + 1:0{len(digits)}x}")

    def _numbered(self, form: str) -> Callable[[re.Match[str]], str]:
        def replace(match: re.Match[str]) -> str:
            known = [key for key in self.stand_ins if key.startswith("address ")]
            return self.stand_ins.setdefault(f"address {match[0]}", form.format(len(known) % 255))

        return replace


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _texts(name)
            yield from _texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)
