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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from peftlab.data.readers import Role
from peftlab.data.rows import SplitName
from peftlab.data.sources import Source
from peftlab.data.synthetic import built_in_source, built_in_tables, distinct, require_set

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

    def draw(split: SplitName, _: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return _sentence(book, language, drawn, held_out=split != "train" and drawn.random() < HELD_OUT_SHARE)

    return [Sentence(number, split, *made) for number, split, made in distinct(ROWS, draw)]


def entity_source(name: str, wanted: Mapping[Role, str]) -> Source:
    """Return the built-in set of this name as a source; DataError for another name or a column that it lacks."""
    require_set(name, SETS)
    language = SETS[name]
    fields: Mapping[str, Callable[[Sentence], object]] = {
        "id": lambda one: one.id,
        "tokens": lambda one: list(one.tokens),
        "tags": lambda one: list(one.tags),
    }
    about = f"Synthetic: made-up {language} sentences with authored names, put together by a seeded generator."
    tables = built_in_tables(name, generate_sentences(language), fields, wanted)
    return built_in_source(name, tables, language=language, about=about)


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
