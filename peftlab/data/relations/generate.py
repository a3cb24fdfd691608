"""Synthetic sentences with two entities: ``builtin:relations-en``, columns `text`, `label`, `first` and `second`.

`first` and `second` are spans, [start, end] in characters, for `data.entities`. SYNTHETIC: a seeded generator puts
authored names into authored sentences; `HELD_OUT_SHARE` of the rows of validation and test have wordings that training
never shows. A figure measured here compares methods; it says nothing about real texts.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from peftlab.data.readers import Role
from peftlab.data.rows import SplitName
from peftlab.data.sources import Source
from peftlab.data.synthetic import built_in_source, built_in_tables, distinct

NAME = "builtin:relations-en"
ROWS: Mapping[SplitName, int] = {"train": 900, "validation": 200, "test": 300}
HELD_OUT_SHARE = 0.4
SEED = 20_264


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

    def draw(split: SplitName, _: int) -> tuple[str, tuple[int, int], tuple[int, int], str]:
        relation = drawn.choice(book["relations"])
        held_out = split != "train" and drawn.random() < HELD_OUT_SHARE
        return *_sentence(book, relation, drawn, "held_out" if held_out else "asked"), relation["label"]

    return [Related(number, split, *made) for number, split, made in distinct(ROWS, draw)]


def relation_source(wanted: Mapping[Role, str]) -> Source:
    """Return the set as a source with the columns `wanted`; DataError for a column that the set lacks."""
    fields: Mapping[str, Callable[[Related], object]] = {
        "id": lambda one: one.id,
        "text": lambda one: one.text,
        "label": lambda one: one.label,
        "first": lambda one: one.first,
        "second": lambda one: one.second,
    }
    about = "Synthetic: made-up English sentences with two entities and how they relate, by a seeded generator."
    return built_in_source(
        NAME, built_in_tables(NAME, generate_relations(), fields, wanted), language="en", about=about
    )


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
