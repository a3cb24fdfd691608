"""CSV and TSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from peftlab.data.readers import Columns, Role, bad_rows, blank_note, require_columns
from peftlab.errors import DataError

_LARGEST_FIELD = 2**31 - 1  # what a C long holds everywhere; the csv module's own limit of 128 KiB is too small
_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_Records = list[tuple[int, list[str]]]
PLAIN_QUOTES = 'quotes (") were read as plain characters, as they do not pair up as quotes'


def read_delimited(path: Path, text: str, wanted: Mapping[Role, str], *, delimiter: str) -> Columns:
    """Read CSV (RFC 4180 quotes) or TSV with a header line; a record's line is the one on which it starts.

    TSV is written both with quotes and, as GLUE and others do, without. Where every line has the header's number of
    fields if quotes are plain characters, and reading them as quotes fails or joins lines, they are plain characters.
    """
    records, notes = _records(path, text, delimiter)
    blank = sum(not fields for _, fields in records)
    records = [(line, fields) for line, fields in records if fields]
    if not records:
        raise DataError(f"{path}: holds blank lines only; expected a header line and rows")
    if blank:
        notes.append(blank_note(blank))
    first_line, header = records[0]
    _check_header(path, first_line, header, delimiter, wanted)
    rows = records[1:]
    wrong = [
        (line, f"{_fields(len(fields))}, but the header has {len(header)}; {_quoting_hint(delimiter, fields, header)}")
        for line, fields in rows
        if len(fields) != len(header)
    ]
    if wrong:
        raise bad_rows(path, wrong)
    joined = [line for line, fields in rows if spans_lines(fields)]
    if joined:
        notes.append(joined_note(len(joined), joined[0]))
    places = {role: header.index(column) for role, column in wanted.items()}
    values = {role: [fields[place] for _, fields in rows] for role, place in places.items()}
    return Columns([line for line, _ in rows], values, tuple(notes))


def spans_lines(fields: Sequence[str]) -> bool:
    """Say whether a record stands on several lines."""
    return any("\n" in field or "\r" in field for field in fields)


def joined_note(count: int, first: int) -> str:
    """Return what people should know of `count` records on several lines, the first of which starts on line `first`."""
    span = "row spans" if count == 1 else "rows span"
    return f"{count:,} quoted {span} several lines, the first from line {first}"


def _records(path: Path, text: str, delimiter: str) -> tuple[_Records, list[str]]:
    quoted: _Records | None = None
    problem: DataError | None = None
    try:
        quoted = _parse(path, text, delimiter, csv.QUOTE_MINIMAL)
    except DataError as error:
        problem = error
    if delimiter == "\t" and '"' in text:
        plain = _parse(path, text, delimiter, csv.QUOTE_NONE)
        regular = len({len(fields) for _, fields in plain if fields}) == 1
        if regular and (quoted is None or len(quoted) != len(plain)):
            return plain, [PLAIN_QUOTES]
    if problem is not None:
        raise problem
    return quoted or [], []


def _parse(path: Path, text: str, delimiter: str, quoting: Literal[0, 3]) -> _Records:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    records: _Records = []
    start = 1
    previous = csv.field_size_limit(_LARGEST_FIELD)
    try:
        for fields in reader:
            records.append((start, fields))
            start = reader.line_num + 1
    except csv.Error as error:
        unclosed = "unexpected end" in str(error)
        what = "a quote opens in this row and is never closed" if unclosed else f"broken quoting ({error})"
        raise DataError(
            f'{path}:{start}: {what}; put a field that holds a quote into quotes and double the inner one ("")'
        ) from error
    finally:
        csv.field_size_limit(previous)
    return records


def _check_header(path: Path, line: int, header: list[str], delimiter: str, wanted: Mapping[Role, str]) -> None:
    place = f"{path}:{line}"
    if len(header) == 1 and any(column not in header for column in wanted.values()):
        counts = {other: header[0].count(other) for other in _NAMES if other != delimiter}
        likely = max(counts, key=lambda other: counts[other])
        if counts[likely]:
            raise DataError(
                f'{place}: the header is one column, "{header[0][:80]}"; expected {_NAMES[delimiter]} between columns, '
                f"but it looks separated by {_NAMES[likely]}, so {_delimiter_hint(likely)}"
            )
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        names = ", ".join(f'"{name}"' for name in repeated)
        raise DataError(f"{place}: the header names {names} more than once; rename or remove all but one")
    require_columns(place, header, wanted)


def _delimiter_hint(likely: str) -> str:
    endings = {",": ".csv", "\t": ".tsv"}
    return f"name it {endings[likely]}" if likely in endings else "save it with commas (.csv) or tabs (.tsv)"


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"


def _quoting_hint(delimiter: str, fields: list[str], header: list[str]) -> str:
    if len(fields) < len(header):
        return "add what is missing or remove the row"
    return f"put a field that holds {_NAMES[delimiter]} into quotes, or remove what is too much"
