"""IOB1, IOB2 and BIOES are told apart, checked, and turned into IOB2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftlab.data.tag_schemes import find_scheme, may_follow, misplaced, spans, tag_names, to_iob2

# One sentence in the three schemes: a person of two tokens, then another one, a place, and nothing.
IOB2 = ["B-PER", "I-PER", "B-PER", "B-LOC", "O"]
IOB1 = ["I-PER", "I-PER", "B-PER", "I-LOC", "O"]
BIOES = ["B-PER", "E-PER", "S-PER", "S-LOC", "O"]


@pytest.mark.parametrize(("tags", "scheme"), [(IOB1, "IOB1"), (IOB2, "IOB2"), (BIOES, "BIOES"), (["O"], "IOB2")])
def test_the_scheme_is_found_and_its_tags_become_iob2(tags: list[str], scheme: str) -> None:
    assert find_scheme([["O", "O"], tags]) == scheme
    assert misplaced(tags, scheme) is None  # type: ignore[arg-type]
    assert to_iob2(tags, scheme) == tuple(IOB2 if len(tags) > 1 else tags)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tags", "scheme", "place", "reason"),
    [
        (["O", "I-PER"], "IOB2", 1, "I-PER after O; in IOB2 an entity begins with B-PER"),
        (["B-LOC", "I-PER"], "IOB2", 1, "I-PER after B-LOC; in IOB2 an entity begins with B-PER"),
        (["O", "B-PER", "O"], "BIOES", 2, "O after B-PER; in BIOES an entity ends with E-PER"),
        (["O", "B-PER"], "BIOES", 1, "B-PER is the last tag; in BIOES an entity ends with E- or S-"),
        (["E-PER"], "BIOES", 0, "E-PER at the start; in BIOES it must follow B-PER or I-PER"),
        (["S-PER"], "IOB2", 0, "S-PER is a tag of BIOES, and the rows are read as IOB2"),
        (["O", "PER"], "IOB2", 1, '"PER" is no tag; expected O, or B-, I-, E- or S- before the type of an entity'),
    ],
)
def test_a_misplaced_tag_is_named_with_what_was_expected(tags: list[str], scheme: str, place: int, reason: str) -> None:
    found = misplaced(tags, scheme)  # type: ignore[arg-type]
    assert found is not None
    assert (found.place, found.reason) == (place, reason)


def test_rows_that_begin_entities_both_ways_are_iob2_with_mistakes() -> None:
    assert find_scheme([["B-PER", "O"], ["O", "I-PER"]]) == "IOB2"


@given(st.lists(st.sampled_from(tag_names(["LOC", "PER", "A-B"])), max_size=12))
def test_what_may_follow_is_what_is_not_misplaced(tags: list[str]) -> None:
    follows = all(may_follow(before, tag) for before, tag in zip([None, *tags], tags, strict=False))
    assert follows == (misplaced(tags, "IOB2") is None)


@given(st.lists(st.tuples(st.sampled_from(["O", "LOC", "PER"]), st.integers(1, 3)), max_size=6))
def test_entities_come_back_from_their_tags_in_every_scheme(parts: list[tuple[str, int]]) -> None:
    """Written in BIOES and in IOB1, and read back."""
    bioes: list[str] = []
    wanted = []
    for kind, length in parts:
        if kind == "O":
            bioes += ["O"] * length
            continue
        wanted.append((len(bioes), len(bioes) + length, kind))
        bioes += [f"S-{kind}"] if length == 1 else [f"B-{kind}", *[f"I-{kind}"] * (length - 2), f"E-{kind}"]
    iob2 = to_iob2(bioes, "BIOES")
    iob1 = [
        tag if not tag.startswith("B-") or (place and iob2[place - 1][2:] == tag[2:]) else f"I-{tag[2:]}"
        for place, tag in enumerate(iob2)
    ]
    assert list(spans(iob2)) == wanted
    assert list(spans(to_iob2(iob1, "IOB1"))) == wanted
