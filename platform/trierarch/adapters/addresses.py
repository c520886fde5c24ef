"""The addresses behind a name: one for each process of a headless Service."""

from __future__ import annotations

import socket


def resolve_addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a name, each process once; it may take seconds.

    Raises:
        OSError: If it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families = [family for family, *_ in found]
    # A process with an address of each kind is still one process.
    family = socket.AF_INET if socket.AF_INET in families else families[0]
    return list(dict.fromkeys(str(where[0]) for kind, *_, where in found if kind == family))
