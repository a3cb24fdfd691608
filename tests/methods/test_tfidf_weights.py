"""TF-IDF takes the weights of training rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from peftlab.data.rows import Split, Splits
from peftlab.methods.tfidf import Config, fit, logits


def splits_of(labels: list[int], weights: list[float] | None) -> Splits:
    """Return one text under two labels, and another label that nothing disputes."""
    texts = ["where is my card", "where is my card", "where is my parcel", "late parcel"]
    train = Split(
        "train",
        list("1234"),
        texts,
        None,
        np.asarray(labels),
        None if weights is None else np.asarray(weights, np.float32),
    )
    held = replace(train, name="validation", weights=None)
    return Splits(train, held, replace(held, name="test"), ("a", "b", "c"), False, {}, "", {})


def test_the_heavier_of_two_contradicting_rows_wins() -> None:
    for weights, expected in (([1.0, 0.1, 1.0, 1.0], 0), ([0.1, 1.0, 1.0, 1.0], 1)):
        splits = splits_of([0, 1, 2, 2], weights)
        model = fit(splits, Config(), seed=0)
        assert logits(model, ["where is my card"], None).argmax(1).tolist() == [expected]


def test_weights_of_one_are_no_weights() -> None:
    ones, none = (fit(splits_of([0, 1, 2, 2], weights), Config(), seed=0) for weights in ([1.0] * 4, None))
    assert np.array_equal(ones.weight, none.weight)
