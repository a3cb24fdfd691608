"""What the built-in sets share: distinct rows, drawn split by split, and the source that is made of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from peftlab.data.readers import Role, Table, require_columns, table_of_values
from peftlab.data.rows import SplitName
from peftlab.data.sources import Source, describe
from peftlab.errors import DataError

_Made = TypeVar("_Made", bound=tuple[Any, ...])


class _Row(Protocol):
    @property
    def split(self) -> SplitName: ...


_AnyRow = TypeVar("_AnyRow", bound=_Row)


def distinct(
    rows: Mapping[SplitName, int], draw: Callable[[SplitName, int], _Made]
) -> Iterator[tuple[str, SplitName, _Made]]:
    """Yield id, split and content of as many rows of each split as `rows` says, no two with the same first value.

    `draw`: makes the content of one row, given its split and how many rows the split has so far.
    """
    seen: set[Hashable] = set()
    for split, wanted in rows.items():
        number = 0
        while number < wanted:
            made = draw(split, number)
            if made[0] in seen:
                continue
            seen.add(made[0])
            number += 1
            yield f"{split}-{number}", split, made


def built_in_tables(
    name: str,
    rows: Sequence[_AnyRow],
    fields: Mapping[str, Callable[[_AnyRow], object]],
    wanted: Mapping[Role, str],
) -> dict[SplitName, Table]:
    """Return the tables of the built-in set `name` with the columns `wanted`, and with ids.

    `fields`: every column of the set, taken from a row. Raises DataError for a column that the set lacks.
    """
    require_columns(name, tuple(fields), wanted)
    roles: dict[Role, str] = {**wanted, "id": wanted.get("id", "id")}
    tables: dict[SplitName, Table] = {}
    for split in dict.fromkeys(row.split for row in rows):
        own = [row for row in rows if row.split == split]
        tables[split] = table_of_values(
            split, name, {role: [fields[column](row) for row in own] for role, column in roles.items()}
        )
    return tables


def built_in_source(name: str, tables: Mapping[SplitName, Table], *, language: str, about: str) -> Source:
    """Return `tables` as the source of this name, described as synthetic."""
    described = describe(name, "builtin", tables) | {"synthetic": True, "language": language, "about": about}
    return Source(tables, described, (f"{name} is a synthetic set made by peftlab",))


def require_set(name: str, sets: Collection[str]) -> None:
    """Raise DataError where a task has no built-in set `name`."""
    if name not in sets:
        raise DataError(f'data.source: no built-in set "{name}" of this task; its sets are {", ".join(sets)}')
