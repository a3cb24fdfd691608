"""A learning curve drawn on gives the gain that the same law gives, and never a loss."""

from __future__ import annotations

import numpy as np
import pytest

from peftlab.evaluation.intervals import Interval
from peftlab.labelling.curve import Curve, gain_of_more, gain_sentence, measure_curve


def by_law(sizes: list[int], rows: int = 4000) -> Curve:
    """Return a curve of accuracy 0.95 - 2 / sqrt(n), with rows that become right in a fixed order."""
    accuracy = 0.95 - 2.0 / np.sqrt(np.asarray(sizes))
    hard = np.random.default_rng(0).permutation(rows) / rows
    return Curve(np.asarray(sizes), hard[None, :] < accuracy[:, None])


def test_the_gain_is_that_of_the_law_behind_the_points() -> None:
    gain = gain_of_more(by_law([200, 350, 500, 700, 1000]), 1000)
    truth = 2.0 / np.sqrt(1000) - 2.0 / np.sqrt(2000)
    assert gain.value == pytest.approx(truth, abs=0.003)
    assert gain.low < truth < gain.high
    assert gain.n == 4000


def test_a_falling_curve_promises_nothing_and_a_perfect_one_too() -> None:
    right = np.zeros((3, 50), bool)
    right[0, :40], right[1, :35], right[2, :30] = True, True, True
    assert gain_of_more(Curve(np.asarray([100, 200, 300]), right), 100).value == 0.0
    perfect = np.ones((3, 50), bool)
    perfect[0, :20] = False
    assert gain_of_more(Curve(np.asarray([10, 200, 300]), perfect), 10_000).high <= 1e-12


def test_more_labels_never_bring_less() -> None:
    curve = by_law([200, 350, 500, 700, 1000])
    gains = [gain_of_more(curve, more, resamples=10).value for more in (50, 200, 800, 5000)]
    assert gains == sorted(gains)


def test_a_curve_is_measured_on_shares_of_the_rows() -> None:
    seen: list[int] = []

    def fit(places: np.ndarray) -> np.ndarray:
        assert len(set(places.tolist())) == len(places)
        seen.append(len(places))
        return np.ones(7, bool)

    curve = measure_curve(100, fit, shares=(0.2, 0.5, 1.0), draws=2)
    assert seen == [20, 20, 50, 50, 100]
    assert curve.right.shape == (5, 7)


def test_the_sentence_is_in_points() -> None:
    assert gain_sentence(200, Interval(0.008, 0.003, 0.012, 500)) == "200 more labels: +0.8 points (0.3 to 1.2)"
