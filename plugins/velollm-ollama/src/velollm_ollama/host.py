"""OLLAMA_HOST, as server and client read it."""

from __future__ import annotations

import ipaddress

from attrs import evolve, frozen

from velollm_ollama.parse import clean, parse_int


@frozen
class Host:
    """An address: ``port`` is text, as Ollama keeps it. ``note`` says what was replaced."""

    scheme: str
    host: str
    port: str
    path: str = ""
    note: str | None = None

    @property
    def url(self) -> str:
        """The address as the server's log prints it."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        path = "" if not self.path else "/" + self.path.lstrip("/")
        return f"{self.scheme}://{name}:{self.port}{path}"

    @property
    def connectable(self) -> Host:
        """The address a client can reach: loopback in place of "every address"."""
        if not self.host:
            return evolve(self, host="127.0.0.1")
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return self
        if not address.is_unspecified:
            return self
        return evolve(self, host="127.0.0.1" if address.version == 4 else "::1")


def parse_host(text: str) -> Host:
    """Ollama's rule: port 11434 without a scheme, 80 for ``http://``, 443 for ``https://``; a bad port is replaced."""
    value = clean(text).strip()
    scheme, separator, rest = value.partition("://")
    port = {"http": "80", "https": "443"}.get(scheme, "11434") if separator else "11434"
    if not separator:
        scheme, rest = ("https", "ollama.com:443") if value == "ollama.com" else ("http", value)
    hostport, _, path = rest.partition("/")
    default_port = port
    split = _split(hostport)
    if split is None:
        host = _address(hostport.strip("[]")) or hostport or "127.0.0.1"
    else:
        host, port = split
    number = parse_int(port, 32)
    if number is None or not 0 <= number <= 65535:
        return Host(scheme, host, default_port, path, f"port {port!r} is not one: {default_port} is used")
    return Host(scheme, host, port, path)


def _split(hostport: str) -> tuple[str, str] | None:
    """Host and port as Go's ``net.SplitHostPort`` splits them; None where it reports an error."""
    colon = hostport.rfind(":")
    if colon < 0:
        return None
    if hostport.startswith("["):
        end = hostport.find("]")
        if end < 0 or end + 1 != colon:
            return None
        host, tail = hostport[1:end], hostport[end + 1 :]
        if "[" in hostport[1:] or "]" in tail:
            return None
    else:
        host = hostport[:colon]
        if ":" in host or "[" in hostport or "]" in hostport:
            return None
    return host, hostport[colon + 1 :]


def _address(text: str) -> str | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return None if "%" in text else str(mapped or address)
