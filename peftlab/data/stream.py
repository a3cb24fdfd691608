"""Rows of a file of any size, one after the other, in constant memory: to be answered, or to be kept on disk.

A file that cannot be read so is given to `read_whole`, which says what is wrong with it and where.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TextIO

from peftlab.data.delimited import PLAIN_QUOTES, joined_note, spans_lines
from peftlab.data.json_rows import json_row
from peftlab.data.kept import Column, Kept
from peftlab.data.readers import Columns, Role, blank_note, file_ending, read_whole
from peftlab.errors import DataError

Row = tuple[int, dict[Role, object]]
"""The line on which a row starts (Parquet: its number), and its values by role."""

_LARGEST_FIELD = 2**31 - 1
_AT_ONCE = 1024


class _BrokenError(Exception):
    """The file is not what its ending says."""


_UNREADABLE = (_BrokenError, UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error, csv.Error, OSError)


@dataclass
class _Seen:
    """What was met on the way through a file. `columns`: those that any row of a JSON file has."""

    blank: int = 0
    joined: int = 0
    first_joined: int = 0
    plain_quotes: bool = False
    columns: set[str] = field(default_factory=set)

    def notes(self) -> tuple[str, ...]:
        """Return what people should know of the reading."""
        said = [PLAIN_QUOTES] if self.plain_quotes else []
        said += [blank_note(self.blank)] if self.blank else []
        return (*said, *([joined_note(self.joined, self.first_joined)] if self.joined else []))


def stream_rows(path: Path, wanted: Mapping[Role, str]) -> Iterator[Row]:
    """Yield the rows of a CSV, TSV, JSONL, JSON or Parquet file, perhaps gzipped, with the columns `wanted`.

    Raises DataError, with file and line, as `read_table` does. An array in a .json file is held in memory, as it has no
    lines; everything else is not.
    """
    try:
        yield from _rows(path, wanted, _Seen())
    except _UNREADABLE as error:
        read_whole(path, wanted)
        raise DataError(f"{path}: cannot be read row by row ({error}); write or copy the file anew") from error


def kept_columns(path: Path, wanted: Mapping[Role, str]) -> Columns | None:
    """Return the columns of a file, its rows kept on disk; None where it cannot be read row by row, or has no rows."""
    seen, lines = _Seen(), array("I")

    def rows() -> Iterator[tuple[object, ...]]:
        for line, values in _rows(path, wanted, seen):
            lines.append(line)
            yield tuple(values.values())

    try:
        kept = Kept(rows())
    except _UNREADABLE:
        return None
    if not len(kept):
        return None
    together = lines[-1] - lines[0] == len(lines) - 1
    where = range(lines[0], lines[-1] + 1) if together else lines
    return Columns(where, {role: Column(kept, place) for place, role in enumerate(wanted)}, seen.notes())


def stream_lines(source: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line of a file, or of standard input (``-``); DataError where it is not UTF-8."""
    try:
        if source == "-":
            yield from _stripped(sys.stdin)
            return
        with Path(source).open(encoding="utf-8-sig", newline="\n") as lines:
            yield from _stripped(lines)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source} is not UTF-8 (byte {error.start}); convert it, as with: iconv -f GB18030 -t UTF-8"
        ) from error


def _stripped(lines: TextIO) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, start=1):
        yield number, line.rstrip("\r\n")


def _rows(path: Path, wanted: Mapping[Role, str], seen: _Seen) -> Iterator[Row]:
    ending, gzipped = file_ending(path)
    if not path.is_file() or path.stat().st_size == 0:
        raise _BrokenError("it is missing or empty")
    if ending == ".parquet":
        yield from _parquet(path, wanted)
        return
    with _opened(path, gzipped) as text:
        if ending in (".csv", ".tsv"):
            delimiter: Literal[",", "\t"] = "," if ending == ".csv" else "\t"
            quoting = _quoting(path, wanted, delimiter, gzipped)
            seen.plain_quotes = quoting == csv.QUOTE_NONE
            yield from _delimited(text, wanted, delimiter, quoting, seen)
        elif ending == ".json" and _begins_array(path, gzipped):
            yield from _whole(path, wanted)
        else:
            yield from _json_lines(text, wanted, seen)


@contextmanager
def _opened(path: Path, gzipped: bool) -> Iterator[TextIO]:
    """Open a file as UTF-8; a line ends at a newline alone, so that U+2028 may stand in a JSON string."""
    with gzip.open(path, "rb") if gzipped else path.open("rb") as raw:
        yield io.TextIOWrapper(raw, encoding="utf-8-sig", newline="\n")


def _whole(path: Path, wanted: Mapping[Role, str]) -> Iterator[Row]:
    table = read_whole(path, wanted)
    for place, line in enumerate(table.lines):
        yield line, {role: table.columns[role][place] for role in wanted}


def _json_lines(lines: TextIO, wanted: Mapping[Role, str], seen: _Seen) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            seen.blank += 1
            continue
        try:
            row = json_row(json.loads(line), line)
        except (ValueError, RecursionError) as error:
            raise _BrokenError(f"line {number} is no JSON") from error
        if isinstance(row, str):
            raise _BrokenError(f"line {number}: {row}")
        seen.columns.update(row)
        yield number, {role: row.get(column) for role, column in wanted.items()}
    if not seen.columns.issuperset(wanted.values()):
        raise _BrokenError("no row has a column that is wanted")


def _delimited(
    lines: TextIO, wanted: Mapping[Role, str], delimiter: str, quoting: Literal[0, 3], seen: _Seen
) -> Iterator[Row]:
    previous = csv.field_size_limit(_LARGEST_FIELD)
    try:
        reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
        places: dict[Role, int] = {}
        width = 0
        start = 1
        for fields in reader:
            line, start = start, reader.line_num + 1
            if not fields:
                seen.blank += 1
                continue
            if not width:
                if any(fields.count(column) != 1 for column in wanted.values()):
                    raise _BrokenError("the header lacks a column, or names it twice")
                places, width = {role: fields.index(column) for role, column in wanted.items()}, len(fields)
                continue
            if len(fields) != width:
                raise _BrokenError(f"line {line} has {len(fields)} fields")
            if spans_lines(fields):
                seen.joined, seen.first_joined = seen.joined + 1, seen.first_joined or line
            yield line, {role: fields[place] for role, place in places.items()}
    finally:
        csv.field_size_limit(previous)


def _quoting(path: Path, wanted: Mapping[Role, str], delimiter: str, gzipped: bool) -> Literal[0, 3]:
    """Say whether quotes in a TSV file quote, by the rule of `read_delimited`, in two passes over the file."""
    if delimiter == ",":
        return csv.QUOTE_MINIMAL

    def rows(quoting: Literal[0, 3]) -> int | None:
        with _opened(path, gzipped) as text:
            try:
                return sum(1 for _ in _delimited(text, wanted, delimiter, quoting, _Seen()))
            except (csv.Error, _BrokenError):
                return None

    plain = rows(csv.QUOTE_NONE)
    return csv.QUOTE_NONE if plain is not None and rows(csv.QUOTE_MINIMAL) != plain else csv.QUOTE_MINIMAL


def _begins_array(path: Path, gzipped: bool) -> bool:
    with gzip.open(path, "rb") if gzipped else path.open("rb") as file:
        return bool(file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["))


def _parquet(path: Path, wanted: Mapping[Role, str]) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = [str(name) for name in file.schema_arrow.names]
            if any(names.count(column) != 1 for column in wanted.values()):
                raise _BrokenError("a column is missing, or there twice")
            number = 0
            for batch in file.iter_batches(batch_size=_AT_ONCE, columns=list(dict.fromkeys(wanted.values()))):
                values = {role: batch.column(column).to_pylist() for role, column in wanted.items()}
                for place in range(batch.num_rows):
                    number += 1
                    yield number, {role: values[role][place] for role in wanted}
    except pyarrow.ArrowException as error:
        raise _BrokenError(str(error)) from error
