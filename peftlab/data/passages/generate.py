"""Synthetic passages with questions: ``builtin:passages-en``, columns `context`, `question` and `answers`.

SYNTHETIC: a seeded generator puts facts about two people into a passage and asks for one of them; `WITHOUT_ANSWER` of
the questions ask for a fact that the passage does not hold. `HELD_OUT_SHARE` of the questions of validation and test
have wordings that training never shows. A figure measured here compares methods; it says nothing about real texts.
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

SETS = ("builtin:passages-en",)
ROWS: Mapping[SplitName, int] = {"train": 1200, "validation": 250, "test": 400}
WITHOUT_ANSWER = 0.25
HELD_OUT_SHARE = 0.4
SEED = 20_265


@dataclass(frozen=True)
class Asked:
    """A question of one split, its passage, and the answer with its first character; None where there is none."""

    id: str
    split: SplitName
    context: str
    question: str
    answer: tuple[str, int] | None


def generate_questions(seed: int = SEED) -> list[Asked]:
    """Return all questions, the same ones for the same seed; no passage stands there twice."""
    book = tomllib.loads((files(__package__) / "en.toml").read_text(encoding="utf-8"))
    drawn = random.Random(f"en-{seed}")

    def draw(split: SplitName, _: int) -> tuple[str, str, tuple[str, int] | None]:
        held_out = split != "train" and drawn.random() < HELD_OUT_SHARE
        return _asked(book, drawn, "held_out" if held_out else "asked")

    return [Asked(number, split, *made) for number, split, made in distinct(ROWS, draw)]


def passage_source(name: str, wanted: Mapping[Role, str]) -> Source:
    """Return the built-in set of this whole name; DataError for another name or a column that it lacks."""
    require_set(name, SETS)
    fields: Mapping[str, Callable[[Asked], object]] = {
        "id": lambda one: one.id,
        "context": lambda one: one.context,
        "question": lambda one: one.question,
        "answers": _answers,
    }
    about = "Synthetic: made-up passages with questions, put together by a seeded generator."
    return built_in_source(
        name, built_in_tables(name, generate_questions(), fields, wanted), language="en", about=about
    )


def _answers(one: Asked) -> list[dict[str, object]]:
    return [{"text": one.answer[0], "answer_start": one.answer[1]}] if one.answer is not None else []


def _asked(book: Mapping[str, Any], drawn: random.Random, wording: str) -> tuple[str, str, tuple[str, int] | None]:
    """Return a passage of facts about two people, a question about one of them, and its answer."""
    people = drawn.sample(_lines(book["names"]), 2)
    facts = drawn.sample(book["facts"], 4)
    sentences: list[tuple[str, str, int, str]] = []  # the sentence, whom and which fact it is about, what it says
    for person in people:
        for place, fact in enumerate(facts[:3]):
            value = drawn.choice(_lines(fact["values"]))
            sentences.append((_filled(fact["said"], person, value), person, place, value))
    sentences += [(filler, "", -1, "") for filler in drawn.sample(_lines(book["fillers"]), 2)]
    drawn.shuffle(sentences)
    context = " ".join(sentence for sentence, *_ in sentences)
    who = drawn.choice(people)
    asks_in_vain = drawn.random() < WITHOUT_ANSWER
    which = 3 if asks_in_vain else drawn.randrange(3)
    question = _filled(facts[which][wording], who, "")
    if asks_in_vain:
        return context, question, None
    sentence, _, _, value = next(one for one in sentences if one[1] == who and one[2] == which)
    said: str = facts[which]["said"]
    before = _filled(said.partition("{value}")[0], who, "")
    return context, question, (value, context.index(sentence) + len(before))


def _filled(wording: str, name: str, value: str) -> str:
    return wording.replace("{name}", name).replace("{value}", value)


def _lines(block: str) -> list[str]:
    return block.strip().splitlines()
