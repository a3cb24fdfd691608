"""Refuses every connection to another machine in the Python processes that tests start.

pytest-socket guards the test process alone. `conftest.py` puts this folder on PYTHONPATH, so that an interpreter
started by a test imports it before anything else. Loopback stays open: two training processes meet there.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any


def _is_loopback(host: object) -> bool:
    if host in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


class _LoopbackSocket(socket.socket):
    def connect(self, address: Any, /) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            raise PermissionError(f"tests may not reach the network: {address}")
        super().connect(address)


socket.socket = _LoopbackSocket  # type: ignore[misc]
_getaddrinfo = socket.getaddrinfo


def _resolve(host: Any, *arguments: Any, **options: Any) -> Any:
    if host is not None and not _is_loopback(host) and host != socket.gethostname():
        raise PermissionError(f"tests may not look up {host!r}")
    return _getaddrinfo(host, *arguments, **options)


socket.getaddrinfo = _resolve
