"""Tags of tokens: the schemes IOB1, IOB2 and BIOES, told apart, checked, and turned into IOB2.

In all of them `O` is a token of no entity. IOB2: an entity begins with `B-TYPE` and goes on with `I-TYPE`. IOB1: it is
all `I-TYPE`, but begins with `B-TYPE` where it follows one of the same type (Ramshaw and Marcus 1995; the files of
CoNLL-2003). BIOES: as IOB2, its last token `E-TYPE`, an entity of one token `S-TYPE`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Scheme = Literal["IOB1", "IOB2", "BIOES"]
Span = tuple[int, int, str]
"""An entity: its first token, the token after its last, its type."""

_KNOWN = frozenset("BIES")


@dataclass(frozen=True)
class Misplaced:
    """A tag that its scheme does not allow: the token's place, counted from 0, and why."""

    place: int
    reason: str


def split_tag(tag: str) -> tuple[str, str]:
    """Return prefix and type: `("B", "PER")`, or `("O", "")`; ValueError, whose text is the reason, for no tag."""
    prefix, dash, kind = tag.partition("-")
    if tag == "O":
        return "O", ""
    if dash and prefix in _KNOWN and kind:
        return prefix, kind
    raise ValueError(f'"{tag}" is no tag; expected O, or B-, I-, E- or S- before the type of an entity')


def find_scheme(sentences: Iterable[Sequence[str]]) -> Scheme:
    """Return the scheme that `sentences` keep to as far as their prefixes say; sentences are not checked here.

    BIOES where any tag has E or S. IOB1 where an entity begins with I and none begins with B but behind another one of
    its type; else IOB2, which then finds the tags that are misplaced.
    """
    begun_by_i = begun_by_b = False
    for tags in sentences:
        previous, before = "O", ""
        for tag in tags:
            prefix, kind = split_tag(tag)
            if prefix in "ES":
                return "BIOES"
            begins = previous == "O" or before != kind
            begun_by_b = begun_by_b or (prefix == "B" and begins)
            begun_by_i = begun_by_i or (prefix == "I" and begins)
            previous, before = prefix, kind
    return "IOB1" if begun_by_i and not begun_by_b else "IOB2"


def misplaced(tags: Sequence[str], scheme: Scheme) -> Misplaced | None:
    """Return the first tag that `scheme` does not allow where it stands, or None."""
    previous, before = "O", ""
    for place, tag in enumerate(tags):
        try:
            prefix, kind = split_tag(tag)
        except ValueError as error:
            return Misplaced(place, str(error))
        if (reason := _reason(scheme, tag, prefix, kind, previous, before)) is not None:
            return Misplaced(place, reason)
        previous, before = prefix, kind
    if scheme == "BIOES" and previous in "BI":
        return Misplaced(len(tags) - 1, f"{tags[-1]} is the last tag; in BIOES an entity ends with E- or S-")
    return None


def _reason(scheme: Scheme, tag: str, prefix: str, kind: str, previous: str, before: str) -> str | None:
    after = "at the start" if previous == "O" and not before else f"after {previous}-{before}" if before else "after O"
    if scheme == "BIOES":
        inside = previous in "BI"
        if prefix in "IE" and not (inside and before == kind):
            return f"{tag} {after}; in BIOES it must follow B-{kind} or I-{kind}"
        if prefix in "OBS" and inside:
            return f"{tag} {after}; in BIOES an entity ends with E-{before}"
        return None
    if prefix in "ES":
        return f"{tag} is a tag of BIOES, and the rows are read as {scheme}"
    if scheme == "IOB2" and prefix == "I" and (previous == "O" or before != kind):
        where = "after O" if previous == "O" else f"after {previous}-{before}"
        return f"{tag} {where}; in IOB2 an entity begins with B-{kind}"
    return None


def to_iob2(tags: Sequence[str], scheme: Scheme) -> tuple[str, ...]:
    """Return `tags`, which keep to `scheme`, in IOB2."""
    made: list[str] = []
    previous, before = "O", ""
    for tag in tags:
        prefix, kind = split_tag(tag)
        new = {"E": "I", "S": "B"}.get(prefix, prefix)
        if scheme == "IOB1" and prefix == "I" and (previous == "O" or before != kind):
            new = "B"
        made.append("O" if new == "O" else f"{new}-{kind}")
        previous, before = prefix, kind
    return tuple(made)


def spans(tags: Sequence[str]) -> Iterator[Span]:
    """Yield the entities of IOB2 `tags`, in their order; an `I-` that continues nothing is part of none."""
    start, kind = 0, ""
    for place, tag in enumerate((*tags, "O")):
        prefix, own = split_tag(tag)
        if kind and not (prefix == "I" and own == kind):
            yield start, place, kind
            kind = ""
        if prefix == "B":
            start, kind = place, own


def tag_names(types: Iterable[str]) -> tuple[str, ...]:
    """Return the IOB2 tags of entity `types`, in the order of the logits: O, then B- and I- of each, sorted."""
    return ("O", *(f"{prefix}-{kind}" for kind in sorted(set(types)) for prefix in "BI"))


def may_follow(previous: str | None, tag: str) -> bool:
    """Say whether IOB2 allows `tag` behind `previous`, or at the start of a sentence where that is None."""
    prefix, kind = split_tag(tag)
    if prefix != "I":
        return True
    return previous is not None and previous != "O" and split_tag(previous)[1] == kind
