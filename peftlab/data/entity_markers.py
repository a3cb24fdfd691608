"""Two entities of a text, given as spans of characters, marked by signs, so that a classifier tells how they relate.

`Alice works for Acme.` becomes `@ Alice @ works for # Acme # .`, the "entity marker (punct)" of Zhou and Chen 2021
(arXiv 2102.01373, table 1): signs that the vocabulary has, so that a frozen table of embeddings needs no new rows. The
first column's span gets @ and the second one's #, whatever their order in the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from peftlab.data.readers import LISTED, Role, Table
from peftlab.data.rows import SplitName
from peftlab.data.sources import Source
from peftlab.errors import DataError, UserError

FIRST, SECOND = "@", "#"
_MARKED = (re.compile(r"@ .+? @", re.DOTALL), re.compile(r"# .+? #", re.DOTALL))
_WRITTEN = re.compile(r"\s*(\d+)\s*[:,-]\s*(\d+)\s*")


def entity_roles(columns: tuple[str, str]) -> dict[Role, str]:
    """Return the two columns of spans by role."""
    return {"first": columns[0], "second": columns[1]}


def mark(text: str, first: object, second: object) -> str:
    """Return `text` with both spans marked; ValueError, whose text is the reason, where they cannot be.

    A span is `[start, end]` in characters, the end excluded, or such a pair in a string (`3:8`).
    """
    one, other = _span(text, first, "first"), _span(text, second, "second")
    if one[0] < other[1] and other[0] < one[1]:
        raise ValueError(f"the spans {list(one)} and {list(other)} overlap")
    marked = text
    for (start, end), sign in sorted(((one, FIRST), (other, SECOND)), reverse=True):
        marked = f"{marked[:start]} {sign} {marked[start:end]} {sign} {marked[end:]}"
    return " ".join(marked.split())


def mark_tables(source: Source) -> Source:
    """Return `source` with the texts of all rows marked; one DataError that names the rows that cannot be."""
    bad: list[str] = []
    tables: dict[SplitName, Table] = {split: _marked(table, bad) for split, table in source.tables.items()}
    if bad:
        advice = "correct the rows, or data.entities"
        if len(bad) == 1:
            raise DataError(f"data: {bad[0]}; {advice}")
        listed = "".join(f"\n  {line}" for line in bad[:LISTED])
        which = f"the first {LISTED} are" if len(bad) > LISTED else "they are"
        raise DataError(f"data: entities of {len(bad):,} rows cannot be marked; {advice}; {which}:{listed}")
    note = (
        f"two entities of each text are marked, the first as {FIRST} ... {FIRST}, the second as {SECOND} ... {SECOND}"
    )
    return replace(source, tables=tables, notes=(*source.notes, note))


def mark_row(place: str, values: Mapping[Role, object], text: str) -> str:
    """Return the text of one row of a file marked; UserError with its `place` where it cannot be."""
    try:
        return mark(text, values["first"], values["second"])
    except ValueError as error:
        raise UserError(f"{place}: {error}") from error


def refuse_unmarked(texts: Sequence[str]) -> None:
    """Raise UserError where one of `texts` has not both entities marked: the model was trained on nothing else."""
    for text in texts:
        if not all(pattern.search(text) for pattern in _MARKED):
            raise UserError(
                "this run tells how two marked entities relate; mark them, as in '@ Alice @ works for # Acme #', or "
                f"give a file with the columns of data.entities; found {text[:80]!r}"
            )


def _marked(table: Table, bad: list[str]) -> Table:
    columns = table.columns
    texts: list[object] = []
    rows = zip(table.lines, columns["text"], columns["first"], columns["second"], strict=True)
    for line, text, first, second in rows:
        if isinstance(text, str) and text.strip():
            try:
                texts.append(mark(text, first, second))
            except ValueError as error:
                bad.append(f"{table.name}:{line}: {error}")
        else:
            texts.append(text)  # which the checks of texts name
    kept = {role: values for role, values in columns.items() if role not in ("first", "second")}
    return replace(table, columns={**kept, "text": texts})


def _span(text: str, raw: object, which: str) -> tuple[int, int]:
    if isinstance(raw, str):
        written = _WRITTEN.fullmatch(raw)
        raw = [int(written[1]), int(written[2])] if written else _listed(raw)
    if not isinstance(raw, list | tuple) or len(raw) != 2 or not all(type(end) is int for end in raw):
        found = "absent" if raw is None else repr(raw)
        raise ValueError(f"the {which} span is {found}; expected [start, end] in characters of the text")
    start, end = raw
    if not 0 <= start < end <= len(text):
        raise ValueError(f"the {which} span [{start}, {end}] lies outside the text of {len(text)} characters")
    if not text[start:end].strip():
        raise ValueError(f"the {which} span [{start}, {end}] holds white space only")
    return start, end


def _listed(raw: str) -> object:
    try:
        return json.loads(raw)
    except ValueError:
        return raw
