"""`outliers` finds the row that is like no other; `balance` evens out the classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from peftlab.curation.review import write_review
from peftlab.curation.rows import Bench, Curated, Rows

Run = Callable[..., tuple[Rows, Curated]]


def test_the_row_that_is_like_no_other_is_reported_first_and_dropped_where_asked(
    rows_of: Callable[..., Rows], tickets: Callable[..., Rows], curate: Run
) -> None:
    known = tickets(rows=59)
    rows = rows_of([*known.split.texts, "lorem ipsum dolor sit"], [*known.labels.tolist(), 0])
    after, done = curate("outliers", rows, share=0.05)
    assert len(after) == 60
    assert (done.review[0].row, done.review[0].decision) == (60, "keep")
    assert len(done.review) == 3
    after, _ = curate("outliers", rows, share=0.02, action="drop")
    assert after.numbers.tolist() == list(range(1, 60))


def test_what_a_person_decides_about_outliers_is_carried_out(
    tickets: Callable[..., Rows], curate: Run, bench: Bench
) -> None:
    rows = tickets(rows=60)
    review = curate("outliers", rows, share=0.05)[1].review
    write_review(bench.folder / "far", [replace(review[0], decision="drop"), *review[1:]], bench.label_names)
    after, done = curate("outliers", rows, review="far.csv")
    assert [change.row for change in done.changes] == [review[0].row]
    assert len(after) == 59


@pytest.fixture
def uneven(rows_of: Callable[..., Rows]) -> Rows:
    """Return 16, 4 and 1 rows of three classes."""
    labels = [0] * 16 + [1] * 4 + [2]
    return rows_of([f"text {number}" for number in range(21)], labels)


@pytest.mark.parametrize(
    ("how", "strength", "counts"),
    [
        ("oversample", 1.0, [16, 16, 16]),
        ("oversample", 0.5, [16, 8, 4]),
        ("undersample", 1.0, [1, 1, 1]),
        ("undersample", 0.5, [4, 2, 1]),
    ],
)
def test_classes_end_with_the_rows_that_were_asked_for(
    uneven: Rows, curate: Run, how: str, strength: float, counts: list[int]
) -> None:
    after, _ = curate("balance", uneven, how=how, strength=strength)
    assert np.bincount(after.labels).tolist() == counts


def test_no_row_is_repeated_twice_before_every_row_of_its_class_is_repeated_once(uneven: Rows, curate: Run) -> None:
    after, _ = curate("balance", uneven)
    assert set(Counter(text for text, label in zip(after.split.texts, after.labels, strict=True) if label == 1)) == {
        "text 16",
        "text 17",
        "text 18",
        "text 19",
    }
    assert set(Counter(after.split.texts[place] for place in np.flatnonzero(after.labels == 1)).values()) == {4}


def test_balanced_weights_give_every_class_the_same_sum_and_rows_a_mean_of_one(uneven: Rows, curate: Run) -> None:
    after, _ = curate("balance", uneven, how="weight")
    weights = after.split.row_weights()
    sums = [float(weights[after.labels == label].sum()) for label in range(3)]
    assert sums == pytest.approx([7.0] * 3)
    assert float(weights.mean()) == pytest.approx(1.0)
    assert len(after) == len(uneven)
