"""Knowledge distillation: the teachers' probabilities as a second target of every row, and the only one of some.

Loss of a row (Hinton et al. 2015, arXiv 1503.02531, section 2): (1 - w) * loss(label) + w * T^2 * KL(p || q), with p
the mean over the teachers of softmax(logits / T), and q softmax(student's logits / T). A row without a label has the
second term only. Multi-label sets have sigmoids and the mean of the binary divergences in their place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.rows import Split
from peftlab.training.teachers import teacher_logits

if TYPE_CHECKING:
    from torch import Tensor

    from peftlab.recipe.records import Distill
    from peftlab.training.prepare import Found

RowLosses = Callable[[Any, Any], Any]
Probabilities = NDArray[np.float32]


def taught(found: Found, say: Callable[[str], None]) -> tuple[Found, Probabilities | None]:
    """Return `found` with the unlabelled texts behind its training rows, and what the teachers say of each row.

    The second is [rows, labels], None where nobody teaches. With `confidence` only those unlabelled texts are taken of
    whose likeliest label the teachers are as sure, at temperature 1 (self-training, Lee 2013).
    """
    asked, lessons, splits = found.recipe.distill, found.lessons, found.splits
    if asked is None or lessons is None:
        return found, None
    train = splits.train
    on_rows = _mean(found, train.texts, train.pairs, asked.temperature, say)
    if not lessons.unlabelled:
        return found, on_rows
    sure = _mean(found, lessons.unlabelled, None, 1.0, say)
    kept = np.arange(len(sure)) if asked.confidence is None else np.flatnonzero(_certainty(sure) >= asked.confidence)
    if asked.confidence is not None:
        say(f"distill: {len(kept):,} of {len(sure):,} unlabelled texts are labelled with {asked.confidence:g} or more")
    texts = [lessons.unlabelled[row] for row in kept]
    labels = (sure[kept] >= 0.5).astype(np.float32) if splits.multi_label else sure[kept].argmax(1)
    if asked.targets == "hard":
        soft = labels if splits.multi_label else np.eye(sure.shape[1], dtype=np.float32)[labels]
    else:
        soft = _mean(found, lessons.unlabelled, None, asked.temperature, say)[kept]
    ids = [f"unlabelled:{row + 1}" for row in kept]
    extra = Split("train", ids, texts, None, labels.astype(train.labels.dtype))
    whole = replace(splits, train=train.joined(extra)) if len(kept) else splits
    return replace(found, splits=whole), np.concatenate([on_rows, soft.astype(np.float32)])


def _mean(found: Found, texts: Any, pairs: Any, temperature: float, say: Callable[[str], None]) -> NDArray[np.float32]:
    """Return the mean over the teachers of their probabilities at `temperature`, [texts, labels]."""
    if found.lessons is None:
        raise AssertionError("called where somebody teaches")
    names, multi_label = found.splits.label_names, found.splits.multi_label
    parts = [
        _probabilities(teacher_logits(folder, texts, pairs, names, say) / temperature, multi_label=multi_label)
        for folder in found.lessons.teachers
    ]
    return np.asarray(np.stack(parts).mean(axis=0, dtype=np.float64), np.float32)


def _probabilities(logits: NDArray[np.float32], *, multi_label: bool) -> NDArray[np.float32]:
    from peftlab.evaluation.decisions import probabilities

    return np.asarray(probabilities(logits, multi_label=multi_label), np.float32)


def _certainty(chances: NDArray[np.float32]) -> NDArray[np.float32]:
    certain: NDArray[np.float32] = chances.max(axis=1)
    return certain


def taught_targets(labels: NDArray[Any], labelled: int, chances: Probabilities) -> Tensor:
    """Return [rows, 1 + labels' width + classes]: whether a row has a label of its own, that label, the teachers'."""
    import torch

    own = np.arange(len(labels))[:, None] < labelled
    gold = labels[:, None] if labels.ndim == 1 else labels
    return torch.from_numpy(np.concatenate([own, gold, chances], axis=1).astype(np.float32))


def taught_losses(plain: RowLosses, asked: Distill, *, classes: int, multi_label: bool) -> RowLosses:
    """Return the loss of each row, [rows], on targets as `taught_targets` makes them; `plain` is the task's own."""
    import torch

    def losses(logits: Tensor, targets: Tensor) -> Tensor:
        own, chances = targets[:, 0] > 0, targets[:, -classes:]
        gold = targets[:, 1:-classes] if multi_label else targets[:, 1].long()
        second = asked.weight * divergence(logits.float(), chances, asked.temperature, multi_label=multi_label)
        return torch.where(own, (1 - asked.weight) * plain(logits, gold), torch.zeros_like(second)) + second

    return losses


def divergence(logits: Tensor, chances: Tensor, temperature: float, *, multi_label: bool) -> Tensor:
    """Return T^2 KL(chances || student at T) of each row; for multi-label the mean over labels of the binary ones."""
    import torch
    from torch.nn import functional

    scaled = logits / temperature
    if multi_label:
        told = functional.binary_cross_entropy_with_logits(scaled, chances, reduction="none")
        entropy = -(torch.xlogy(chances, chances) + torch.xlogy(1 - chances, 1 - chances))
        return temperature**2 * (told - entropy).mean(1)
    terms = torch.xlogy(chances, chances) - chances * functional.log_softmax(scaled, -1)
    return temperature**2 * terms.sum(1)
