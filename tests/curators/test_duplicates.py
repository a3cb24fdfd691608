"""`duplicates` drops repeats, and nothing that differs by more than was asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from peftlab.curation.rows import Curated, Rows

Run = Callable[..., tuple[Rows, Curated]]
LONG = "where is the parcel that your courier should have delivered to my old address last week"


def test_the_first_of_equal_texts_stays_whatever_their_case_and_white_space(
    rows_of: Callable[..., Rows], curate: Run
) -> None:
    rows = rows_of(["Where is it?", "my card", "where  is IT？", "where is it?"], [0, 1, 0, 0])
    after, done = curate("duplicates", rows, near=False)
    assert after.numbers.tolist() == [1, 2]
    assert [change.why for change in done.changes] == ["the same text as row 1"] * 2


def test_near_duplicates_go_where_label_and_letters_agree(rows_of: Callable[..., Rows], curate: Run) -> None:
    rows = rows_of([LONG, f"{LONG}!", LONG.replace("parcel", "refund"), f"{LONG}."], [0, 0, 0, 1])
    after, done = curate("duplicates", rows, conflicts="keep")
    assert after.numbers.tolist() == [1, 3, 4]
    assert done.figures == {"exact": 0, "near": 1, "texts_with_several_labels": 0}
    assert done.changes[0].score == pytest.approx(0.98, abs=0.02)


def test_chinese_texts_are_compared_by_shorter_pieces(rows_of: Callable[..., Rows], curate: Run) -> None:
    text = "请问我上周在你们店里买的那个包裹现在到底送到哪里了"
    rows = rows_of([text, f"{text}？", "请问发票什么时候可以开出来给我"], [0, 0, 1])
    assert curate("duplicates", rows)[0].numbers.tolist() == [1, 3]


@pytest.mark.parametrize(("conflicts", "left"), [("majority", [1, 5]), ("drop", [5]), ("keep", [1, 3, 5])])
def test_a_text_under_several_labels_is_treated_as_asked(
    rows_of: Callable[..., Rows], curate: Run, conflicts: str, left: list[int]
) -> None:
    rows = rows_of(["same text", "same text", "Same text", "same text", "other"], [0, 0, 1, 0, 2])
    assert curate("duplicates", rows, conflicts=conflicts, near=False)[0].numbers.tolist() == left


def test_a_tie_between_labels_keeps_none(rows_of: Callable[..., Rows], curate: Run) -> None:
    rows = rows_of(["same text", "same text", "other"], [0, 1, 2])
    assert curate("duplicates", rows)[0].numbers.tolist() == [3]


def test_pairs_are_equal_only_where_both_texts_are(rows_of: Callable[..., Rows], curate: Run) -> None:
    rows = rows_of(["one", "one", "one"], [0, 0, 0], ["a", "b", "A"])
    assert curate("duplicates", rows, near=False)[0].numbers.tolist() == [1, 2]
