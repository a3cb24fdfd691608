"""`label_issues` finds labels that were turned round, and does what a person decides."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from peftlab.curation.review import read_review, write_review
from peftlab.curation.rows import Bench, Curated, Rows
from peftlab.errors import DataError

Run = Callable[..., tuple[Rows, Curated]]


@pytest.fixture
def flipped(tickets: Callable[..., Rows]) -> tuple[Rows, dict[int, int]]:
    """Return 240 tickets with twelve labels flipped, and the true label of each flipped row by its number."""
    rows = tickets()
    labels = rows.labels.copy()
    places = np.random.default_rng(1).permutation(len(rows))[:12]
    labels[places] = (labels[places] + 1) % 3
    truth = {int(rows.numbers[place]): int(rows.labels[place]) for place in places}
    return replace(rows, split=replace(rows.split, labels=labels)), truth


def test_flipped_labels_are_found_and_put_right(flipped: tuple[Rows, dict[int, int]], curate: Run) -> None:
    rows, truth = flipped
    after, done = curate("label_issues", rows)
    flagged = {change.row for change in done.changes}
    assert len(flagged & truth.keys()) >= 0.8 * len(truth)
    assert len(flagged & truth.keys()) >= 0.6 * len(flagged)
    place = {int(number): index for index, number in enumerate(after.numbers)}
    assert [int(after.labels[place[row]]) for row in flagged & truth.keys()] == [
        truth[row] for row in flagged & truth.keys()
    ]
    assert len(after) == len(rows)


def test_the_noise_rate_and_its_ceiling_are_near_the_truth(flipped: tuple[Rows, dict[int, int]], curate: Run) -> None:
    rows, truth = flipped
    noise = curate("label_issues", rows)[1].figures["noise_rate"]
    ceiling = curate("label_issues", rows)[1].figures["ceiling"]
    assert noise["low"] <= len(truth) / len(rows) <= noise["high"]
    assert noise["value"] + ceiling["value"] == pytest.approx(1.0)


def test_flagged_rows_are_dropped_or_weighed_down(flipped: tuple[Rows, dict[int, int]], curate: Run) -> None:
    rows, _ = flipped
    dropped, done = curate("label_issues", rows, action="drop")
    assert len(dropped) == len(rows) - len(done.changes)
    weighed, done = curate("label_issues", rows, action="weight")
    weights = dict(zip(weighed.numbers.tolist(), weighed.split.row_weights().tolist(), strict=True))
    flagged = {change.row for change in done.changes}
    assert all(weights[row] < 0.5 for row in flagged)
    assert {weight for row, weight in weights.items() if row not in flagged} == {1.0}


def test_clean_labels_are_hardly_touched(tickets: Callable[..., Rows], curate: Run) -> None:
    rows = tickets()
    assert len(curate("label_issues", rows)[1].changes) <= 0.01 * len(rows)


def test_a_label_of_one_row_and_a_label_without_rows_do_no_harm(rows_of: Callable[..., Rows], curate: Run) -> None:
    texts = [f"invoice card {word}" for word in "abcdefgh"] + ["parcel courier"]
    after, _ = curate("label_issues", rows_of(texts, [1] * 8 + [0]))
    assert len(after) == 9


def test_the_review_file_is_sorted_by_suspicion_and_carries_out_what_a_person_decides(
    flipped: tuple[Rows, dict[int, int]], curate: Run, bench: Bench
) -> None:
    rows, _ = flipped
    _, done = curate("label_issues", rows)
    suspicions = [row.suspicion for row in done.review]
    assert suspicions == sorted(suspicions, reverse=True)
    write_review(bench.folder / "review", done.review, bench.label_names)
    path = bench.folder / "review.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    first, second, third = (line.split(",") for line in lines[1:4])
    first[6], second[6], third[7] = "keep", "drop", "product"
    path.write_text("\n".join([lines[0], *(",".join(line) for line in (first, second, third))]), encoding="utf-8")

    after, done = curate("label_issues", rows, review="review.csv")
    label = {int(number): bench.label_names[index] for number, index in zip(after.numbers, after.labels, strict=True)}
    assert label[int(first[0])] == first[3]
    assert int(second[0]) not in label
    assert label[int(third[0])] == "product"
    assert len(done.changes) == 2 + (third[3] == "product") * -1
    assert done.figures == {"judge": "review", "reviewed": 3}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (",relabel,", ",maybe,", "decision is 'maybe'; expected one of keep, drop, relabel, weight"),
        (",relabel,", ",relabel,un", "new_label is 'un"),
        (r",t(?=[0-9a-f]{11},)", ",tx", "is not the row that was reviewed"),
        ("check,", "chek,", "lacks the column 'check'"),
    ],
)
def test_a_mistake_in_the_review_file_is_a_sentence_with_its_line(
    flipped: tuple[Rows, dict[int, int]], curate: Run, bench: Bench, old: str, new: str, expected: str
) -> None:
    rows, _ = flipped
    write_review(bench.folder / "review", curate("label_issues", rows)[1].review, bench.label_names)
    path = bench.folder / "review.csv"
    path.write_text(re.sub(old, new, path.read_text(encoding="utf-8"), count=1), encoding="utf-8")
    with pytest.raises(DataError, match=expected) as caught:
        curate("label_issues", rows, review="review.csv")
    assert "review.csv:" in str(caught.value)


def test_a_review_file_that_is_not_there_is_named(tickets: Callable[..., Rows], curate: Run) -> None:
    with pytest.raises(DataError, match=r'no file "gone\.csv"'):
        curate("label_issues", tickets(), review="gone.csv")


def test_the_page_holds_every_row_and_text_cannot_leave_its_place(tmp_path: Path) -> None:
    from peftlab.curation.rows import ReviewRow

    row = ReviewRow(7, "train.csv:8", "a", "b", 0.9, "relabel", '</script><b>"quoted", and\nbroken</b>')
    write_review(tmp_path / "page", [row], ["a", "b"])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "</script><b>" not in page
    assert "\\u003c/script>" in page
    assert [one.row for one in read_review(tmp_path / "page.csv")] == [7]
