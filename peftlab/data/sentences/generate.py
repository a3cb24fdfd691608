"""Synthetic sentences with translations: ``builtin:sentences-de-en``, from German (`source`) to English (`target`).

SYNTHETIC: a seeded generator puts authored words into four patterns. What a model must learn beside words: the endings
and articles that English lacks, the continuous form that German lacks, and another order (German has time before place
before an object, or begins with the time). No sentence stands there twice; a figure measured here compares methods, and
says nothing about real texts.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from peftlab.data.readers import Role
from peftlab.data.rows import SplitName
from peftlab.data.sources import Source
from peftlab.data.synthetic import built_in_source, built_in_tables, distinct, require_set

SETS: Mapping[str, str] = {"builtin:sentences-de-en": "de_en"}
ROWS: Mapping[SplitName, int] = {"train": 1500, "validation": 150, "test": 300}
SEED = 20_262
_ARTICLES = {"nominative": {"m": "ein", "f": "eine", "n": "ein"}, "accusative": {"m": "einen", "f": "eine", "n": "ein"}}
_ENDINGS = {"nominative": {"m": "er", "f": "e", "n": "es"}, "accusative": {"m": "en", "f": "e", "n": "es"}}


@dataclass(frozen=True)
class Pair:
    """A sentence of one split in both languages."""

    id: str
    split: SplitName
    source: str
    target: str


@dataclass(frozen=True)
class _Both:
    """A phrase in German and in English; `plural` where a verb must know."""

    german: str
    english: str
    plural: bool = False


def generate_sentences(name: str = "de_en", seed: int = SEED) -> list[Pair]:
    """Return all pairs, the same ones for the same seed; no source stands there twice."""
    book = tomllib.loads((files(__package__) / f"{name}.toml").read_text(encoding="utf-8"))
    drawn = random.Random(f"{name}-{seed}")
    return [Pair(number, split, *made) for number, split, made in distinct(ROWS, lambda *_: _sentence(book, drawn))]


def sentence_source(name: str, wanted: Mapping[Role, str]) -> Source:
    """Return the built-in set of this whole name; DataError for another name or a column that it lacks."""
    require_set(name, SETS)
    fields: Mapping[str, Callable[[Pair], object]] = {
        "id": lambda one: one.id,
        "source": lambda one: one.source,
        "target": lambda one: one.target,
    }
    about = "Synthetic: German sentences with English translations, put together by a seeded generator."
    tables = built_in_tables(name, generate_sentences(SETS[name]), fields, wanted)
    return built_in_source(name, tables, language="de", about=about)


def _sentence(book: Mapping[str, Any], drawn: random.Random) -> tuple[str, str]:
    """Return one sentence in both languages: who does what, perhaps where and when."""
    who = _who(book, drawn)
    place = _phrase(drawn.choice(_lines(book["places"]))) if drawn.random() < 0.7 else _Both("", "")
    time = _phrase(drawn.choice(_lines(book["times"]))) if drawn.random() < 0.6 else _Both("", "")
    what = _Both("", "")
    if drawn.random() < 0.6:
        acting = drawn.choice(book["acting"])
        verb = acting["verb"]
        what = _noun(drawn.choice(_lines(acting["objects"])), book["adjectives_of_things"], "accusative", drawn)
    else:
        verb = drawn.choice(_lines(book["doing"]))
    singular, plural, ing = (part.strip() for part in verb.split("|"))
    does, is_doing = (plural, f"are {ing}") if who.plural else (singular, f"is {ing}")
    begins_with_time = bool(time.german) and drawn.random() < 0.4
    if begins_with_time:
        german = (time.german, does, who.german, place.german, what.german)
        english = (f"{time.english},", who.english, is_doing, what.english, place.english)
    else:
        german = (who.german, does, time.german, place.german, what.german)
        english = (who.english, is_doing, what.english, place.english, time.english)
    return _joined(german), _joined(english)


def _who(book: Mapping[str, Any], drawn: random.Random) -> _Both:
    if drawn.random() < 0.35:
        group = _phrase(drawn.choice(_lines(book["groups"])))
        return _Both(group.german, group.english, plural=True)
    return _noun(drawn.choice(_lines(book["people"])), book["adjectives_of_people"], "nominative", drawn)


def _noun(line: str, adjectives: str, case: str, drawn: random.Random) -> _Both:
    """Return a noun with its indefinite article, and now and then an adjective."""
    noun = _phrase(line[2:])
    gender = line[0]
    german, english = [_ARTICLES[case][gender], noun.german], [noun.english]
    if drawn.random() < 0.5:
        adjective = _phrase(drawn.choice(_lines(adjectives)))
        german.insert(1, adjective.german + _ENDINGS[case][gender])
        english.insert(0, adjective.english)
    article = "an" if english[0][0] in "aeiou" else "a"
    return _Both(" ".join(german), " ".join([article, *english]))


def _phrase(line: str) -> _Both:
    german, english = (part.strip() for part in line.split("|"))
    return _Both(german, english)


def _joined(parts: Sequence[str]) -> str:
    text = " ".join(part for part in parts if part)
    return f"{text[0].upper()}{text[1:]}."


def _lines(block: str) -> list[str]:
    return block.strip().splitlines()
