"""A server in a process of its own, on a unix socket or a free port of this machine, and a client of it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from killing import fork_server, start_program

LONGEST = 240.0  # seconds for whatever is waited for, on a machine with much else to do


@dataclass(frozen=True)
class Running:
    """A process that serves, where it is reached, and the file with all that it says."""

    process: Any
    address: str
    log: Path

    def said(self) -> str:
        """Return what the server said so far."""
        return self.log.read_text(encoding="utf-8")

    def terminate(self) -> None:
        """Send SIGTERM."""
        os.kill(self.process.pid, signal.SIGTERM)

    def ended(self) -> int:
        """Wait for the end of the process and return its exit code."""
        self.process.join(LONGEST)
        code: int = self.process.exitcode
        return code

    def answered(self) -> int:
        """Return the number of requests that the server says it has answered, with none left, when it ended."""
        found = re.search(r"SIGTERM: ([\d,]+) requests answered, none left", self.said())
        assert found is not None, self.said()
        return int(found[1].replace(",", ""))


@contextmanager
def running(folders: dict[str, Path], place: Path, *options: str) -> Iterator[Running]:
    """Start `peftlab serve` and yield it once it takes requests; kill it at the end if it still runs.

    `place`: a folder for its socket and its words. With ``--port`` among the options it listens there instead.
    """
    where = () if "--port" in options else ("--unix-socket", str(place / "s"))
    words = [
        *(f"{name}={folder}" for name, folder in folders.items()),
        *where,
        "--threads",
        "1",
        "--timeout",
        "120",
        *options,
    ]
    log = place / "log.txt"
    process = fork_server().Process(target=start_program, args=("peftlab.serve", words, str(log)))
    process.start()
    try:
        until = time.monotonic() + LONGEST
        while (address := _address(log)) is None:
            assert process.is_alive(), log.read_text(encoding="utf-8")
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.02)
        yield Running(process, address, log)
    finally:
        process.kill()
        process.join()


def _address(log: Path) -> str | None:
    text = log.read_text(encoding="utf-8") if log.is_file() else ""
    found = re.search(r"^(unix:.+|http://.+)\n", text, flags=re.MULTILINE)
    return found[1] if found is not None else None


class Connection(http.client.HTTPConnection):
    """A connection to the unix socket of a server, kept open between requests."""

    def __init__(self, server: Running) -> None:
        super().__init__("server", timeout=LONGEST)
        self._path = server.address.removeprefix("unix:")

    def connect(self) -> None:
        """Connect to the socket file."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.connect(self._path)
        except OSError:
            made.close()
            raise
        self.sock = made

    def post(self, path: str, body: Any) -> tuple[int, Any, http.client.HTTPMessage]:
        """Send `body`, bytes or what becomes JSON, and return status, answer and headers."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.request("POST", path, sent, {"Content-Type": "application/json"})
        answer = self.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers


def same_answer(answer: dict[str, Any], row: dict[str, Any]) -> bool:
    """Say whether an answer is the predictor's row, to 1e-4 in every probability; of a tagger the same entities."""
    if "entities" in row:
        return answer == row
    given, expected = answer["probabilities"], row["probabilities"]
    near = all(abs(given[label] - chance) <= 1e-4 for label, chance in expected.items())
    return near and given.keys() == expected.keys() and answer["label"] == row["label"]
