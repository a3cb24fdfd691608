"""Overrides from the command line: `key.path=value`, in place of what the recipe file says.

The value is read as TOML, and taken as text where it is none, so that `encoder.name=hfl/rbt3` needs no quotes. The
later of two overrides of one key wins, and a section that the file lacks is created. `none` unsets a key that may be
unset (`optimizer.clip=none`).

`method.name=full` changes the name alone: keys of the former method that the new one lacks are mistakes, since nobody
asked to drop them. `method.r=none` takes such a key out, and `method={name="full"}` replaces the whole section.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

from peftlab.recipe.toml_places import KeyPath

_BARE_KEYS = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


@dataclass(frozen=True)
class Override:
    """One override: `text` as given, `raw` its part after the equals sign, `value` what that means."""

    text: str
    path: tuple[str, ...]
    raw: str
    value: Any


def parse_override(text: str) -> Override:
    """Read `key.path=value`; ValueError with a sentence where `text` has another form."""
    key, equals, raw = text.partition("=")
    if not equals or not _BARE_KEYS.fullmatch(key.strip()):
        raise ValueError("expected key.path=value, such as train.seed=1")
    return Override(text, tuple(key.strip().split(".")), raw.strip(), _value(raw.strip()))


def _value(raw: str) -> Any:
    try:
        table = tomllib.loads(f"value = {raw}")
    except (ValueError, RecursionError):
        return raw
    # A line break in the value would bring in further keys. No key takes a date, but a folder's name may look like one.
    if set(table) != {"value"} or isinstance(table["value"], (date, datetime, time)):
        return raw
    return table["value"]


@dataclass(frozen=True)
class Overridden:
    """The values of a recipe after its overrides.

    `by_key` holds the override that each key path, or the table above it, comes from; `replaced` the paths at which
    there was a value before; `blocked` the paths that could not be set, with the key that is no table.
    """

    values: dict[str, Any]
    by_key: dict[KeyPath, Override]
    replaced: frozenset[KeyPath]
    blocked: dict[KeyPath, str]


def apply_overrides(values: dict[str, Any], overrides: Iterable[Override]) -> Overridden:
    """Return `values` with each override set, in order; `values` itself stays as it is."""
    values = deepcopy(values)
    by_key: dict[KeyPath, Override] = {}
    replaced: set[KeyPath] = set()
    blocked: dict[KeyPath, str] = {}
    for override in overrides:
        path = override.path
        by_key[path] = override
        table = values
        for depth, key in enumerate(path[:-1], start=1):
            if key not in table:
                by_key[path[:depth]] = override
            child = table.setdefault(key, {})
            if not isinstance(child, dict):
                blocked[path] = ".".join(path[:depth])
                break
            table = child
        else:
            if path[-1] in table:
                replaced.add(path)
            table[path[-1]] = deepcopy(override.value)
    return Overridden(values, by_key, frozenset(replaced), blocked)
