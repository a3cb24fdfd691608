"""Where the rows of a recipe come from: its files, a named set on this machine, the hub, or a built-in set."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftlab.data.readers import Role, Table, read_table
from peftlab.data.rows import SplitName
from peftlab.errors import DataError
from peftlab.recipe.records import Data

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
FOLDER_VARIABLE = "PEFTLAB_DATA"
BUILTIN = {"builtin:tickets-zh": "zh", "builtin:tickets-en": "en"}


@dataclass(frozen=True)
class Source:
    """The tables that were found (`train` always among them), and what the run's record says of them.

    `description`: `requested`, `used` (files, local, hub or builtin) and `files`: split, path, rows and SHA-256 of
    each; built-in sets add `synthetic`, `language`, `about` and `ceiling` (expected accuracy at most).
    """

    tables: Mapping[SplitName, Table]
    description: Mapping[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """How the rows of a task are read.

    `wanted`: column by role. `table(path, wanted)` reads a file, `builtin(name, wanted)` a built-in set by its whole
    name. `endings`: of the files in the folder of a named set, the first one found counting.
    """

    wanted: Mapping[Role, str]
    table: Callable[[Path, Mapping[Role, str]], Table]
    builtin: Callable[[str, Mapping[Role, str]], Source]
    endings: tuple[str, ...] = (".jsonl", ".jsonl.gz")


def find_source(data: Data, *, recipe_path: Path, reading: Reading | None = None) -> Source:
    """Read the tables that `data` asks for; DataError where nothing is found, says where it was looked for.

    Files win over `source` and `hub`: with any file given, `train` must be one, and splits without a file are split
    off it. Otherwise a name is looked for in ``$PEFTLAB_DATA/NAME`` and then, if `hub` is set, on the hub. `reading`
    is that of texts and labels where it is None.
    """
    try:
        return _find(data, recipe_path, reading or Reading(_wanted(data), read_table, _from_builtin))
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be looked at ({error.strerror}); check its permissions") from error


def _find(data: Data, recipe_path: Path, reading: Reading) -> Source:
    files: dict[SplitName, str] = {
        split: name for split, name in zip(SPLITS, (data.train, data.validation, data.test), strict=True) if name
    }
    if files:
        return _from_files(data, files, reading, recipe_path)
    if data.source is not None and data.source.startswith("builtin:"):
        return reading.builtin(data.source, reading.wanted)
    if data.source is not None:
        local = _from_folder(data.source, reading)
        if local is not None:
            return local
    if data.hub is not None:
        from peftlab.data.hub import hub_tables

        tables, notes = hub_tables(data.hub, data.hub_config, reading.wanted, instead=_local_place(data.source))
        requested = data.source or data.hub
        described = describe(requested, "hub", tables) | {"hub": data.hub, "config": data.hub_config}
        return Source(tables, described, (f"{requested}: read from the hub as {data.hub}", *notes))
    if data.source is None:
        raise DataError("data: names no rows; expected train (a file), source (a named or built-in set) or hub (an id)")
    raise DataError(_not_found(data.source))


def find_file(name: str, *, recipe_path: Path, key: str) -> Path:
    """Return the path of the file that recipe key `key` names: beside the recipe, else in the current directory.

    Raises DataError naming both places and, where there is one, a file there of a similar name.
    """
    given = Path(name).expanduser()
    places = list(dict.fromkeys((folder / given).resolve() for folder in (recipe_path.parent, Path.cwd())))
    for place in places:
        if place.exists():
            return place
    near = [
        str(place.parent / match)
        for place in places
        if place.parent.is_dir()
        for match in difflib.get_close_matches(place.name, [entry.name for entry in place.parent.iterdir()], n=1)
    ]
    looked = " and as ".join(str(place) for place in places)
    hint = f"; did you mean {near[0]}?" if near else "; correct the name, or copy the file there"
    raise DataError(f'data.{key}: no file "{name}"; looked for as {looked}{hint}')


def _wanted(data: Data) -> dict[Role, str]:
    columns: dict[Role, str] = {"text": data.text, "label": data.label}
    if data.pair is not None:
        columns["pair"] = data.pair
    if data.id is not None:
        columns["id"] = data.id
    if data.entities is not None:
        columns["first"], columns["second"] = data.entities
    return columns


def _from_files(data: Data, files: Mapping[SplitName, str], reading: Reading, recipe_path: Path) -> Source:
    if "train" not in files:
        given = " and ".join(f"data.{split}" for split in files)
        raise DataError(f"data.train: is not given, but {given} is; expected a file of training rows beside it")
    tables = {
        split: reading.table(find_file(name, recipe_path=recipe_path, key=split), reading.wanted)
        for split, name in files.items()
    }
    ignored = [f'data.{key} = "{value}"' for key, value in (("source", data.source), ("hub", data.hub)) if value]
    notes = [f"{' and '.join(ignored)} was not used, as files are given"] if ignored else []
    notes += [note for table in tables.values() for note in table.notes]
    return Source(tables, describe("files", "files", tables), tuple(notes))


def _from_folder(name: str, reading: Reading) -> Source | None:
    root = os.environ.get(FOLDER_VARIABLE)
    folder = Path(root).expanduser() / name if root else None
    if folder is None or not folder.is_dir():
        return None
    notes = [f"{name}: read from the folder {folder} (${FOLDER_VARIABLE})"]
    tables: dict[SplitName, Table] = {}
    for split in SPLITS:
        found = [path for path in (folder / f"{split}{ending}" for ending in reading.endings) if path.exists()]
        if len(found) > 1:
            notes.append(f"{found[1].name} was not read, as {found[0].name} lies beside it")
        if found:
            tables[split] = reading.table(found[0], reading.wanted)
            notes.extend(tables[split].notes)
    if "train" not in tables:
        kinds = " or ".join(f"train{ending}" for ending in reading.endings)
        raise DataError(f'data.source: the folder {folder} of "{name}" holds no {kinds}; add it')
    return Source(tables, describe(name, "local", tables), tuple(notes))


def _local_place(name: str | None) -> str:
    folder = f"${FOLDER_VARIABLE}/{name or 'NAME'}/"
    files = f"put train.jsonl, validation.jsonl and test.jsonl into {folder}"
    return files if name else f'{files} and set data.source = "NAME"'


def _not_found(name: str) -> str:
    root = os.environ.get(FOLDER_VARIABLE)
    if not root:
        return (
            f'data.source: no set "{name}": {FOLDER_VARIABLE} is not set and data.hub names no hub set; '
            f"set {FOLDER_VARIABLE} to the folder that holds {name}/train.jsonl, or set data.hub"
        )
    folder = Path(root).expanduser()
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    near = difflib.get_close_matches(name, names, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"point {FOLDER_VARIABLE} to the folder that holds it"
    return (
        f'data.source: no set "{name}": there is no folder {folder / name} ({FOLDER_VARIABLE} is {root}) and data.hub '
        f"names no hub set; {hint}"
    )


def _from_builtin(name: str, wanted: Mapping[Role, str]) -> Source:
    from peftlab.data.relations import generate as relations
    from peftlab.data.synthetic import built_in_tables

    if name == relations.NAME:
        return relations.relation_source(wanted)
    if name not in BUILTIN:
        known = ", ".join((*BUILTIN, relations.NAME))
        raise DataError(f'data.source: no built-in set "{name}"; the built-in sets are {known}')
    from peftlab.data.tickets import generate

    language: Any = BUILTIN[name]
    # The true label stays behind: training must not see it.
    fields: Mapping[str, Callable[[generate.Ticket], object]] = {
        "id": lambda one: one.id,
        "text": lambda one: one.text,
        "label": lambda one: one.label,
    }
    tables = built_in_tables(name, generate.generate_tickets(language), fields, wanted)
    ceiling = generate.ceiling(language)
    about = {"synthetic": True, "language": language, "about": generate.DESCRIPTION[language], "ceiling": ceiling}
    note = f"{name} is a synthetic set made by peftlab; no classifier can expect more than {ceiling:.1%} test accuracy"
    return Source(tables, describe(name, "builtin", tables) | about, (note,))


def describe(requested: str, used: str, tables: Mapping[SplitName, Table]) -> dict[str, Any]:
    """Return what a run's record says of its source: as asked, as used, and each file."""
    files = [
        {"split": split, "path": table.location, "rows": len(table), "sha256": table.sha256}
        for split, table in tables.items()
    ]
    return {"requested": requested, "used": used, "files": files}
