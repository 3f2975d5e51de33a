"""Whether an address can be listened on, known before minutes are spent on a model."""

from __future__ import annotations

import os
import socket

from velollm_core.errors import VeloError


def check_address(host: str, port: int) -> None:
    """Try to listen on ``host`` and ``port``, and let go of it again.

    Raises:
        VeloError: it is taken, or none of this machine's.
    """
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, kind, protocol) as probe:
            # As asyncio will: elsewhere it would allow an address that somebody listens on.
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VeloError(f"cannot listen on {host}:{port}: {reason}; try another --port or --host") from error
