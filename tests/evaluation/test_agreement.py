"""Two models on the same rows, against counts by hand and the exact binomial."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from peftlab.evaluation.agreement import logit_difference, mcnemar_p, rows_right


def test_drift_and_flips_are_counted() -> None:
    before = np.asarray([[1.0, 0.0], [0.0, 2.0], [-4.0, 1.0]], np.float32)
    after = np.asarray([[1.0, 0.5], [0.0, -2.0], [-4.0, 1.0]], np.float32)
    found = logit_difference(before, after, multi_label=False)

    assert (found.max, found.flips, found.rows, found.largest) == (4.0, 1, 3, 4.0)
    assert found.mean == pytest.approx(4.5 / 6)


def test_a_multi_label_row_flips_with_any_of_its_labels() -> None:
    before = np.asarray([[1.0, -1.0], [1.0, 1.0]])
    after = np.asarray([[1.0, 1.0], [1.0, 0.9]])

    assert logit_difference(before, after, multi_label=True).flips == 1
    right = rows_right(after, np.asarray([[1.0, 0.0], [1.0, 1.0]]), multi_label=True, threshold=0.5)
    assert right.tolist() == [False, True]


def test_nan_is_an_infinite_difference() -> None:
    assert logit_difference(np.zeros((1, 2)), np.asarray([[0.0, np.nan]]), multi_label=False).max == np.inf


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 3), (1, 9), (9, 1), (0, 6)])
def test_mcnemar_is_the_exact_two_sided_binomial(first: int, second: int) -> None:
    n = first + second
    chances = [comb(n, k) / 2**n for k in range(n + 1)]
    expected = min(1.0, 2 * sum(chances[: min(first, second) + 1])) if n else 1.0

    assert mcnemar_p(first, second) == pytest.approx(expected)
