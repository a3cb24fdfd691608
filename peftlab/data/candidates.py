"""Files of candidates: texts that queries are ranked against, one a line of a text file or one a row of a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from peftlab.data.examples import text_key
from peftlab.data.readers import LISTED, Role, read_table
from peftlab.data.stream import stream_lines
from peftlab.errors import DataError


@dataclass(frozen=True)
class Candidate:
    """One candidate and the line on which it stands; texts of one `key` count as the same."""

    line: int
    text: str
    key: str


def read_candidates(path: Path, column: tuple[Role, str]) -> list[Candidate]:
    """Return the candidates in `path`: the lines of a .txt file, else the values of a column, in file order.

    `column`: role and name of the column of a table. Raises DataError, naming the rows, where one is empty or stands
    twice, and where there are fewer than two.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; expected one of candidates, a text a line or row")
    found = list(_texts(path, column))
    empty = [f"{path.name}:{line}" for line, text in found if not isinstance(text, str) or not text.strip()]
    if empty:
        raise DataError(f"{path}: candidates without a text: {_some(empty)}; fill in or remove these rows")
    rows = [Candidate(line, text, text_key(text)) for line, text in found if isinstance(text, str)]
    first: dict[str, int] = {}
    twice = [
        f"{path.name}:{row.line} = {path.name}:{first[row.key]}"
        for row in rows
        if first.setdefault(row.key, row.line) != row.line
    ]
    if twice:
        raise DataError(f"{path}: candidates that stand twice: {_some(twice)}; keep one row of each")
    if len(rows) < 2:
        raise DataError(f"{path}: holds {len(rows)} candidate; expected at least two, as one is always ranked first")
    return rows


def _texts(path: Path, column: tuple[Role, str]) -> Iterator[tuple[int, object]]:
    if path.suffix.lower() in {".txt", ""}:
        yield from stream_lines(str(path))
        return
    role, name = column
    table = read_table(path, {role: name})
    yield from zip(table.lines, table.columns[role], strict=True)


def _some(places: Sequence[str]) -> str:
    more = f" and {len(places) - LISTED:,} more" if len(places) > LISTED else ""
    return ", ".join(places[:LISTED]) + more
