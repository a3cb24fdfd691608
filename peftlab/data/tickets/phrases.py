"""The authored phrases behind the ticket set, read from the TOML files beside this module when first asked for.

One file a queue and language holds whole requests, topics (noun phrases), wants (verb phrases) and asides (remarks that
ask for nothing); ``shared.toml`` holds what all queues have in common. A key that ends in ``_held_out`` lists wordings
that the training split never uses. Words in braces are slots.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

Language = Literal["zh", "en"]
LABELS: tuple[str, ...] = ("account_payment", "after_sales", "logistics", "product", "technical_support")


@dataclass(frozen=True, slots=True)
class Phrases:
    """Wordings of one kind: `seen` in every split, `held_out` in validation and test only."""

    seen: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Queue:
    """What customers of one queue say.

    `requests`: whole tickets. `topics`: noun phrases and `wants`: verb phrases for contrast frames. `asides`: remarks
    about the queue's subject that ask for nothing.
    """

    requests: Phrases
    topics: Phrases
    wants: Phrases
    asides: Phrases


@dataclass(frozen=True, slots=True)
class Ambiguity:
    """Texts that two queues could claim: each is drawn under `queues[i]` with `probabilities[i]`."""

    note: str
    queues: tuple[str, ...]
    probabilities: tuple[float, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PhraseBook:
    """Everything that was written for one language.

    `slots`: a slot's name to its fillers. ``{product}`` is filled from the slots in `products`, or repeats what one of
    these or of `narrower_products` (things with a lid, things that need a battery) has put into the ticket already.
    """

    queues: Mapping[str, Queue]
    topic_frames: Phrases
    want_frames: Phrases
    ambiguous: tuple[Ambiguity, ...]
    openers: tuple[str, ...]
    contexts: tuple[str, ...]
    closers: tuple[str, ...]
    aside_first: tuple[str, ...]
    aside_last: tuple[str, ...]
    lead: tuple[str, ...]
    separators: tuple[str, ...]
    marks: tuple[str, ...]
    question: str
    question_marks: tuple[str, ...]
    slips: tuple[tuple[str, str], ...]
    slots: Mapping[str, tuple[str, ...]]
    products: tuple[str, ...]
    narrower_products: tuple[str, ...]

    def template_count(self) -> int:
        """How many wordings were written, slot fillers and slips not counted."""
        kinds = [
            kind for queue in self.queues.values() for kind in (queue.requests, queue.topics, queue.wants, queue.asides)
        ]
        kinds += [self.topic_frames, self.want_frames]
        shared: Sequence[Sequence[str]] = (self.openers, self.contexts, self.closers, self.aside_first, self.aside_last)
        return (
            sum(len(kind.seen) + len(kind.held_out) for kind in kinds)
            + sum(len(case.texts) for case in self.ambiguous)
            + sum(map(len, shared))
        )


@cache
def load_phrases(language: Language) -> PhraseBook:
    """Read the phrases of one language; the result is kept for the life of the process."""
    shared = _read(language, "shared")
    return PhraseBook(
        queues={label: _queue(_read(language, label)) for label in LABELS},
        topic_frames=_phrases(shared, "topic_frames"),
        want_frames=_phrases(shared, "want_frames"),
        ambiguous=tuple(
            Ambiguity(case["note"], tuple(case["queues"]), tuple(case["probabilities"]), _lines(case["texts"]))
            for case in shared["ambiguous"]
        ),
        openers=_lines(shared["openers"]),
        contexts=_lines(shared["contexts"]),
        closers=_lines(shared["closers"]),
        aside_first=_lines(shared["aside_first"]),
        aside_last=_lines(shared["aside_last"]),
        lead=tuple(shared["lead"]),
        separators=tuple(shared["separators"]),
        marks=tuple(shared["marks"]),
        question=shared["question"],
        question_marks=tuple(shared["question_marks"]),
        slips=tuple((right, wrong) for right, wrong in map(str.split, _lines(shared["slips"]))),
        slots={name: tuple(fillers) for name, fillers in shared["slots"].items()},
        products=tuple(shared["products"]),
        narrower_products=tuple(shared["narrower_products"]),
    )


def _queue(table: Mapping[str, Any]) -> Queue:
    return Queue(*(_phrases(table, key) for key in ("requests", "topics", "wants", "asides")))


def _phrases(table: Mapping[str, Any], key: str) -> Phrases:
    return Phrases(_lines(table[key]), _lines(table[f"{key}_held_out"]))


def _lines(block: str) -> tuple[str, ...]:
    return tuple(block.strip().splitlines())


def _read(language: Language, name: str) -> dict[str, Any]:
    return tomllib.loads((files(__package__) / language / f"{name}.toml").read_text(encoding="utf-8"))
