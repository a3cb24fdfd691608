"""What more labels would bring: a learning curve, drawn on from the labels that are there.

Accuracy is taken to follow a - b * n ** -c in the number n of labels, the power law that learning curves keep to over a
middle range (Viering and Loog 2023, arXiv 2103.10948, section 3). It says nothing of what another encoder would do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peftlab.evaluation.intervals import Interval

_POWERS = np.linspace(0.1, 1.5, 29)
SHARES = (0.2, 0.35, 0.5, 0.7, 1.0)
"""Shares of the labels on which the curve is measured."""

Fit = Callable[[NDArray[np.int64]], NDArray[np.bool_]]
"""From the places of some training rows to whether a model trained on them is right on each held-out row."""


@dataclass(frozen=True)
class Curve:
    """A learning curve as measured: `sizes` [points]; `right` [points, rows], draws of a size being points of it."""

    sizes: NDArray[np.int64]
    right: NDArray[np.bool_]


def measure_curve(rows: int, fit: Fit, *, shares: Sequence[float] = SHARES, draws: int = 3, seed: int = 0) -> Curve:
    """Train on shares of `rows` training rows, each share `draws` times with other rows, all rows once."""
    random = np.random.default_rng(seed)
    sizes, right = [], []
    for share in shares:
        size = max(2, round(share * rows))
        for _ in range(draws if size < rows else 1):
            places = np.sort(random.permutation(rows)[:size])
            sizes.append(size)
            right.append(fit(places))
    return Curve(np.asarray(sizes), np.stack(right))


def gain_of_more(curve: Curve, more: int, *, resamples: int = 500, seed: int = 0, confidence: float = 0.95) -> Interval:
    """Return the accuracy that `more` labels would add to the largest size measured, as the power law has it.

    The interval is from resampling the held-out rows and, within each size, the draws. It holds if the curve goes on as
    it did; that it may bend is not in it.
    """
    largest = int(curve.sizes.max())
    random = np.random.default_rng(seed)
    rows = curve.right.shape[1]
    by_size = [np.flatnonzero(curve.sizes == size) for size in np.unique(curve.sizes)]
    gains = np.empty(resamples)
    for number in range(resamples):
        counts = np.bincount(random.integers(0, rows, rows), minlength=rows)
        points = np.concatenate([random.choice(points, len(points)) for points in by_size])
        accuracy = curve.right[points] @ counts / rows
        gains[number] = _gain(curve.sizes[points], accuracy, largest, more)
    low, high = np.quantile(gains, [(1 - confidence) / 2, (1 + confidence) / 2])
    value = _gain(curve.sizes, curve.right.mean(1), largest, more)
    return Interval(value, float(low), float(high), rows)


def gain_sentence(more: int, gain: Interval) -> str:
    """Return `200 more labels: +0.8 points (0.3 to 1.2)`."""
    return f"{more:,} more labels: {100 * gain.value:+.1f} points ({100 * gain.low:.1f} to {100 * gain.high:.1f})"


def _gain(sizes: NDArray[np.int64], accuracy: NDArray[np.float64], largest: int, more: int) -> float:
    """Return b * (n ** -c - (n + more) ** -c) of the power law that is nearest to the points in squared error.

    For a given power the rest is a straight line in n ** -c. A curve that falls is taken as flat: more labels do not
    make a model worse in the long run, and a drawn-out fall would be a guess about noise.
    """
    best, gain = np.inf, 0.0
    for power in _POWERS:
        shape = sizes.astype(np.float64) ** -power
        spread = shape - shape.mean()
        slope = min(0.0, float(spread @ (accuracy - accuracy.mean())) / float(spread @ spread))
        error = float(((accuracy - accuracy.mean() - slope * spread) ** 2).sum())
        if error < best - 1e-15:
            best = error
            gain = -slope * (largest**-power - (largest + more) ** -power)
    # No accuracy passes 1, wherever the law may lead.
    return min(gain, 1.0 - float(accuracy[sizes == largest].mean()))
