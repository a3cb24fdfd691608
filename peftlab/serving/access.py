"""Who may ask a server: where it listens, under which host names, and with which token."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from peftlab.errors import UserError

TOKEN_VARIABLE = "PEFTLAB_SERVE_TOKEN"
_SHORTEST = 16  # characters of a token


@dataclass(frozen=True)
class Access:
    """Who may ask. `token`: SHA-256 of the bearer token, None where none is needed. `local`: this machine alone can.

    `hosts`: the names in the Host header that are answered; None for any. Without a token a server on loopback insists
    on a local name: a page of another site, whose name was made to point to 127.0.0.1, would otherwise be let in.
    """

    token: bytes | None
    local: bool
    hosts: frozenset[str] | None

    @property
    def may_load(self) -> bool:
        """Say whether models may be loaded and unloaded from outside: by this machine, or by those with the token."""
        return self.token is not None or self.local

    def knows(self, authorization: str | None) -> bool:
        """Say whether an Authorization header carries the token, in a time that does not depend on it."""
        if self.token is None:
            return True
        scheme, _, given = (authorization or "").partition(" ")
        same = hmac.compare_digest(hashlib.sha256(given.strip().encode("utf-8", "replace")).digest(), self.token)
        return same and scheme.lower() == "bearer"

    def answers_to(self, host: str | None) -> bool:
        """Say whether a Host header names this server."""
        return self.hosts is None or _name(host or "") in self.hosts


def access(host: str | None, token: str | None, more_hosts: tuple[str, ...] = ()) -> Access:
    """Return who may ask a server that listens on `host`, None for a unix socket."""
    local = host is None or is_loopback(host)
    digest = hashlib.sha256(token.encode("utf-8")).digest() if token is not None else None
    names = {"localhost", "127.0.0.1", "::1", *((host,) if host else ()), *more_hosts}
    checked = local and host is not None and token is None
    return Access(digest, local, frozenset(name.lower() for name in names) if checked else None)


def read_token(file: str | None) -> str | None:
    """Return the token in `file`, else in the environment variable, else None; UserError where it is no good one."""
    if file is not None:
        try:
            given, place = Path(file).read_text(encoding="utf-8").strip(), f"the file {file}"
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--token-file {file} cannot be read: {error}") from error
    elif TOKEN_VARIABLE in os.environ:
        given, place = os.environ[TOKEN_VARIABLE].strip(), f"the environment variable {TOKEN_VARIABLE}"
    else:
        return None
    if len(given) < _SHORTEST or not given.isascii() or not given.isprintable() or " " in given:
        raise UserError(f"the token in {place} is no good: expected at least {_SHORTEST} letters, digits or signs")
    return given


def is_loopback(host: str) -> bool:
    """Say whether `host` is an address of this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(header: str) -> str:
    """Return a Host header without its port and brackets, in lower case."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()
