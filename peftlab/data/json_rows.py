"""JSON Lines, and .json files that hold an array of objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from peftlab.data.readers import Columns, Role, bad_rows, blank_note, require_columns
from peftlab.errors import DataError

_SPACE = re.compile(r"[ \t\r\n]*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: Path, text: str, wanted: Mapping[Role, str], *, array: bool) -> Columns:
    """Read one JSON object a line, or, with `array`, one array of objects; a key that a row lacks is None there.

    A key that no row has is a missing column. Lines that are not JSON, or not an object, are all named at once.
    """
    blank = 0
    lines: list[int] = []
    bad: list[tuple[int, str]] = []
    present: dict[str, None] = {}
    values: dict[Role, list[object]] = {role: [] for role in wanted}
    for line, row in _array_items(path, text) if array else _line_items(text):
        if row is None:
            blank += 1
        elif isinstance(row, str):
            bad.append((line, row))
        else:
            lines.append(line)
            present.update(dict.fromkeys(row))
            for role, column in wanted.items():
                values[role].append(row.get(column))
    if bad:
        raise bad_rows(path, bad)
    if lines:
        require_columns(str(path), list(present), wanted)
    return Columns(lines, values, (blank_note(blank),) if blank else ())


_Item = tuple[int, dict[str, object] | str | None]  # line; the object, or why it is none, or None for a blank line


def _line_items(text: str) -> Iterator[_Item]:
    # Not splitlines(): U+2028 and its like may stand inside a JSON string.
    raw_lines = text.split("\n")
    if raw_lines[-1] == "":
        raw_lines.pop()
    for line, raw in enumerate(raw_lines, start=1):
        if not raw.strip():
            yield line, None
            continue
        try:
            value = json.loads(raw)
        except json.JSONDecodeError as error:
            yield line, _syntax(error, raw, line)
        except (ValueError, RecursionError) as error:
            yield line, f"not readable as JSON ({error}); correct the line"
        else:
            yield line, json_row(value, raw)


def _array_items(path: Path, text: str) -> Iterator[_Item]:
    decoder = json.JSONDecoder()
    place = _skip(text, text.index("[") + 1)
    line, counted = 1, 0
    while text[place : place + 1] != "]":
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, end = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise _broken_array(
                path, f"{error.lineno}", f"invalid JSON at column {error.colno} ({error.msg})"
            ) from error
        except (ValueError, RecursionError) as error:
            raise _broken_array(path, str(line), f"not readable as JSON ({error})") from error
        yield line, json_row(value, text[place:end])
        place = _skip(text, end)
        if text[place : place + 1] == ",":
            place = _skip(text, place + 1)
        elif text[place : place + 1] != "]":
            raise _broken_array(path, str(text.count("\n", 0, place) + 1), "expected a comma or the end of the array")
    if text[place + 1 :].strip():
        raise _broken_array(path, str(text.count("\n", 0, place) + 1), "text stands behind the end of the array")


def _broken_array(path: Path, line: str, what: str) -> DataError:
    return DataError(f"{path}:{line}: {what}; expected one array of objects, so correct the file or write it anew")


def _skip(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place


def json_row(value: object, raw: str) -> dict[str, object] | str:
    """Return the object that `raw` was read as, or why it cannot be a row."""
    if not isinstance(value, dict):
        return f'a JSON {_kind(value)}; expected an object such as {{"text": ..., "label": ...}}'
    if _SURROGATE.search(raw):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            return "holds half a character (a \\ud800-\\udfff escape without its other half); correct the escape"
    return value


def _syntax(error: json.JSONDecodeError, raw: str, line: int) -> str:
    if "\0" in raw:
        return f"NUL byte at column {raw.index(chr(0)) + 1}, which JSON does not allow; write the file anew"
    if line == 1 and raw.lstrip().startswith("["):
        return "a JSON array begins here; expected one object a line, so name the file .json"
    return f"invalid JSON at column {error.colno} ({error.msg}); expected one object a line"


def _kind(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names[type(value)]
