"""Synthetic questions with answers: ``builtin:questions-en`` (English) and ``builtin:questions-zh`` (Chinese).

SYNTHETIC: a seeded generator fills authored questions and puts greetings around them; each topic has one answer. A
figure measured here compares methods; it says nothing about a real service desk. `HELD_OUT_SHARE` of the rows of
validation and test ask in wordings that training never shows.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from peftlab.data.readers import Role, Table, require_columns, table_of_values
from peftlab.data.rows import SplitName
from peftlab.data.sources import Source
from peftlab.errors import DataError
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
    seen: set[str] = set()
    made: list[Question] = []
    for split, rows in ROWS.items():
        for number in range(rows):
            topic = topics[number % len(topics)]
            text = _question(book, topic, split, drawn)
            while text in seen:
                text = _question(book, topic, split, drawn)
            seen.add(text)
            made.append(Question(f"{split}-{number + 1}", split, text, topic["answer"]))
    return made


def question_source(data: Data) -> Source:
    """Return the built-in set that `data` names as a source; DataError for another name or a column that it lacks."""
    name = data.source or ""
    if name not in SETS:
        raise DataError(f'data.source: no built-in set "{name}" of this task; its sets are {", ".join(SETS)}')
    wanted: dict[Role, str] = {"text": data.text, "pair": data.pair or "pair"}
    require_columns(name, ("id", "text", "pair"), wanted | ({"id": data.id} if data.id is not None else {}))
    questions = generate_questions(SETS[name])
    tables: dict[SplitName, Table] = {}
    for split in ROWS:
        rows = [one for one in questions if one.split == split]
        fields = {"text": [one.text for one in rows], "pair": [one.answer for one in rows]}
        columns: dict[Role, Sequence[object]] = {role: fields[column] for role, column in wanted.items()}
        tables[split] = table_of_values(split, name, columns | {"id": [one.id for one in rows]})
    described = {
        "requested": name,
        "used": "builtin",
        "files": [
            {"split": split, "path": table.location, "rows": len(table), "sha256": table.sha256}
            for split, table in tables.items()
        ],
        "synthetic": True,
        "language": SETS[name],
        "about": "Synthetic: made-up questions of customers with their answers, put together by a seeded generator.",
    }
    return Source(tables, described, (f"{name} is a synthetic set made by peftlab",))


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
