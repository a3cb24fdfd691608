"""Synthetic customer tickets for five queues: ``builtin:tickets-zh`` (Chinese) and ``builtin:tickets-en`` (English).

SYNTHETIC: no ticket was written by a customer. A seeded generator puts authored phrases together (`phrases`) and types
them carelessly (`noise`). A figure measured here compares methods; it says nothing about a real service desk.

What makes the set hard is which of two things is asked for, not which are mentioned: "not the refund, where is the
parcel?" and its mirror image hold the same words under different labels. A clear ticket is one of four kinds: a
request alone, a request with an aside about another queue, and two kinds of contrast frame. Validation and test also
use wordings that training never shows.

A further `AMBIGUOUS_SHARE` of tickets could go to either of two queues. Their label is drawn with the probabilities
stated beside each case and their wording does not depend on it, which bounds the accuracy of any classifier
(`ceiling`).
"""

from __future__ import annotations

import hashlib
import random
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from peftlab.data.rows import SplitName
from peftlab.data.tickets.noise import Draw, pick, type_carelessly
from peftlab.data.tickets.phrases import LABELS, Ambiguity, Language, PhraseBook, Phrases, Queue, load_phrases
from peftlab.errors import DataError

__all__ = ["DESCRIPTION", "LABELS", "Ticket", "ceiling", "generate_tickets"]

Kind = Literal["request", "aside", "topic", "want"]

CLASS_SHARES: dict[str, float] = {
    "account_payment": 0.205,
    "after_sales": 0.25,
    "logistics": 0.27,
    "product": 0.22,
    "technical_support": 0.055,
}
KIND_SHARES: dict[Kind, float] = {"request": 0.55, "aside": 0.29, "topic": 0.105, "want": 0.055}
SPLIT_SHARES: dict[SplitName, float] = {"train": 0.6, "validation": 0.2, "test": 0.2}
AMBIGUOUS_SHARE = 0.05
FLIPPED_SHARE = 0.05
HELD_OUT_SHARE = 0.15
MINIMUM_ROWS = 500
DEFAULT_SEED = 20_240
_TRIES = 200
_SLOT = re.compile(r"\{(\w+)\}")


# The ceiling is written out so that importing this module reads no file; a test holds it to `ceiling`.
DESCRIPTION: dict[str, str] = {
    language: (
        f"Synthetic: made-up {name} customer tickets for five queues, put together by a seeded generator from phrases "
        "authored for peftlab. No customer wrote or received any of them. Five per cent of the training labels are "
        "flipped on purpose; validation and test labels are clean. One ticket in twenty is truly ambiguous, so no "
        "classifier can expect more than 97.8 % accuracy on the test split. Figures on this set compare methods and do "
        "not carry over to real tickets."
    )
    for language, name in (("zh", "Chinese"), ("en", "English"))
}


@dataclass(frozen=True, slots=True)
class Ticket:
    """One made-up ticket.

    `label` is what training sees; it differs from `true_label` in 5 % of training rows and nowhere else. `ambiguous`:
    two queues could claim the text, and `true_label` was drawn between them.
    """

    id: str
    text: str
    label: str
    true_label: str
    split: SplitName
    ambiguous: bool


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one ticket is to be: a clear one of some kind, or (`case` given) an ambiguous one."""

    label: str
    kind: Kind | None
    case: Ambiguity | None


def generate_tickets(language: Language, rows: int = 20_000, seed: int = DEFAULT_SEED) -> tuple[Ticket, ...]:
    """Make `rows` distinct tickets: train, then validation, then test (6:2:2), each in random order.

    The same arguments give the same tickets on every platform and Python version. Every split holds the same share of
    each class, kind and ambiguous case. No two tickets are equal after NFKC, lower-casing and removal of white space.

    Raises DataError for another language, for fewer than `MINIMUM_ROWS` rows, and when the phrases cannot give that
    many distinct texts.
    """
    if language not in DESCRIPTION:
        raise DataError(f"ticket set: language {language!r}: expected one of {', '.join(DESCRIPTION)}")
    if rows < MINIMUM_ROWS:
        raise DataError(
            f"ticket set: rows = {rows}: expected at least {MINIMUM_ROWS}, so that every class is in every split"
        )
    digest = hashlib.sha256(f"{language}:{rows}:{seed}".encode()).digest()
    draw = random.Random(int.from_bytes(digest[:8], "big")).random
    book = load_phrases(language)
    taken: set[str] = set()
    tickets: list[Ticket] = []
    for split, count in zip(SPLIT_SHARES, _apportion(list(SPLIT_SHARES.values()), rows), strict=True):
        made = _make_split(language, book, split, count, taken, draw)
        tickets += _flip(made, draw) if split == "train" else made
    return tuple(tickets)


def ceiling(language: Language) -> float:
    """The best expected accuracy that any classifier can reach on the clean test split.

    A clear ticket can always be right. On an ambiguous case the best answer is its likelier queue, so the ceiling is
    1 - AMBIGUOUS_SHARE * mean over cases of (1 - largest probability): the Bayes rate.
    """
    cases = load_phrases(language).ambiguous
    likelier = sum(max(case.probabilities) for case in cases) / len(cases)
    # Twelve places: the sum of a few two-digit decimals, without its binary dust.
    return round(1.0 - AMBIGUOUS_SHARE * (1.0 - likelier), 12)


def normal_form(text: str) -> str:
    """The form in which two tickets count as the same text: NFKC, lower case, no white space."""
    return "".join(unicodedata.normalize("NFKC", text).lower().split())


def _apportion(weights: Sequence[float], total: int) -> list[int]:
    """Whole numbers that add up to `total`, as near to the weights as can be (largest remainders)."""
    exact = [weight / sum(weights) * total for weight in weights]
    counts = [int(value) for value in exact]
    # Rounded, because equal remainders may differ in the last bit; then the earlier one wins.
    by_remainder = sorted(range(len(exact)), key=lambda place: round(counts[place] - exact[place], 9))
    for place in by_remainder[: total - sum(counts)]:
        counts[place] += 1
    return counts


def _plans(book: PhraseBook, rows: int) -> list[_Plan]:
    """What each of `rows` tickets is to be, in no particular order: a draw stratified by class, kind and case."""
    plans: list[_Plan] = []
    case_share = AMBIGUOUS_SHARE / len(book.ambiguous)
    for label, count in zip(CLASS_SHARES, _apportion(list(CLASS_SHARES.values()), rows), strict=True):
        cases = [
            (_Plan(label, None, case), case_share * probability)
            for case in book.ambiguous
            for queue, probability in zip(case.queues, case.probabilities, strict=True)
            if queue == label
        ]
        clear = CLASS_SHARES[label] - sum(share for _, share in cases)
        cells = cases + [(_Plan(label, kind, None), clear * share) for kind, share in KIND_SHARES.items()]
        for (plan, _), copies in zip(cells, _apportion([share for _, share in cells], count), strict=True):
            plans += [plan] * copies
    return plans


def _make_split(
    language: Language, book: PhraseBook, split: SplitName, rows: int, taken: set[str], draw: Draw
) -> list[Ticket]:
    """The tickets of one split; their normal forms are added to `taken`."""
    held_out = 0.0 if split == "train" else HELD_OUT_SHARE
    tickets = []
    for number, plan in enumerate(_shuffled(_plans(book, rows), draw), start=1):
        for _ in range(_TRIES):
            text = _write(language, book, plan, held_out, draw)
            form = normal_form(text)
            if form not in taken:
                break
        else:
            raise DataError(
                f"ticket set: the phrases gave no further distinct text for {split} row {number}; ask for fewer rows"
            )
        taken.add(form)
        tickets.append(
            Ticket(f"{language}-{split}-{number:06d}", text, plan.label, plan.label, split, plan.case is not None)
        )
    return tickets


def _shuffled(plans: list[_Plan], draw: Draw) -> list[_Plan]:
    """Fisher-Yates on `draw`, since the sequence of random.shuffle is not promised to stay."""
    for last in range(len(plans) - 1, 0, -1):
        other = int(draw() * (last + 1))
        plans[last], plans[other] = plans[other], plans[last]
    return plans


def _flip(tickets: list[Ticket], draw: Draw) -> list[Ticket]:
    """Give `FLIPPED_SHARE` of the tickets a wrong label, each of the others equally likely."""
    order = sorted(range(len(tickets)), key=lambda _: draw())
    chosen = set(order[: round(FLIPPED_SHARE * len(tickets))])
    return [
        replace(ticket, label=pick([label for label in LABELS if label != ticket.true_label], draw))
        if place in chosen
        else ticket
        for place, ticket in enumerate(tickets)
    ]


def _write(language: Language, book: PhraseBook, plan: _Plan, held_out: float, draw: Draw) -> str:
    """The text of one ticket, with greeting, background and closing that do not depend on the plan."""
    main: dict[str, str] = {}
    body = _body(language, book, plan, held_out, main, draw)
    parts = []
    if draw() < 0.4:
        parts.append(_fill(pick(book.openers, draw), language, book, main, draw))
    if draw() < 0.3:
        parts.append(_fill(pick(book.contexts, draw), language, book, main, draw))
    marks = book.question_marks if re.search(book.question, body) else book.marks
    mark = pick(marks, draw)
    text = "".join(part + pick(book.separators, draw) for part in parts) + body + mark
    if draw() < 0.35:
        text += (" " if mark else pick(book.separators, draw)) + pick(book.closers, draw)
    return type_carelessly(text, language, book.slips, draw)


def _body(language: Language, book: PhraseBook, plan: _Plan, held_out: float, main: dict[str, str], draw: Draw) -> str:
    """What the ticket says. `main` collects the slot values of what is asked for, so that the background agrees."""
    if plan.case is not None:
        return _fill(pick(plan.case.texts, draw), language, book, main, draw)
    asked = book.queues[plan.label]
    if plan.kind == "request":
        return _fill(_choose(asked.requests, held_out, draw), language, book, main, draw)
    mentioned = _mentioned(book, plan.label, draw)
    side: dict[str, str] = {}
    if plan.kind == "aside":
        frame = pick(book.aside_first if draw() < 0.5 else book.aside_last, draw)
        request = _fill(_choose(asked.requests, held_out, draw), language, book, main, draw)
        aside = _fill(_choose(mentioned.asides, held_out, draw), language, book, side, draw)
        return _SLOT.sub(lambda match: request if match[1] == "request" else aside, frame)
    if plan.kind == "topic":
        frames, ask_for, mention = book.topic_frames, asked.topics, mentioned.topics
    else:
        frames, ask_for, mention = book.want_frames, asked.wants, mentioned.wants
    frame = _choose(frames, held_out, draw)
    ask = _fill(_choose(ask_for, held_out, draw), language, book, main, draw)
    other = _fill(_choose(mention, held_out, draw), language, book, side, draw)
    return _SLOT.sub(lambda match: {"ask": ask, "other": other}.get(match[1]) or pick(book.lead, draw), frame)


def _mentioned(book: PhraseBook, label: str, draw: Draw) -> Queue:
    """Another queue, as likely as it is common: then a pair of queues is as common one way round as the other."""
    others = [other for other in LABELS if other != label]
    mark = draw() * sum(CLASS_SHARES[other] for other in others)
    for other in others:
        mark -= CLASS_SHARES[other]
        if mark < 0:
            return book.queues[other]
    return book.queues[others[-1]]


def _choose(phrases: Phrases, held_out: float, draw: Draw) -> str:
    return pick(phrases.held_out if draw() < held_out else phrases.seen, draw)


def _fill(template: str, language: Language, book: PhraseBook, values: dict[str, str], draw: Draw) -> str:
    """`template` with its slots filled; a slot that `values` already knows keeps its value."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name == "product":
            known = [slot for slot in book.products + book.narrower_products if slot in values]
            name = known[0] if known else pick(book.products, draw)
        if name not in values:
            values[name] = _slot_value(name, language, book, draw)
        return values[name]

    return _SLOT.sub(value, template)


def _slot_value(name: str, language: Language, book: PhraseBook, draw: Draw) -> str:
    if name == "order":
        return "".join(str(int(draw() * 10)) for _ in range(12 if language == "zh" else 8))
    if name == "amount":
        whole = 10 + int(draw() * 490)
        return f"{whole}{pick(('', '', '.9', '.5'), draw)}" if language == "zh" else f"{pick('$£', draw)}{whole}"
    return pick(book.slots[name], draw)
