"""Rows as the rest of peftlab sees them: splits of texts with encoded labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from peftlab.data.kept import Joined

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Split:
    """The rows of one split, in file order.

    `labels`: int64 class indices, shape [rows]; for multi-label sets float32 zeros and ones, shape [rows, classes].
    `ids`: a name for each row that a person can find it by: the id column, else ``<file name>:<line>``.
    `weights` [rows], fp32: what each training row counts in the mean of the loss, where curators say it; else None.
    """

    name: SplitName
    ids: Sequence[str]
    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: NDArray[Any]
    weights: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def joined(self, other: Split) -> Split:
        """Return this split with the rows of `other` behind its own."""
        pairs = None if self.pairs is None or other.pairs is None else Joined(self.pairs, other.pairs)
        labels = np.concatenate([self.labels, other.labels])
        weights = None
        if self.weights is not None or other.weights is not None:
            weights = np.concatenate([split.row_weights() for split in (self, other)])
        ids, texts = Joined(self.ids, other.ids), Joined(self.texts, other.texts)
        return Split(self.name, ids, texts, pairs, labels, weights)

    def row_weights(self) -> NDArray[np.float32]:
        """Return `weights`, ones where there are none, [rows]."""
        return np.ones(len(self), np.float32) if self.weights is None else self.weights


@dataclass(frozen=True)
class Splits:
    """The three splits of one run, with what was found in them.

    `label_names`: sorted; index = class index. `source`: what was asked for and what was used (files with SHA-256).
    `fingerprint`: SHA-256 over ids, texts, pairs and labels of the three splits. `report`: as in `data_report.json`.
    """

    train: Split
    validation: Split
    test: Split
    label_names: tuple[str, ...]
    multi_label: bool
    source: Mapping[str, Any]
    fingerprint: str
    report: Mapping[str, Any]
