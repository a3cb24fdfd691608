"""The expected calibration error, by hand and in simulation."""

from __future__ import annotations

import numpy as np
import pytest

from peftlab.evaluation.calibration import (
    calibration_interval,
    confidence_and_outcome,
    expected_calibration_error,
)


def test_the_error_is_the_gap_of_each_bin_weighted_by_its_rows() -> None:
    # Three rows at 0.9 of which two are right, one row at 0.5 that is wrong: 3/4 * |0.9 - 2/3| + 1/4 * 0.5.
    confidence = np.array([[0.9], [0.9], [0.9], [0.5]])
    outcome = np.array([[1.0], [1.0], [0.0], [0.0]])
    assert expected_calibration_error(confidence, outcome) == pytest.approx(0.75 * (0.9 - 2 / 3) + 0.25 * 0.5)


def test_a_bin_holds_its_upper_end_and_the_first_also_zero() -> None:
    # 1/15 belongs to the first bin with 0: their gaps cancel there and would not in two bins.
    confidence = np.array([[0.0], [1 / 15]])
    assert expected_calibration_error(confidence, np.array([[1 / 15], [0.0]])) == pytest.approx(0.0, abs=1e-12)


def test_single_label_sets_are_judged_by_the_top_class_and_multi_label_sets_by_every_class() -> None:
    chances = np.array([[0.2, 0.8], [0.6, 0.4]])
    confidence, outcome = confidence_and_outcome(chances, np.array([1, 1]), multi_label=False)
    assert (confidence.tolist(), outcome.tolist()) == ([[0.8], [0.6]], [[1.0], [0.0]])
    confidence, outcome = confidence_and_outcome(chances, np.array([[0, 1], [1, 1]]), multi_label=True)
    assert (confidence.tolist(), outcome.tolist()) == (chances.tolist(), [[0.0, 1.0], [1.0, 1.0]])


@pytest.mark.parametrize(("shift", "population"), [(0.0, 0.0), (0.08, 0.08)])
def test_the_interval_covers_the_population_error_of_good_and_bad_calibration(shift: float, population: float) -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(100):
        confidence = generator.uniform(0.3, 1.0, size=(600, 1))
        outcome = (generator.random((600, 1)) < confidence - shift).astype(float)
        interval = calibration_interval(confidence, outcome, resamples=200, seed=trial)
        assert interval.low <= interval.value <= interval.high
        hits += interval.low <= population <= interval.high
    assert hits >= 88


def test_the_interval_has_the_error_itself_as_its_value() -> None:
    generator = np.random.default_rng(3)
    confidence, outcome = generator.random((50, 4)), (generator.random((50, 4)) < 0.5).astype(float)
    interval = calibration_interval(confidence, outcome, resamples=50)
    assert interval.value == pytest.approx(expected_calibration_error(confidence, outcome))
    assert interval.n == 50
