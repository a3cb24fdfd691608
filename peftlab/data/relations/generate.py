"""Synthetic sentences with two entities: ``builtin:relations-en``, columns `text`, `label`, `first` and `second`.

`first` and `second` are spans, [start, end] in characters, for `data.entities`. SYNTHETIC: a seeded generator puts
authored names into authored sentences; `HELD_OUT_SHARE` of the rows of validation and test have wordings that training
never shows. A figure measured here compares methods; it says nothing about real texts.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from peftlab.data.readers import Role, Table, require_columns, table_of_values
from peftlab.data.rows import SplitName

NAME = "builtin:relations-en"
ROWS: Mapping[SplitName, int] = {"train": 900, "validation": 200, "test": 300}
HELD_OUT_SHARE = 0.4
SEED = 20_264
DESCRIPTION = "Synthetic: made-up English sentences with two entities and how they relate, by a seeded generator."


@dataclass(frozen=True)
class Related:
    """A sentence of one split, the spans of its two entities, and how these relate."""

    id: str
    split: SplitName
    text: str
    first: tuple[int, int]
    second: tuple[int, int]
    label: str


def generate_relations(seed: int = SEED) -> list[Related]:
    """Return all sentences, the same ones for the same seed, relations in turn; no text stands there twice."""
    book = tomllib.loads((files(__package__) / "en.toml").read_text(encoding="utf-8"))
    drawn = random.Random(f"en-{seed}")
    seen: set[str] = set()
    made: list[Related] = []
    for split, rows in ROWS.items():
        number = 0
        while number < rows:
            relation = drawn.choice(book["relations"])
            held_out = split != "train" and drawn.random() < HELD_OUT_SHARE
            text, first, second = _sentence(book, relation, drawn, "held_out" if held_out else "asked")
            if text not in seen:
                seen.add(text)
                number += 1
                made.append(Related(f"{split}-{number}", split, text, first, second, relation["label"]))
    return made


def relation_tables(wanted: Mapping[Role, str]) -> dict[SplitName, Table]:
    """Return the rows of the three splits in the columns `wanted`; DataError for a column that the set lacks."""
    require_columns(NAME, ("id", "text", "label", "first", "second"), wanted)
    found = generate_relations()
    tables: dict[SplitName, Table] = {}
    for split in ROWS:
        rows = [one for one in found if one.split == split]
        roles: dict[Role, str] = {**wanted, "id": wanted.get("id", "id")}
        columns: dict[Role, Sequence[object]] = {
            role: [getattr(one, column) for one in rows] for role, column in roles.items()
        }
        tables[split] = table_of_values(split, NAME, columns)
    return tables


def _sentence(
    book: Mapping[str, Any], relation: Mapping[str, Any], drawn: random.Random, wordings: str
) -> tuple[str, tuple[int, int], tuple[int, int]]:
    """Return a sentence and where its two entities stand in it."""
    wording = drawn.choice(relation[wordings].strip().splitlines())
    names = [drawn.choice(book[kind].strip().splitlines()) for kind in relation["kinds"]]
    text = wording.replace("{day}", drawn.choice(book["day"].strip().splitlines()))
    spans = {}
    for slot in sorted(("{first}", "{second}"), key=text.index):
        start = text.index(slot)
        name = names[0 if slot == "{first}" else 1]
        text = text.replace(slot, name)
        spans[slot] = (start, start + len(name))
    return text[0].upper() + text[1:], spans["{first}"], spans["{second}"]
