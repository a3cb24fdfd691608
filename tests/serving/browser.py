"""A headless Chromium, driven over a pipe by the DevTools protocol: no socket, no further package."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# What a browser does of its own accord is switched off, and no name but 127.0.0.1 is looked up.
_SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=420,900",
    "--remote-debugging-pipe",
)
_PATIENCE = 120.0  # seconds


class Page:
    """One page of the browser: what it asked for, what it complained of, and a hand to type with."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._left = b""
        self._number = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{part}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come meanwhile are noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def value(self, script: str) -> Any:
        """Return what a script gives on the page."""
        given = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in given, given
        return given["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """Return the value of a script as soon as it counts as true."""
        until = time.monotonic() + _PATIENCE
        while not (value := self.value(script)):
            assert time.monotonic() < until, (script, self.complaints, self.value("document.body.innerText"))
            time.sleep(0.05)
        return value

    def type_into(self, selector: str, text: str) -> None:
        """Put the cursor into a field, empty it and type."""
        self.value(f"(() => {{ const f = document.querySelector({json.dumps(selector)}); f.focus(); f.select(); }})()")
        self.send("Input.insertText", text=text)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._read], [], [], _PATIENCE)
            assert ready, "the browser says nothing"
            part = os.read(self._read, 1 << 16)
            assert part, "the browser is gone"
            self._left += part
        raw, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, said: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif method in {"Runtime.consoleAPICalled", "Runtime.exceptionThrown"}:
            self.complaints.append(json.dumps(said))
        elif method == "Log.entryAdded":
            self.complaints.append(said["entry"]["text"])


@contextmanager
def browser_page(browser: str, profile: Path) -> Iterator[Page]:
    """Start `browser` with an empty profile and yield a blank page."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    process = subprocess.Popen(
        [browser, *_SWITCHES, f"--user-data-dir={profile}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=False,
        preexec_fn=_as_pipes(to_read, from_write),  # noqa: PLW1509 nothing else runs in a thread here
    )
    os.close(to_read)
    os.close(from_write)
    try:
        yield Page(from_read, to_write)
    finally:
        process.kill()
        process.wait()
        os.close(from_read)
        os.close(to_write)


def _as_pipes(commands: int, answers: int) -> Callable[[], None]:
    """Return what makes the two descriptors 3 and 4 in the new process, as Chromium expects them."""

    def move() -> None:
        above = [os.dup(commands), os.dup(answers)]
        while min(above) < 5:
            above = [os.dup(one) for one in above]
        for own, wanted in zip(above, (3, 4), strict=True):
            os.dup2(own, wanted)

    return move
