"""Synthetic reviews with a number of stars: ``builtin:reviews-en``, columns `text` and `value` from 1 to 5.

SYNTHETIC: a seeded generator puts one to three authored remarks together; the value is the mean of what they are worth.
`HELD_OUT_SHARE` of the rows of validation and test hold a remark that training never shows. A figure measured here
compares methods; it says nothing about real reviews.
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
from peftlab.data.synthetic import built_in_source, built_in_tables, distinct, require_set

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

    def draw(split: SplitName, _: int) -> tuple[str, float]:
        return _review(book, drawn, held_out=split != "train" and drawn.random() < HELD_OUT_SHARE)

    return [Review(number, split, *made) for number, split, made in distinct(ROWS, draw)]


def review_source(name: str, wanted: Mapping[Role, str]) -> Source:
    """Return the built-in set of this whole name; DataError for another name or a column that it lacks."""
    require_set(name, SETS)
    fields: Mapping[str, Callable[[Review], object]] = {
        "id": lambda one: one.id,
        "text": lambda one: one.text,
        "value": lambda one: one.value,
    }
    about = "Synthetic: made-up reviews with a number of stars, put together by a seeded generator."
    return built_in_source(name, built_in_tables(name, generate_reviews(), fields, wanted), language="en", about=about)


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
