"""Advice for a key that a section does not have: where it belongs, or which key was meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from peftlab.recipe import plugins
from peftlab.recipe.expectations import record_of
from peftlab.recipe.records import Recipe, Record
from peftlab.recipe.source import Finding, Source
from peftlab.recipe.toml_places import KeyPath

PLUGIN_FOLDERS: Mapping[str, plugins.Folder] = {"method": "methods", "task": "tasks"}
"""Sections in which `name` chooses a plug-in, which types the other keys."""
LISTED_PLUGINS: Mapping[str, plugins.Folder] = {"curate": "curators"}
"""Lists of tables, in each of which `name` chooses a plug-in, which types the other keys."""


def sections(kind: type[BaseModel] = Recipe) -> tuple[str, ...]:
    """Return the names of the sections of a recipe of this `kind`."""
    return tuple(name for name in kind.model_fields if name not in ("name", "path"))


def section_record(section: str, kind: type[BaseModel] = Recipe) -> type[Record]:
    """Return the record that types `section`, one without a plug-in."""
    record = record_of(kind.model_fields[section])
    if record is None:
        raise KeyError(section)
    return record


def is_required(section: str, kind: type[BaseModel] = Recipe) -> bool:
    """Say whether a recipe needs `section`; `encoder` only where its method does."""
    return kind.model_fields[section].is_required()


@dataclass(frozen=True)
class Vocabulary:
    """The keys of every section of one recipe, its plug-ins' among them.

    `chosen` are the plug-ins by section; `overridden` the sections in which an override chose the plug-in.
    """

    keys: Mapping[KeyPath, tuple[str, ...]]
    chosen: Mapping[str, str]
    overridden: frozenset[str]


def vocabulary(source: Source, chosen: Mapping[str, str], kind: type[BaseModel] = Recipe) -> Vocabulary:
    """Return the keys that the recipe `source` may use, in which `method` and `task` name the plug-ins `chosen`."""
    keys: dict[KeyPath, tuple[str, ...]] = {(): sections(kind)}
    for section in sections(kind):
        if section in LISTED_PLUGINS:
            keys.update(_keys_of_list(section, source.values.get(section)))
        elif section not in PLUGIN_FOLDERS:
            keys.update(_keys_below((section,), section_record(section, kind)))
        elif section in chosen:
            below = _keys_below((section,), plugins.load_plugin(PLUGIN_FOLDERS[section], chosen[section]).Config)
            keys.update(below)
            keys[(section,)] = ("name", *keys[(section,)])
    overridden = frozenset(section for section in chosen if source.override_of((section, "name")))
    return Vocabulary(keys, chosen, overridden)


def _keys_of_list(section: str, tables: Any) -> Iterator[tuple[KeyPath, tuple[str, ...]]]:
    folder = LISTED_PLUGINS[section]
    for place, table in enumerate(tables if isinstance(tables, list) else ()):
        name = table.get("name") if isinstance(table, dict) else None
        if name in plugins.plugin_names(folder):
            keys = plugins.load_plugin(folder, name).Config.model_fields
            yield (section, place), ("name", *keys)


def _keys_below(path: KeyPath, record: type[Record]) -> Iterator[tuple[KeyPath, tuple[str, ...]]]:
    yield path, tuple(record.model_fields)
    for key, field in record.model_fields.items():
        if nested := record_of(field):
            yield from _keys_below((*path, key), nested)


def nearest(path: KeyPath, words: Vocabulary) -> str | None:
    """Return the key of the same section that the unknown key at `path` is closest to, if one is close."""
    near = get_close_matches(str(path[-1]), words.keys.get(path[:-1], ()), n=1)
    return near[0] if near else None


def unknown_key(path: KeyPath, words: Vocabulary) -> Finding:
    """Say that the key at `path` is unknown, and what to do about it."""
    section, key = path[:-1], str(path[-1])
    expected = f"unknown key in {_header(section)}" if section else "no section has this name"
    if len(section) == 1 and (advice := _of_another_plugin(str(section[0]), key, words)):
        return Finding(path, expected, advice)
    homes = [home for home, keys in words.keys.items() if home and home != section and key in keys]
    if homes and len(homes) <= 2 and key != "name":
        return Finding(path, expected, f"{key} belongs to {' or '.join(map(_header, homes))}")
    if near := nearest(path, words):
        return Finding(path, expected, f"did you mean {near if section else _header((near,))}?")
    for home, keys in words.keys.items():
        if home and key not in keys and (meant := get_close_matches(key, keys, n=1, cutoff=0.8)):
            return Finding(path, expected, f"did you mean {meant[0]} in {_header(home)}?")
    if not section:
        return Finding(path, expected, f"the sections are {_listed(_header((name,)) for name in words.keys[()])}")
    return Finding(path, expected, f"its keys are {_listed(words.keys.get(section, ()))}")


def _of_another_plugin(section: str, key: str, words: Vocabulary) -> str | None:
    """Return advice where `key` is a setting of a plug-in that the recipe does not use."""
    if section not in PLUGIN_FOLDERS:
        return None
    folder = PLUGIN_FOLDERS[section]
    owners = [
        name for name in plugins.plugin_names(folder) if key in plugins.load_plugin(folder, name).Config.model_fields
    ]
    if not owners:
        return None
    advice = (
        f"{key} is a setting of {plugins.named(owners, 'and')}, and this recipe's {section} is {words.chosen[section]}"
    )
    if section not in words.overridden:
        return advice
    whole = f'{section}={{name="{words.chosen[section]}"}}'
    return f"{advice}: add the override {section}.{key}=none, or override the whole section with '{whole}'"


def _header(section: KeyPath) -> str:
    if isinstance(section[-1], int):
        return f"[[{'.'.join(map(str, section[:-1]))}]]"
    return f"[{'.'.join(map(str, section))}]"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
