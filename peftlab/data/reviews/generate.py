"""Synthetic reviews with a number of stars: ``builtin:reviews-en``, columns `text` and `value` from 1 to 5.

SYNTHETIC: a seeded generator puts one to three authored remarks together; the value is the mean of what they are worth.
`HELD_OUT_SHARE` of the rows of validation and test hold a remark that training never shows. A figure measured here
compares methods; it says nothing about real reviews.
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
from peftlab.data.sources import Source, describe
from peftlab.errors import DataError

SETS = ("builtin:reviews-en",)
ROWS: Mapping[SplitName, int] = {"train": 900, "validation": 200, "test": 300}
HELD_OUT_SHARE = 0.5
SEED = 20_263


@dataclass(frozen=True)
class Review:
    """A review of one split with its mean number of stars."""

    id: str
    split: SplitName
    text: str
    value: float


def generate_reviews(seed: int = SEED) -> list[Review]:
    """Return all reviews, the same ones for the same seed; no text stands there twice."""
    book = tomllib.loads((files(__package__) / "en.toml").read_text(encoding="utf-8"))
    drawn = random.Random(f"en-{seed}")
    seen: set[str] = set()
    made: list[Review] = []
    for split, rows in ROWS.items():
        number = 0
        while number < rows:
            text, value = _review(book, drawn, held_out=split != "train" and drawn.random() < HELD_OUT_SHARE)
            if text not in seen:
                seen.add(text)
                number += 1
                made.append(Review(f"{split}-{number}", split, text, value))
    return made


def review_source(name: str, wanted: Mapping[Role, str]) -> Source:
    """Return the built-in set of this whole name; DataError for another name or a column that it lacks."""
    if name not in SETS:
        raise DataError(f'data.source: no built-in set "{name}" of this task; its sets are {", ".join(SETS)}')
    require_columns(name, ("id", "text", "value"), wanted)
    reviews = generate_reviews()
    tables: dict[SplitName, Table] = {}
    for split in ROWS:
        rows = [one for one in reviews if one.split == split]
        fields: dict[str, Sequence[object]] = {
            "id": [one.id for one in rows],
            "text": [one.text for one in rows],
            "value": [one.value for one in rows],
        }
        roles: dict[Role, str] = {**wanted, "id": wanted.get("id", "id")}
        tables[split] = table_of_values(split, name, {role: fields[column] for role, column in roles.items()})
    about = {
        "synthetic": True,
        "language": "en",
        "about": "Synthetic: made-up reviews with a number of stars, put together by a seeded generator.",
    }
    return Source(tables, describe(name, "builtin", tables) | about, (f"{name} is a synthetic set made by peftlab",))


def _review(book: Mapping[str, Any], drawn: random.Random, *, held_out: bool) -> tuple[str, float]:
    """Return the text of one review and the mean of what its remarks are worth."""
    remarks = drawn.sample(book["asked"].strip().splitlines(), drawn.randint(1, 3))
    if held_out:
        remarks[0] = drawn.choice(book["held_out"].strip().splitlines())
    stars = [int(remark[0]) for remark in remarks]
    sentences = [remark.partition("|")[2].strip() for remark in remarks]
    item = drawn.choice(book["item"].strip().splitlines())
    text = " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)
    if drawn.random() < 0.5:
        text = f"{drawn.choice(book['openers'].strip().splitlines())} {text}"
    return text.replace("{item}", item), sum(stars) / len(stars)
