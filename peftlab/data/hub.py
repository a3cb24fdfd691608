"""Data sets of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftlab.data.readers import Role, Table, require_columns, table_of_values
from peftlab.data.rows import SplitName
from peftlab.errors import DataError

# Where the hub keeps its own Parquet copy of a set, which is all that is left of sets made by a loading script.
_PARQUET_COPY = "refs/convert/parquet"
_HUB_NAMES: dict[SplitName, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


def hub_tables(
    hub: str, config: str | None, wanted: Mapping[Role, str], *, instead: str
) -> tuple[dict[SplitName, Table], tuple[str, ...]]:
    """Return the splits of a hub set that a run uses, with notes; class numbers become their names.

    `instead` says what else to do where the hub cannot be reached.
    Raises DataError where the set cannot be loaded, or lacks a train split or a column.
    """
    loaded, notes = _load(hub, config, instead)
    tables: dict[SplitName, Table] = {}
    for split, names in _HUB_NAMES.items():
        present = next((name for name in names if name in loaded), None)
        if present is not None:
            tables[split] = _table(loaded[present], present, hub, wanted)
    if "train" not in tables:
        raise DataError(f'data.hub: "{hub}" has no train split; its splits are {", ".join(loaded)}')
    unused = [name for name in loaded if name not in {table.name for table in tables.values()}]
    if unused:
        notes.append(f"{hub}: splits not used: {', '.join(unused)}")
    return tables, tuple(notes)


def _load(hub: str, config: str | None, instead: str) -> tuple[Any, list[str]]:
    import datasets

    try:
        try:
            return datasets.load_dataset(hub, config), []
        except RuntimeError as error:
            if "scripts are no longer supported" not in str(error):
                raise
            loaded = datasets.load_dataset(hub, config, revision=_PARQUET_COPY)
            return loaded, [f"{hub} has a loading script, so the hub's Parquet copy ({_PARQUET_COPY}) was used"]
    # The library raises errors of many kinds and packages: for us each means that there are no rows.
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")[:300]
        raise DataError(
            f'data.hub: "{hub}" could not be loaded from the hub ({type(error).__name__}: {first}); check the id, '
            f"data.hub_config and the network, or {instead}"
        ) from error


def _table(rows: Any, name: str, hub: str, wanted: Mapping[Role, str]) -> Table:
    require_columns(f"{hub}/{name}", list(rows.column_names), wanted)
    return table_of_values(
        name, f"hub:{hub}", {role: _values(rows[column][:], rows.features[column]) for role, column in wanted.items()}
    )


def _values(values: list[Any], feature: Any) -> list[Any]:
    """Return `values` with class numbers, alone or in lists, replaced by names; -1, the hub's mark of none, by None."""
    import datasets

    inner = getattr(feature, "feature", None)  # lists have one
    classes = feature if inner is None else inner
    if not isinstance(classes, datasets.ClassLabel):
        return values
    names = dict(enumerate(classes.names))
    if inner is None:
        return [names.get(value) for value in values]
    return [None if value is None else [names.get(number) for number in value] for value in values]
