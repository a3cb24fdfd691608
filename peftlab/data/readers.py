"""Data files read into columns, every row with the line on which it starts."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from peftlab.data.decoding import decode, read_bytes, unpack
from peftlab.errors import DataError

Role = Literal["text", "pair", "label", "id", "first", "second"]
_KEYS = {"first": "entities", "second": "entities"}  # roles whose key in `[data]` has another name

LISTED = 10  # bad rows that an error names before it only counts
ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


@dataclass(frozen=True)
class Table:
    """The wanted columns of one file, hub split or built-in split, by the role that the recipe gives them.

    `name` and `lines` name a row for people: ``<name>:<line>``, 1-based (Parquet, hub and built-in sets: the row
    number). `sha256` is that of the file as it lies on disk, or of the columns where there is no file.
    """

    name: str
    location: str
    sha256: str
    lines: Sequence[int]
    columns: Mapping[Role, Sequence[object]]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.lines)


@dataclass(frozen=True)
class Columns:
    """What a reader returns: lines, values by role, and what people should know of the reading."""

    lines: Sequence[int]
    values: Mapping[Role, Sequence[object]]
    notes: tuple[str, ...] = ()


def read_table(path: Path, wanted: Mapping[Role, str]) -> Table:
    """Read the columns `wanted` (role to column name) of a CSV, TSV, JSONL, JSON or Parquet file, perhaps gzipped.

    The values are kept on disk (`kept`), so that a table of any size takes little memory. Raises DataError, with file
    and line, for a file that cannot be read as its ending says, that lacks a column, or whose lines are malformed (the
    first ten are named and all are counted). Values are not judged here.
    """
    from peftlab.data.stream import kept_columns

    columns = kept_columns(path, wanted)
    if columns is None:
        return read_whole(path, wanted)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return _table(path, digest, columns)


def read_whole(path: Path, wanted: Mapping[Role, str]) -> Table:
    """Read as `read_table`, the whole file in memory at once: only so can everything that is wrong with it be named."""
    from peftlab.data.delimited import read_delimited
    from peftlab.data.json_rows import read_json
    from peftlab.data.parquet import read_parquet

    ending, gzipped = file_ending(path)
    content = read_bytes(path)
    digest = hashlib.sha256(content).hexdigest()
    if ending == ".parquet":
        columns = read_parquet(path, content, wanted)
    else:
        text = decode(path, unpack(path, content) if gzipped else content)
        if ending in (".csv", ".tsv"):
            columns = read_delimited(path, text, wanted, delimiter="," if ending == ".csv" else "\t")
        else:
            columns = read_json(path, text, wanted, array=ending == ".json" and text.lstrip().startswith("["))
    if not columns.lines:
        raise DataError(f"{path}: has no rows (a header at most); expected at least one row of data")
    return _table(path, digest, columns)


def _table(path: Path, digest: str, columns: Columns) -> Table:
    notes = tuple(f"{path.name}: {note}" for note in columns.notes)
    return Table(path.name, str(path.resolve()), digest, columns.lines, columns.values, notes)


def blank_note(count: int) -> str:
    """Return what people should know of `count` blank lines."""
    return f"{count:,} blank {'line was' if count == 1 else 'lines were'} passed over"


def table_of_values(split: str, location: str, columns: Mapping[Role, Sequence[object]]) -> Table:
    """Return a table of rows that come from no file; its SHA-256 is over the columns, as sorted JSON."""
    content = json.dumps(columns, ensure_ascii=False, sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
    return Table(split, f"{location}/{split}", digest, range(1, len(columns["text"]) + 1), columns)


def file_ending(path: Path) -> tuple[str, bool]:
    """Return the ending that says how `path` is read, and whether it is gzipped; DataError for any other ending."""
    name = path.name.lower()
    gzipped = name.endswith(".gz")
    ending = Path(name.removesuffix(".gz")).suffix
    if path.is_dir():
        raise DataError(f"{path}: is a folder; expected a data file, so name the file in it")
    if ending not in ENDINGS:
        raise DataError(f"{path}: cannot tell its format; expected a name that ends in {', '.join(ENDINGS)}, or +.gz")
    if ending == ".parquet" and gzipped:
        raise DataError(f"{path}: gzipped Parquet is not read, as Parquet is compressed itself; unpack it (gunzip)")
    return ending, gzipped


def require_columns(place: str, present: Sequence[str], wanted: Mapping[Role, str]) -> None:
    """Raise DataError naming every column of `wanted` that is not among `present`."""
    missing = {role: column for role, column in wanted.items() if column not in present}
    if missing:
        named = []
        for role, column in missing.items():
            near = difflib.get_close_matches(column, present, n=1, cutoff=0.6)
            named.append(
                f'no column "{column}" (data.{_KEYS.get(role, role)}'
                + (f'; did you mean "{near[0]}"?)' if near else ")")
            )
        columns = ", ".join(f'"{name}"' for name in present)
        keys = " and ".join(dict.fromkeys(f"data.{_KEYS.get(role, role)}" for role in missing))
        raise DataError(f"{place}: {', '.join(named)}; the columns are {columns}, so set {keys} to one of them")


def bad_rows(path: Path, reasons: Sequence[tuple[int, str]]) -> DataError:
    """Return the error for malformed rows, given as (line, reason): all counted, the first ten named."""
    if len(reasons) == 1:
        return DataError(f"{path}:{reasons[0][0]}: {reasons[0][1]}")
    listed = "".join(f"\n  {path.name}:{line}: {reason}" for line, reason in reasons[:LISTED])
    which = f"the first {LISTED} are" if len(reasons) > LISTED else "they are"
    return DataError(f"{path}: {len(reasons):,} rows cannot be read; {which}:{listed}")
