"""What stands in front of the routes: hosts, token, sizes, load, headers, counting; and the end of what breaks.

A plain ASGI application around another one. A request's body is read here, whole and within its bounds, before any
route sees it. Nothing that a client wrote is logged: of an exception only its type and place.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import traceback
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peftlab.serving.access import Access
from peftlab.serving.limits import Limits
from peftlab.serving.metrics import Metrics

LOG = logging.getLogger("peftlab.serving")
_DISCARDED = 64_000_000  # bytes of a body that is too long which are read and thrown away, so that its sender listens
_BODY_METHODS = ("POST", "PUT", "PATCH")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


@dataclass
class Door:
    """Whether the server is about to end, and the requests that are inside, that were answered, and that were given up.

    Given up: the end was waited for in vain, or the server was told to end at once.
    """

    draining: bool = False
    inside: int = 0
    answered: int = 0
    given_up: int = 0


class Refused(Exception):
    """A request that is not let in: the status, a sentence, and headers of the answer."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.status, self.sentence, self.headers = status, sentence, dict(headers or {})


def problem(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer that is a sentence: ``{"detail": ...}``."""
    # ASCII only, so that no character of a client's own words can break the answer.
    body = json.dumps({"detail": sentence}).encode("ascii")
    return Response(body, status, headers=dict(headers or {}), media_type="application/json")


class Gate:
    """The application `app` behind its gate."""

    def __init__(self, app: ASGIApp, door: Door, access: Access, limits: Limits, metrics: Metrics) -> None:
        """`door` is shared with whoever lets the server end."""
        self._app, self._door, self._access = app, door, access
        self._limits, self._metrics = limits, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; other kinds of connection are passed on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": self._headers(message["headers"])}
            await send(message)

        self._door.inside += 1
        try:
            await self._let_in(scope, receive, watched)
        except Exception as error:
            LOG.error("%s", without_words(error))
            if not status:
                await problem(500, "the server failed; its log says where")(scope, receive, watched)
        finally:
            self._door.inside -= 1
            self._door.answered += bool(status)
            self._door.given_up += not status
            # A matched route leaves itself in the scope; what matched none is not told apart.
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - started)
            LOG.info("%s %s %d %.1f ms", _method(scope), route, status, (time.monotonic() - started) * 1000)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope)
            body = await self._body(scope, receive) if scope["method"] in _BODY_METHODS else None
        except Refused as refused:
            await problem(refused.status, refused.sentence, refused.headers)(scope, receive, send)
            return
        await self._app(scope, receive if body is None else _replayed(body, receive), send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if not self._access.answers_to(headers.get("host")):
            raise Refused(421, "this server answers to local host names only; start it with --allow-host NAME for more")
        path: str = scope["path"]
        if (path.startswith("/v1/") or path == "/metrics") and not self._access.knows(headers.get("authorization")):
            raise Refused(
                401,
                "a token is needed: send the header Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Return the body; Refused where it is too long, too slow or no JSON, or too many requests are inside."""
        headers, most = Headers(scope=scope), self._limits.max_body
        crowded = self._door.inside > self._limits.max_requests
        length = headers.get("content-length", "")
        kept: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.timeout):
                async for part in _parts(receive):
                    size += len(part)
                    if size <= most and not crowded:
                        kept.append(part)
                    else:
                        kept.clear()
                    if size > _DISCARDED:
                        break
        except TimeoutError:
            raise Refused(408, "the body did not arrive in time", {"Connection": "close"}) from None
        if size > most or (length.isdigit() and int(length[:20]) > most):
            raise Refused(413, f"the body is too long; expected at most {most:,} bytes", {"Connection": "close"})
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(415, "expected JSON: send the header Content-Type: application/json")
        if crowded:
            raise Refused(429, "too many requests at a time; try again in a second", {"Retry-After": "1"})
        return b"".join(kept)

    def _headers(self, given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        more = {**_HEADERS, **({"Connection": "close"} if self._door.draining else {})}
        names = {name.lower() for name, _ in given}
        own = [(name.lower().encode(), value.encode()) for name, value in more.items()]
        return [*given, *(pair for pair in own if pair[0] not in names)]


def _method(scope: Scope) -> str:
    """Return the method of a request, where it is one; any other word is the client's own."""
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return scope["method"] if scope["method"] in known else "other"


def without_words(error: BaseException) -> str:
    """Return the type of an exception and where it was raised, without its message, which may hold a client's text."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    cause = error.__cause__ or error.__context__
    before = f"{without_words(cause)}\nwhich led to\n" if cause is not None else ""
    return f"{before}{type(error).__name__}\n{frames}".rstrip()


async def _parts(receive: Receive) -> AsyncIterator[bytes]:
    """Yield what arrives of a body."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return what gives `body` at once, and then what `receive` gives."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return left.pop() if left else await receive()

    return replayed
