"""Synthetic questions with answers: ``builtin:questions-en`` (English) and ``builtin:questions-zh`` (Chinese).

SYNTHETIC: a seeded generator fills authored questions and puts greetings around them; each topic has one answer. A
figure measured here compares methods; it says nothing about a real service desk. `HELD_OUT_SHARE` of the rows of
validation and test ask in wordings that training never shows.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from peftlab.data.readers import Role
from peftlab.data.rows import SplitName
from peftlab.data.sources import Source
from peftlab.data.synthetic import built_in_source, built_in_tables, distinct, require_set
from peftlab.recipe.records import Data

Language = Literal["en", "zh"]

SETS: Mapping[str, Language] = {"builtin:questions-en": "en", "builtin:questions-zh": "zh"}
ROWS: Mapping[SplitName, int] = {"train": 960, "validation": 240, "test": 480}
HELD_OUT_SHARE = 0.6
SEED = 20_261
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Question:
    """A question of one split, and the answer of its topic."""

    id: str
    split: SplitName
    text: str
    answer: str


def generate_questions(language: Language, seed: int = SEED) -> list[Question]:
    """Return all questions, the same ones for the same seed, topics in turn; no question stands there twice."""
    book = tomllib.loads((files(__package__) / f"{language}.toml").read_text(encoding="utf-8"))
    drawn = random.Random(f"{language}-{seed}")
    topics: list[Mapping[str, str]] = book["topics"]

    def draw(split: SplitName, number: int) -> tuple[str, str]:
        topic = topics[number % len(topics)]
        return _question(book, topic, split, drawn), topic["answer"]

    return [Question(number, split, *made) for number, split, made in distinct(ROWS, draw)]


def question_source(data: Data) -> Source:
    """Return the built-in set that `data` names as a source; DataError for another name or a column that it lacks."""
    name = data.source or ""
    require_set(name, SETS)
    wanted: dict[Role, str] = {"text": data.text, "pair": data.pair or "pair"}
    wanted |= {"id": data.id} if data.id is not None else {}
    fields: Mapping[str, Callable[[Question], object]] = {
        "id": lambda one: one.id,
        "text": lambda one: one.text,
        "pair": lambda one: one.answer,
    }
    about = "Synthetic: made-up questions of customers with their answers, put together by a seeded generator."
    tables = built_in_tables(name, generate_questions(SETS[name]), fields, wanted)
    return built_in_source(name, tables, language=SETS[name], about=about)


def _question(book: Mapping[str, Any], topic: Mapping[str, str], split: SplitName, drawn: random.Random) -> str:
    held_out = split != "train" and drawn.random() < HELD_OUT_SHARE
    wording = _choice(topic["held_out" if held_out else "asked"], drawn)
    text = _SLOT.sub(lambda slot: _choice(book[slot[1]], drawn), wording)
    space = " " if text.isascii() else ""
    if drawn.random() < 0.6:
        text = _choice(book["openers"], drawn) + space + text
    mark = drawn.choice(("", "?", "??", ".") if space else ("", "？", "？？", "。"))
    text += mark
    if drawn.random() < 0.4:
        text += (space or ("" if mark else "，")) + _choice(book["closers"], drawn)
    return text


def _choice(lines: str, drawn: random.Random) -> str:
    return drawn.choice(lines.strip().splitlines())
