"""Standard errors of ROC-AUC and average precision against numerical derivatives and resampling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from peftlab.evaluation.intervals import on_logit_scale
from peftlab.evaluation.ranking import (
    Derivative,
    average_precision_derivative,
    macro_standard_error,
    rankable,
    roc_auc_derivative,
)

CASES = [
    pytest.param(roc_auc_derivative, roc_auc_score, id="roc_auc"),
    pytest.param(average_precision_derivative, average_precision_score, id="average_precision"),
]


def draw(n: int, seed: int, decimals: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    gold = generator.random(n) < 0.3
    scores = generator.normal(size=n) + 1.2 * gold
    return gold, scores if decimals is None else scores.round(decimals)


@pytest.mark.parametrize("decimals", [None, 0], ids=["distinct", "ties"])
@pytest.mark.parametrize(("derivative", "score"), CASES)
def test_the_derivative_is_that_of_scikit_learns_weighted_score(
    derivative: Derivative, score: Callable[..., float], decimals: int | None
) -> None:
    gold, scores = draw(60, 0, decimals)
    step = 1e-6
    numerical = []
    for row in range(60):
        weights = np.ones(60)
        weights[row] += step
        above = score(gold, scores, sample_weight=weights)
        weights[row] -= 2 * step
        numerical.append((above - score(gold, scores, sample_weight=weights)) / (2 * step))
    np.testing.assert_allclose(derivative(gold, scores), numerical, atol=1e-6)


@pytest.mark.parametrize(("derivative", "score"), CASES)
def test_the_interval_covers_the_population_value_about_95_percent_of_the_time(
    derivative: Derivative, score: Callable[..., float]
) -> None:
    population = score(*draw(1_000_000, 99))
    hits = 0
    for trial in range(300):
        gold, scores = draw(300, trial)
        error = macro_standard_error(gold[:, None], scores[:, None], derivative)
        interval = on_logit_scale(float(score(gold, scores)), error, 300)
        hits += interval.low <= population <= interval.high
    assert 0.91 <= hits / 300 <= 0.985


def test_a_class_that_every_row_or_no_row_has_cannot_be_ranked() -> None:
    _, _, ranked = rankable(np.array([0, 0, 2]), np.zeros((3, 4)))
    assert ranked.tolist() == [True, False, True, False]
    _, _, ranked = rankable(np.array([[1, 0, 1], [1, 0, 0]]), np.zeros((2, 3)))
    assert ranked.tolist() == [False, False, True]
