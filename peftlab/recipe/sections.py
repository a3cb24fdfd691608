"""Each section of a recipe against its record: the typed values, and everything that is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from datetime import date, time
from difflib import get_close_matches
from itertools import takewhile
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from peftlab.recipe import plugins
from peftlab.recipe.expectations import UNSET, accepts_none, as_toml, expected_words, is_text, meant, record_of
from peftlab.recipe.records import Choice, Record
from peftlab.recipe.source import Finding, Source
from peftlab.recipe.toml_places import KeyPath
from peftlab.recipe.unknown_keys import PLUGIN_FOLDERS, Vocabulary, nearest, unknown_key

Checked = tuple[Record | None, list[Finding]]
"""A section's record, built from its sound keys, or None where they do not make one; and its mistakes."""


def chosen_plugins(source: Source) -> tuple[dict[str, str], list[Finding]]:
    """Return the plug-in that `method` and `task` name, where they name one that exists, and mistakes in the names."""
    chosen: dict[str, str] = {}
    findings = []
    for section, folder in PLUGIN_FOLDERS.items():
        table = source.values.get(section)
        if not isinstance(table, dict):
            continue
        known = plugins.plugin_names(folder)
        name = table.get("name")
        if name in known:
            chosen[section] = name
            continue
        expected = f"expected one of {', '.join(map(as_toml, known))}"
        if name is None:
            misspelt = get_close_matches("name", table, n=1)
            key = (section, misspelt[0]) if misspelt else (section, "name")
            findings.append(Finding(key, f"name is missing; {expected}", "did you mean name?" if misspelt else None))
            continue
        near = get_close_matches(str(name).lower(), known, n=1)
        advice = f'did you mean "{near[0]}"?' if near else None
        findings.append(Finding((section, "name"), f"{expected}, found {as_toml(name)}", advice))
    return chosen, findings


def check_plugin(
    section: str, name: str, source: Source, words: Vocabulary
) -> tuple[Choice[Record] | None, list[Finding]]:
    """Type the settings of the plug-in `name`, which are the keys of `section` other than `name`."""
    config = plugins.load_plugin(PLUGIN_FOLDERS[section], name).Config
    settings = {key: value for key, value in source.values[section].items() if key != "name"}
    record, findings = check_table((section,), config, settings, source, words)
    return (None if record is None else Choice[Record](name=name, config=record)), findings


def check_table(
    path: KeyPath, record: type[Record], table: Mapping[str, Any], source: Source, words: Vocabulary
) -> Checked:
    """Type `table`, the section at `path`, as `record`; keys with mistakes count as absent in the result."""
    values = _prepared(path, record, table, source)
    try:
        return _build(record, values), []
    except ValidationError as error:
        findings = _findings(path, record, values, error.errors(include_url=False), words)
    sound = deepcopy(values)
    for finding in findings:
        _remove(sound, finding.path[len(path) :])
    try:
        return _build(record, sound), findings
    except ValidationError:
        return None, findings


def _build(record: type[Record], values: dict[str, Any]) -> Record:
    # JSON mode: strict, yet arrays are accepted for tuples.
    return record.model_validate_json(json.dumps(_in_json(values)))


def _in_json(value: Any) -> Any:
    """Return `value` with what no field takes, dates and integers beyond 64 bit, as a list that all refuse."""
    if isinstance(value, dict):
        return {key: _in_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_json(item) for item in value]
    if isinstance(value, (date, time)) or (isinstance(value, int) and value.bit_length() > 64):
        return [{}]
    return value


def _prepared(path: KeyPath, record: type[Record], table: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """Return `table` with `none` as None where a key may be unset, and overrides of text fields as they were typed."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        here = (*path, key)
        field = record.model_fields.get(key)
        override = source.overridden.by_key.get(here)
        values[key] = value
        if field is None:
            if value == UNSET and here in source.overridden.replaced:
                del values[key]
        elif value == UNSET and accepts_none(field):
            values[key] = None
        elif override is not None and is_text(field) and isinstance(value, (bool, int, float)):
            values[key] = override.raw
        elif isinstance(value, dict) and (nested := record_of(field)):
            values[key] = _prepared(here, nested, value, source)
    return values


def _findings(
    path: KeyPath,
    record: type[Record],
    values: dict[str, Any],
    errors: list[ErrorDetails],
    words: Vocabulary,
) -> list[Finding]:
    """Word pydantic's `errors`, one finding a key: each member of a union reports an error of its own."""
    by_key: dict[KeyPath, ErrorDetails] = {}
    for error in errors:
        by_key.setdefault(_key_path(error, values), error)
    unknown = [key for key, error in by_key.items() if error["type"] == "extra_forbidden"]
    # A required key that is only misspelt is one mistake, not two.
    misspelt = {(*key[:-1], nearest((*path, *key), words)) for key in unknown}
    findings = [unknown_key((*path, *key), words) for key in unknown]
    for key, error in by_key.items():
        # A union with a list or table in it also complains about the whole of it.
        covered = any(len(other) > len(key) and other[: len(key)] == key for other in by_key)
        named = error["type"] == "missing" and key in misspelt
        if not covered and not named and key not in unknown:
            findings.append(_refused(path, key, _field(record, key), values, error))
    return findings


def _refused(
    path: KeyPath, key: KeyPath, field: FieldInfo | None, values: dict[str, Any], error: ErrorDetails
) -> Finding:
    here = (*path, *key)
    if error["type"] in ("value_error", "assertion_error"):
        return Finding(here, str(error["ctx"]["error"]))
    if field is None:
        return Finding(here, error["msg"])
    expected = f"expected {expected_words(field)}"
    parent = _at(values, key[:-1])
    if isinstance(parent, dict) and key[-1] not in parent:
        return Finding(here, f"missing; {expected}")
    value = _at(values, key)
    if isinstance(key[-1], int):
        return Finding(here, f"{expected}, found {as_toml(value)} as value {key[-1] + 1}")
    return Finding(here, f"{expected}, found {as_toml(value)}", meant(field, value))


def _key_path(error: ErrorDetails, values: dict[str, Any]) -> KeyPath:
    """Return the key path of `error` inside `values`: pydantic's own place also names the members of unions."""
    node: Any = values
    path: KeyPath = ()
    for part in error["loc"]:
        inside = part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node))
        if inside:
            node = node[part]
            path = (*path, part)
    missing = error["loc"][-1] if error["type"] == "missing" else None
    return (*path, missing) if isinstance(missing, str) else path


def _field(record: type[Record], key: KeyPath) -> FieldInfo | None:
    """Return the field that types the value at `key`, or the list or table that the value stands in."""
    field = record.model_fields.get(str(key[0])) if key else None
    if field is not None and len(key) > 1 and (nested := record_of(field)):
        return _field(nested, key[1:])
    return field


def _at(values: dict[str, Any], path: KeyPath) -> Any:
    node: Any = values
    for part in path:
        node = node[part]
    return node


def _remove(values: dict[str, Any], path: KeyPath) -> None:
    """Remove the key at `path`, or the whole list in which it stands; nothing where the mistake is a missing key."""
    keys = list(takewhile(lambda part: isinstance(part, str), path))
    if keys:
        _at(values, tuple(keys[:-1])).pop(keys[-1], None)
