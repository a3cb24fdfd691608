"""Column files of tagged tokens, as CoNLL-2003 has them: a token a line, an empty line between sentences."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from peftlab.data.decoding import decode, read_bytes, unpack
from peftlab.data.readers import Role, Table, bad_rows, read_table
from peftlab.errors import DataError

TABLES = (".jsonl", ".ndjson", ".json", ".parquet")
"""Endings of files with a sentence a row; every other file is read in columns."""
MOST_COLUMNS = 4


def read_tagged(path: Path, wanted: Mapping[Role, str]) -> Table:
    """Read sentences: `text` is the list of tokens, `label` that of the tags; DataError as for `read_table`."""
    if path.name.lower().removesuffix(".gz").endswith(TABLES):
        return read_table(path, wanted)
    return read_conll(path)


def read_conll(path: Path) -> Table:
    """Read a file of 2 to 4 columns: the first holds tokens, the last tags, between them stands what is not read.

    Columns are separated by tabs, or else by spaces. Lines that begin with `-DOCSTART-` end a sentence and are left
    out. A row's line is that of its first token. Raises DataError, with file and line, for any other number of columns.
    """
    content = read_bytes(path)
    text = decode(path, unpack(path, content) if path.name.lower().endswith(".gz") else content)
    lines: list[int] = []
    tokens: list[list[str]] = []
    tags: list[list[str]] = []
    bad: list[tuple[int, str]] = []
    documents, columns, open_row = 0, 0, False
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.rstrip("\r")
        if not line.strip() or line.startswith("-DOCSTART-"):
            documents += bool(line.strip())
            open_row = False
            continue
        cells = line.strip("\n").split("\t") if "\t" in line else re.split(" +", line.strip(" "))
        columns = columns or len(cells)
        if (reason := _wrong(cells, columns)) is not None:
            bad.append((number, reason))
            continue
        if not open_row:
            lines.append(number)
            tokens.append([])
            tags.append([])
            open_row = True
        tokens[-1].append(cells[0].strip())
        tags[-1].append(cells[-1].strip())
    if bad:
        raise bad_rows(path, bad)
    if not lines:
        raise DataError(f"{path}: has no tokens; expected a token and its tag a line, an empty line between sentences")
    notes = [f"{path.name}: {columns} columns; the first holds tokens, the last tags"]
    notes += [f"{path.name}: lines -DOCSTART- left out: {documents:,}"] if documents else []
    digest = hashlib.sha256(content).hexdigest()
    return Table(path.name, str(path.resolve()), digest, lines, {"text": tokens, "label": tags}, tuple(notes))


def _wrong(cells: list[str], columns: int) -> str | None:
    if not 2 <= len(cells) <= MOST_COLUMNS:
        found = f"{len(cells)} column{'s' if len(cells) > 1 else ''}"
        return f"found {found}, expected 2 to {MOST_COLUMNS}: a token, its tag, and at most two between them"
    if len(cells) != columns:
        return f"found {len(cells)} columns, where the lines before have {columns}"
    return None if cells[0].strip() else "the token is empty"
