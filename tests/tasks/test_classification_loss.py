"""The classification losses against their equations."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from peftlab.errors import DataError
from peftlab.tasks.classification import Config, label_weights, row_losses, row_weights

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, -0.3]], requires_grad=True)
TARGETS = torch.tensor([0, 2])


def splits(labels: Any, names: tuple[str, ...] = ("a", "b", "c"), *, multi_label: bool = False) -> Any:
    """Return what the weights read of Splits."""
    return SimpleNamespace(train=SimpleNamespace(labels=labels), label_names=names, multi_label=multi_label)


def test_label_smoothing_mixes_in_the_uniform_distribution() -> None:
    """(1 - e) * loss of the label + e * mean loss of all labels (Szegedy et al. 2016)."""
    logs = LOGITS.log_softmax(-1)
    expected = -(0.9 * logs[torch.arange(2), TARGETS] + 0.1 * logs.mean(-1))

    assert torch.allclose(row_losses(LOGITS, TARGETS, None, Config(label_smoothing=0.1)), expected)


def test_focal_loss_with_gamma_zero_is_cross_entropy_and_else_turns_easy_rows_down() -> None:
    """(1 - p)^gamma times the cross-entropy (Lin et al. 2017)."""
    plain = row_losses(LOGITS, TARGETS, None, Config())
    zero = row_losses(LOGITS, TARGETS, None, Config(loss="focal", focal_gamma=0.0))
    focal = row_losses(LOGITS, TARGETS, None, Config(loss="focal", focal_gamma=2.0))
    likelihood = LOGITS.softmax(-1)[torch.arange(2), TARGETS]

    assert torch.allclose(plain, functional.cross_entropy(LOGITS, TARGETS, reduction="none"))
    assert torch.allclose(zero, plain)
    assert torch.allclose(focal, (1 - likelihood) ** 2 * plain)


def test_multi_label_loss_is_the_mean_over_labels_and_weighs_them() -> None:
    """Binary cross-entropy of each label; weights weigh the labels of one row against each other."""
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    terms = functional.binary_cross_entropy_with_logits(LOGITS, targets, reduction="none")
    weights = torch.tensor([1.0, 2.0, 5.0])

    assert torch.allclose(row_losses(LOGITS, targets, None, Config(multi_label=True)), terms.mean(1))
    assert torch.allclose(row_losses(LOGITS, targets, weights, Config(multi_label=True)), (terms * weights).sum(1) / 8)
    focal = row_losses(LOGITS, targets, None, Config(multi_label=True, loss="focal", focal_gamma=0.0))
    assert torch.allclose(focal, terms.mean(1))


def test_balanced_weights_give_every_label_the_same_total() -> None:
    """Six rows of a, two of b, one of c: each label's rows weigh 3 together."""
    labels = np.array([0] * 6 + [1] * 2 + [2])
    weights = label_weights(Config(class_weights="balanced"), splits(labels))
    assert weights is not None
    rows = row_weights(labels, weights, Config())

    assert [rows[labels == label].sum() for label in range(3)] == pytest.approx([3.0, 3.0, 3.0])
    assert row_weights(labels, None, Config()).tolist() == [1.0] * 9


def test_named_weights_take_one_for_the_others_and_refuse_unknown_labels() -> None:
    """A label that no training row has is a mistake, not ignored."""
    labels = np.array([0, 1, 2])
    weights = label_weights(Config(class_weights={"b": 3.0}), splits(labels))

    assert weights is not None
    assert weights.tolist() == [1.0, 3.0, 1.0]
    with pytest.raises(DataError, match=r"no training row has: \['d'\]; labels are: a, b, c"):
        label_weights(Config(class_weights={"d": 3.0}), splits(labels))


def test_losses_are_in_fp32_whatever_the_logits_are() -> None:
    """bf16 logits of an autocast forward pass are widened first."""
    assert row_losses(LOGITS.bfloat16(), TARGETS, None, Config()).dtype == torch.float32
