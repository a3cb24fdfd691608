"""Synthetic sentences with names: ``builtin:entities-en`` (English) and ``builtin:entities-zh`` (Chinese).

SYNTHETIC: a seeded generator puts authored names into authored sentences. A figure measured here compares methods; it
says nothing about real texts. What makes the set hard are names that are a person here and a place or a club there,
and names and sentences of validation and test that training never shows (`HELD_OUT_SHARE` of their rows draw from
those).
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
from peftlab.data.sources import Source, describe
from peftlab.errors import DataError

Language = Literal["en", "zh"]

SETS: Mapping[str, Language] = {"builtin:entities-en": "en", "builtin:entities-zh": "zh"}
ROWS: Mapping[SplitName, int] = {"train": 1200, "validation": 300, "test": 400}
HELD_OUT_SHARE = 0.5
SEED = 20_260
_SLOT = re.compile(r"\{(\w+)\}")
_NUMBERS = (2, 3, 4, 5, 7, 12, 18, 20, 35, 60, 90)


@dataclass(frozen=True)
class Sentence:
    """A sentence of one split: tokens (English: words and signs; Chinese: characters) with tags in IOB2."""

    id: str
    split: SplitName
    tokens: tuple[str, ...]
    tags: tuple[str, ...]


def generate_sentences(language: Language, seed: int = SEED) -> list[Sentence]:
    """Return all sentences, the same ones for the same seed; no sentence stands there twice."""
    book = tomllib.loads((files(__package__) / f"{language}.toml").read_text(encoding="utf-8"))
    drawn = random.Random(f"{language}-{seed}")
    seen: set[tuple[str, ...]] = set()
    made: list[Sentence] = []
    for split, rows in ROWS.items():
        number = 0
        while number < rows:
            held_out = split != "train" and drawn.random() < HELD_OUT_SHARE
            tokens, tags = _sentence(book, language, drawn, held_out=held_out)
            if tokens in seen:
                continue
            seen.add(tokens)
            number += 1
            made.append(Sentence(f"{split}-{number}", split, tokens, tags))
    return made


def entity_source(name: str, wanted: Mapping[Role, str]) -> Source:
    """Return the built-in set of this name as a source; DataError for another name or a column that it lacks."""
    if name not in SETS:
        raise DataError(f'data.source: no built-in set "{name}" of this task; its sets are {", ".join(SETS)}')
    require_columns(name, ("id", "tokens", "tags"), wanted)
    language = SETS[name]
    sentences = generate_sentences(language)
    tables: dict[SplitName, Table] = {}
    for split in ROWS:
        rows = [one for one in sentences if one.split == split]
        columns: dict[Role, Sequence[object]] = {
            "text": [list(one.tokens) for one in rows],
            "label": [list(one.tags) for one in rows],
            "id": [one.id for one in rows],
        }
        tables[split] = table_of_values(split, name, columns)
    about = f"Synthetic: made-up {language} sentences with authored names, put together by a seeded generator."
    described = describe(name, "builtin", tables) | {"synthetic": True, "language": language, "about": about}
    return Source(tables, described, (f"{name} is a synthetic set made by peftlab",))


def _sentence(
    book: Mapping[str, Any], language: Language, drawn: random.Random, *, held_out: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    new_wording = held_out and drawn.random() < HELD_OUT_SHARE
    template = drawn.choice(book["held_out" if new_wording else "templates"].strip().splitlines())
    tokens: list[str] = []
    tags: list[str] = []
    end = 0
    for slot in _SLOT.finditer(template):
        plain = _tokens(template[end : slot.start()], language)
        tokens += plain
        tags += ["O"] * len(plain)
        filled = _tokens(_filler(book, slot[1], language, drawn, held_out=held_out), language)
        tokens += filled
        if slot[1] in ("DAY", "NUM"):
            tags += ["O"] * len(filled)
        else:
            tags += [f"B-{slot[1]}", *[f"I-{slot[1]}"] * (len(filled) - 1)]
        end = slot.end()
    plain = _tokens(template[end:], language)
    return (*tokens, *plain), (*tags, *["O"] * len(plain))


def _filler(book: Mapping[str, Any], slot: str, language: Language, drawn: random.Random, *, held_out: bool) -> str:
    if slot == "DAY":
        return str(drawn.choice(book["days"]))
    if slot == "NUM":
        return str(drawn.choice(_NUMBERS))
    names, ending = book[slot], "_held_out" if held_out and drawn.random() < HELD_OUT_SHARE else ""
    if slot != "PER":
        return str(drawn.choice(names[f"names{ending}"]))
    first, last = drawn.choice(names[f"first{ending}"]), drawn.choice(names[f"last{ending}"])
    if language == "zh":
        return f"{last}{first}"
    return str(last if drawn.random() < 0.3 else f"{first} {last}")


def _tokens(text: str, language: Language) -> list[str]:
    return text.split() if language == "en" else [character for character in text if character.strip()]
