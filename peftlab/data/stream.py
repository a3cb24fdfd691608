"""Rows of a file of any size, one after the other, in constant memory.

`read_table` holds a whole file, to judge and split it; here rows are only answered. A file that cannot be read is given
to `read_table` all the same, which says what is wrong with it and where.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TextIO

from peftlab.data.readers import Role, file_ending, read_table
from peftlab.errors import DataError

Row = tuple[int, dict[Role, object]]
"""The line on which a row starts (Parquet: its number), and its values by role."""

_LARGEST_FIELD = 2**31 - 1
_AT_ONCE = 1024


class _BrokenError(Exception):
    """The file is not what its ending says."""


def stream_rows(path: Path, wanted: Mapping[Role, str]) -> Iterator[Row]:
    """Yield the rows of a CSV, TSV, JSONL, JSON or Parquet file, perhaps gzipped, with the columns `wanted`.

    Raises DataError, with file and line, as `read_table` does. An array in a .json file is held in memory, as it has no
    lines; everything else is not.
    """
    try:
        yield from _rows(path, wanted)
    except (_BrokenError, UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error, csv.Error, OSError) as error:
        read_table(path, wanted)
        raise DataError(f"{path}: cannot be read row by row ({error}); write or copy the file anew") from error


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


def _rows(path: Path, wanted: Mapping[Role, str]) -> Iterator[Row]:
    ending, gzipped = file_ending(path)
    if not path.is_file() or path.stat().st_size == 0:
        raise _BrokenError("it is missing or empty")
    if ending == ".parquet":
        yield from _parquet(path, wanted)
        return
    with _opened(path, gzipped) as text:
        if ending in (".csv", ".tsv"):
            delimiter: Literal[",", "\t"] = "," if ending == ".csv" else "\t"
            yield from _delimited(text, wanted, delimiter, _quoting(path, wanted, delimiter, gzipped))
        elif ending == ".json" and _begins_array(path, gzipped):
            yield from _whole(path, wanted)
        else:
            yield from _json_lines(text, wanted)


@contextmanager
def _opened(path: Path, gzipped: bool) -> Iterator[TextIO]:
    """Open a file as UTF-8; a line ends at a newline alone, so that U+2028 may stand in a JSON string."""
    with gzip.open(path, "rb") if gzipped else path.open("rb") as raw:
        yield io.TextIOWrapper(raw, encoding="utf-8-sig", newline="\n")


def _whole(path: Path, wanted: Mapping[Role, str]) -> Iterator[Row]:
    table = read_table(path, wanted)
    for place, line in enumerate(table.lines):
        yield line, {role: table.columns[role][place] for role in wanted}


def _json_lines(lines: TextIO, wanted: Mapping[Role, str]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _BrokenError(f"line {number} is no JSON") from error
        if not isinstance(row, dict):
            raise _BrokenError(f"line {number} is no object")
        yield number, {role: _whole_text(row.get(column), number) for role, column in wanted.items()}


def _whole_text(value: object, line: int) -> object:
    """Return `value`; half a character, which an escape can make, fits no tokenizer."""
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise _BrokenError(f"line {line} holds half a character")
    return value


def _delimited(lines: TextIO, wanted: Mapping[Role, str], delimiter: str, quoting: Literal[0, 3]) -> Iterator[Row]:
    previous = csv.field_size_limit(_LARGEST_FIELD)
    try:
        reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
        header: list[str] | None = None
        start = 1
        for fields in reader:
            line, start = start, reader.line_num + 1
            if not fields:
                continue
            if header is None:
                header = fields
                if any(header.count(column) != 1 for column in wanted.values()):
                    raise _BrokenError("the header lacks a column, or names it twice")
                continue
            if len(fields) != len(header):
                raise _BrokenError(f"line {line} has {len(fields)} fields")
            yield line, {role: fields[header.index(column)] for role, column in wanted.items()}
    finally:
        csv.field_size_limit(previous)


def _quoting(path: Path, wanted: Mapping[Role, str], delimiter: str, gzipped: bool) -> Literal[0, 3]:
    """Say whether quotes in a TSV file quote, by the rule of `read_delimited`, in two passes over the file."""
    if delimiter == ",":
        return csv.QUOTE_MINIMAL

    def rows(quoting: Literal[0, 3]) -> int | None:
        with _opened(path, gzipped) as text:
            try:
                return sum(1 for _ in _delimited(text, wanted, delimiter, quoting))
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
