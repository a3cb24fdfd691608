"""The socket, and how a server ends: every request that it accepted is answered first."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn

from peftlab.errors import Interrupted, UserError
from peftlab.serving.app import Service
from peftlab.serving.gate import Door

_LINGER = 1.0  # seconds for which idle connections are kept after the signal
_BACKLOG = 2048


class _Server(uvicorn.Server):
    """uvicorn, but connections stay open for a moment after the signal.

    uvicorn closes idle connections at once, so that a request which a client is just sending gets no answer and its
    sender cannot tell whether it was taken. Here those that still come are answered, and told that the connection ends.
    """

    def __init__(self, config: uvicorn.Config, door: Door) -> None:
        super().__init__(config)
        self._door = door
        self.signal_number = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 the handler's signature
        """Note the first signal and begin to end; a SIGINT after that ends at once."""
        self.signal_number = self.signal_number or sig
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connection, answer what comes on the open ones for a moment, then what is inside, and close."""
        self._door.draining = True
        for server in self.servers:
            server.close()
        until = time.monotonic() + _LINGER
        while self.server_state.connections and time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


@contextmanager
def listening(host: str, port: int, unix_socket: Path | None) -> Iterator[socket.socket]:
    """Yield a bound socket, which takes no connection yet; UserError where the address cannot be had."""
    place = str(unix_socket) if unix_socket is not None else f"{host}:{port}"
    family = socket.AF_UNIX if unix_socket is not None else socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if unix_socket is not None:
            _remove_socket(unix_socket)
            made.bind(str(unix_socket))
            unix_socket.chmod(0o600)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((host, port))
    except OSError as error:
        made.close()
        raise UserError(f"cannot listen on {place}: {error.strerror or error}; choose another address") from error
    try:
        yield made
    finally:
        made.close()
        if unix_socket is not None:
            _remove_socket(unix_socket)


def address(made: socket.socket) -> str:
    """Return where a bound socket is reached."""
    if made.family == socket.AF_UNIX:
        return f"unix:{made.getsockname()}"
    host, port = made.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(service: Service, made: socket.socket, timeout: float, ready: Callable[[], None]) -> None:
    """Serve on the bound socket until SIGTERM or SIGINT; raises Interrupted when all that was accepted is answered.

    `timeout`: seconds after which a request is answered in any case. `ready()` is called when requests are taken.
    """
    config = uvicorn.Config(
        service.app,
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        loop="asyncio",
        http="h11",
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=30,
        # A body may take as long as an answer; longer than both no request can be inside.
        timeout_graceful_shutdown=math.ceil(2 * timeout) + 5,
    )
    server = _Server(config, service.door)
    asyncio.run(_serve(server, made, ready))
    left = f"{service.door.given_up:,} given up" if service.door.given_up else "none left"
    raise Interrupted(server.signal_number or signal.SIGTERM, f"{service.door.answered:,} requests answered, {left}")


async def _serve(server: _Server, made: socket.socket, ready: Callable[[], None]) -> None:
    serving = asyncio.ensure_future(server.serve(sockets=[made]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        ready()
    await serving


def _remove_socket(path: Path) -> None:
    """Remove a socket that an earlier server left behind; anything else of that name stays."""
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        path.unlink()
