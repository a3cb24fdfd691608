"""Two models on the same rows, against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from peftlab.evaluation.agreement import logit_difference, rows_right


def test_drift_and_flips_are_counted() -> None:
    before = np.asarray([[1.0, 0.0], [0.0, 2.0], [-4.0, 1.0]], np.float32)
    after = np.asarray([[1.0, 0.5], [0.0, -2.0], [-4.0, 1.0]], np.float32)
    found = logit_difference(before, after, ([0, 1, 1], [0, 0, 1]))

    assert (found.max, found.flips, found.rows, found.largest) == (4.0, 1, 3, 4.0)
    assert found.mean == pytest.approx(4.5 / 6)


def test_a_multi_label_row_flips_with_any_of_its_labels() -> None:
    before = np.asarray([[1.0, -1.0], [1.0, 1.0]])
    after = np.asarray([[1.0, 1.0], [1.0, 0.9]])

    assert logit_difference(before, after, ((before > 0).tolist(), (after > 0).tolist())).flips == 1
    right = rows_right(after, np.asarray([[1.0, 0.0], [1.0, 1.0]]), multi_label=True, threshold=0.5)
    assert right.tolist() == [False, True]


def test_nan_is_an_infinite_difference() -> None:
    assert logit_difference(np.zeros((1, 2)), np.asarray([[0.0, np.nan]]), ([0], [0])).max == np.inf
