"""Strategies against each other on rows whose labels are known: how many labels each needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.evaluation.logistic import solve_probe
from peftlab.labelling.strategies import Pool, Strategy, choose

MOST_ITERATIONS = 100


@dataclass(frozen=True)
class Embedded:
    """Rows as frozen embeddings, fp32 [rows, features], and class indices [rows]."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """Labels at the start (drawn at random, the same for every strategy of a seed), added a round, and at the end.

    `c`: inverse penalty of the probe, the same throughout.
    """

    start: int
    step: int
    most: int
    c: float

    @property
    def sizes(self) -> list[int]:
        """Labels at each point of a curve."""
        return list(range(self.start, self.most + 1, self.step))


def probabilities_of(
    train: Embedded, asked: NDArray[np.float32], classes: int, *, c: float, seed: int = 0
) -> NDArray[np.float64]:
    """Return what a probe on `train` gives each row of `asked`, [rows, classes]; 0 for classes that it never saw."""
    from scipy.special import softmax

    present, encoded = np.unique(train.labels, return_inverse=True)
    probabilities = np.zeros((len(asked), classes))
    if len(present) == 1:
        probabilities[:, present[0]] = 1.0
        return probabilities
    weight, bias = solve_probe(train.features, encoded, c=c, max_iterations=MOST_ITERATIONS, seed=seed)
    probabilities[:, present] = softmax((asked @ weight.T + bias).astype(np.float64), axis=1)
    return probabilities


def simulate(
    strategy: Strategy,
    pool: Embedded,
    held_out: Sequence[Embedded],
    plan: Plan,
    *,
    classes: int,
    seed: int,
    say: Callable[[str], None] = lambda _: None,
) -> list[NDArray[np.bool_]]:
    """Label the pool as `strategy` would, and return for each of `held_out` who was right, [points, rows]."""
    order = np.random.default_rng(seed).permutation(len(pool.labels))
    labelled = order[: plan.start]
    everything = np.concatenate([pool.features, *(one.features for one in held_out)])
    ends = np.cumsum([len(pool.labels), *(len(one.labels) for one in held_out)])
    points: list[list[NDArray[np.bool_]]] = [[] for _ in held_out]
    for size, next_size in zip(plan.sizes, [*plan.sizes[1:], 0], strict=True):
        train = Embedded(pool.features[labelled], pool.labels[labelled])
        of_pool, *of_held_out = np.split(probabilities_of(train, everything, classes, c=plan.c), ends[:-1])
        for rows, given, one in zip(points, of_held_out, held_out, strict=True):
            rows.append(given.argmax(1) == one.labels)
        say(f"{strategy} seed {seed}: {size} labels, {points[0][-1].mean():.4f}")
        if not next_size:
            break
        rest = np.setdiff1d(order, labelled)
        next_rows = choose(strategy, Pool(pool.features[rest], of_pool[rest]), next_size - size, seed=seed + size)
        labelled = np.concatenate([labelled, rest[next_rows]])
    return [np.stack(rows) for rows in points]


def labels_needed(sizes: Sequence[int], accuracy: NDArray[np.float64], wanted: float) -> float | None:
    """Return the labels at which the curve reaches `wanted`, between points by straight lines; None where it does not.

    The curve is first made to rise throughout (isotonic regression): a single lucky point does not count as reached.
    """
    from sklearn.isotonic import IsotonicRegression

    risen: Any = IsotonicRegression().fit_transform(np.asarray(sizes, np.float64), accuracy)
    above = np.flatnonzero(risen >= wanted)
    if not len(above):
        return None
    place = int(above[0])
    if place == 0:
        return float(sizes[0])
    low, high = risen[place - 1], risen[place]
    return float(sizes[place - 1] + (wanted - low) / (high - low) * (sizes[place] - sizes[place - 1]))
