"""The probe's solution against scikit-learn on raw features, and the choice of its penalty."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from peftlab.evaluation.logistic import solve_probe
from peftlab.training.linear_probe import choose_probe

DRAW = np.random.default_rng(0)
FEATURES = (DRAW.normal(size=(120, 6)) * [1, 5, 0.1, 1, 1, 0] + [0, 3, 0, -2, 0, 7]).astype(np.float32)
THREE = np.argmax(FEATURES[:, :3] / [1, 5, 0.1] + DRAW.normal(size=(120, 3)), axis=1)


def test_weight_and_bias_apply_to_raw_features() -> None:
    """The standardisation is folded in; a constant feature divides by nothing."""
    weight, bias = solve_probe(FEATURES, THREE, c=0.5, max_iterations=1000, seed=0)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=1000)).fit(FEATURES, THREE)

    assert np.allclose(FEATURES @ weight.T + bias, model.decision_function(FEATURES), atol=1e-3)


def test_a_feature_that_varies_by_rounding_alone_gets_no_weight() -> None:
    """MiniLM has one, of deviation 2e-9: divided by it, the head had a weight of 1e8 and full fine-tuning diverged."""
    noise = (DRAW.normal(size=(120, 2)) * [2e-9, 1e-7] + [0, 0.4]).astype(np.float32)
    features = np.concatenate([FEATURES, noise], axis=1)
    weight, _ = solve_probe(features, THREE, c=0.5, max_iterations=1000, seed=0)
    without, _ = solve_probe(FEATURES, THREE, c=0.5, max_iterations=1000, seed=0)

    assert not weight[:, 6:].any()
    assert np.allclose(weight[:, :6], without, atol=1e-4)


def test_rows_of_hardly_any_weight_are_as_good_as_absent() -> None:
    """Every row twice, so that mean and deviation are the same; the copy with the wrong label weighs nothing."""
    features, labels = np.concatenate([FEATURES, FEATURES]), np.concatenate([THREE, (THREE + 1) % 3])
    weights = np.repeat([1.0, 1e-6], 120).astype(np.float32)
    alone, _ = solve_probe(FEATURES, THREE, c=0.5, max_iterations=1000, seed=0)
    weighed, _ = solve_probe(features, labels, c=0.5, max_iterations=1000, seed=0, weights=weights)
    even, _ = solve_probe(features, labels, c=0.5, max_iterations=1000, seed=0)

    assert np.allclose(weighed, alone, atol=1e-2)
    assert not np.allclose(even, alone, atol=0.1)


def test_two_classes_give_two_opposite_rows() -> None:
    """Their softmax is the logistic of scikit-learn's one row."""
    labels = (THREE == 1).astype(np.int64)
    weight, bias = solve_probe(FEATURES, labels, c=0.5, max_iterations=1000, seed=0)
    logits = FEATURES @ weight.T + bias
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=1000)).fit(FEATURES, labels)

    assert np.allclose(weight[0], -weight[1])
    assert np.allclose(logits[:, 1] - logits[:, 0], model.decision_function(FEATURES), atol=1e-3)


def test_a_label_that_no_row_or_every_row_has_is_a_constant() -> None:
    """In multi-label sets; scikit-learn would refuse it."""
    labels = np.stack([THREE == 1, np.zeros(120), np.ones(120)], axis=1).astype(np.float32)
    weight, bias = solve_probe(FEATURES, labels, c=0.5, max_iterations=1000, seed=0)

    assert not weight[1:].any()
    assert bias[1] < -5 < 5 < bias[2]


def test_the_penalty_is_chosen_on_validation_and_ties_take_the_stronger_one() -> None:
    """A named one is not searched."""
    splits: Any = SimpleNamespace(
        train=SimpleNamespace(labels=THREE, weights=None),
        validation=SimpleNamespace(labels=THREE[:30]),
        multi_label=False,
    )
    chosen = choose_probe(FEATURES, FEATURES[:30], splits, c="auto", seed=0)
    accuracies = {
        c: choose_probe(FEATURES, FEATURES[:30], splits, c=c, seed=0).accuracy for c in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    }

    assert chosen.accuracy == max(accuracies.values())
    assert chosen.c == min(c for c, accuracy in accuracies.items() if accuracy == chosen.accuracy)
