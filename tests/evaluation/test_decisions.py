"""Probabilities, losses and predicted labels from logits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from peftlab.errors import DataError, PeftlabError
from peftlab.evaluation.decisions import decide, negative_log_likelihood, predicted_labels, sigmoid, softmax

EXTREME = np.array([[1e4, -1e4, 0.0], [-745.0, 745.0, 3.0], [0.5, -0.5, 1.5]], np.float32)


def test_probabilities_agree_with_scipy_also_for_extreme_logits() -> None:
    with np.errstate(over="raise", invalid="raise"):
        np.testing.assert_allclose(
            softmax(EXTREME), special.softmax(EXTREME.astype(float), axis=1), rtol=1e-12, atol=1e-300
        )
        np.testing.assert_allclose(sigmoid(EXTREME), special.expit(EXTREME.astype(float)), rtol=1e-12, atol=1e-300)


def test_the_loss_of_a_confident_mistake_is_its_true_amount() -> None:
    losses = negative_log_likelihood(EXTREME, np.array([1, 1, 2]), multi_label=False)
    expected = -special.log_softmax(EXTREME.astype(float), axis=1)[np.arange(3), [1, 1, 2]]
    np.testing.assert_allclose(losses, expected)
    assert losses[0] == pytest.approx(20_000)


def test_the_multi_label_loss_is_the_mean_binary_cross_entropy() -> None:
    labels = np.array([[0, 1, 1], [1, 0, 0], [1, 1, 0]])
    losses = negative_log_likelihood(EXTREME, labels, multi_label=True)
    expected = -stats.logistic.logcdf(np.where(labels == 1, EXTREME, -EXTREME).astype(float)).mean(axis=1)
    np.testing.assert_allclose(losses, expected)


def test_ties_go_to_the_first_class_and_a_probability_at_the_threshold_counts() -> None:
    assert predicted_labels(np.array([[0.4, 0.4, 0.2]]), multi_label=False).tolist() == [0]
    assert predicted_labels(np.array([[0.5, 0.49]]), multi_label=True).tolist() == [[1, 0]]
    assert predicted_labels(np.array([[0.5, 0.2]]), multi_label=True, threshold=0.1).tolist() == [[1, 1]]


def test_what_cannot_be_scored_is_said_in_a_sentence() -> None:
    with pytest.raises(DataError, match="without rows"):
        decide(np.zeros((0, 2)), np.zeros(0, int), multi_label=False)
    with pytest.raises(PeftlabError, match=r"NaN or infinite logits on 1 of 2 rows"):
        decide(np.array([[0.0, np.nan], [0.0, 1.0]]), np.array([0, 1]), multi_label=False)
    with pytest.raises(ValueError, match="do not fit"):
        decide(np.zeros((2, 3)), np.zeros((2, 2)), multi_label=True)
