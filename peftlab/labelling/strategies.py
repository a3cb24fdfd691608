"""Which rows of a pool to label next.

Each strategy sees the pool's frozen embeddings and what the present probe thinks of each row, never a label of the
pool. All are pool-based and choose a whole batch at once (Settles 2009, sections 2.3 and 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Strategy = Literal["random", "uncertainty", "margin", "diversity", "margin_diversity", "badge"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
ABOUT: dict[Strategy, str] = {
    "random": "drawn at random: what the others have to beat",
    "uncertainty": "highest entropy of the predicted probabilities",
    "margin": "smallest gap between the two likeliest labels (Scheffer et al. 2001)",
    "diversity": "k-means on the embeddings, the row nearest to each centre",
    "margin_diversity": "k-means among the rows of smallest margin, ten times as many as asked (Zhdanov 2019)",
    "badge": "k-means++ on the gradients of the last layer (BADGE, Ash et al. 2020)",
}
_SHORTLIST = 10
"""How many rows of small margin `margin_diversity` clusters for each row that it takes (Zhdanov 2019, section 4)."""


@dataclass(frozen=True)
class Pool:
    """Unlabelled rows: frozen embeddings [rows, features] and the probe's probabilities [rows, labels]."""

    features: NDArray[np.float32]
    probabilities: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.features)


def choose(strategy: Strategy, pool: Pool, count: int, *, seed: int) -> NDArray[np.int64]:
    """Return the places of `count` different rows of `pool` to label next; all of them where there are no more."""
    count = min(count, len(pool))
    random = np.random.default_rng(seed)
    if strategy == "random":
        return random.permutation(len(pool))[:count]
    if strategy == "uncertainty":
        return _first(-_entropy(pool.probabilities), count)
    if strategy == "margin":
        return _first(_margin(pool.probabilities), count)
    if strategy == "diversity":
        return _nearest_to_centres(_unit(pool.features), None, count, seed)
    if strategy == "margin_diversity":
        shortlist = _first(_margin(pool.probabilities), count * _SHORTLIST)
        doubt = 1.0 - _margin(pool.probabilities)[shortlist]
        return np.asarray(shortlist[_nearest_to_centres(_unit(pool.features[shortlist]), doubt, count, seed)])
    return _badge(pool, count, random)


def _entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    safe = np.clip(probabilities, 1e-12, 1.0)
    return np.asarray(-(safe * np.log(safe)).sum(1))


def _margin(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(two[:, 1] - two[:, 0])


def _first(values: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    return np.asarray(np.argsort(values, kind="stable")[:count], np.int64)


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-12), np.float32)


def _nearest_to_centres(
    features: NDArray[np.float32], weights: NDArray[np.float64] | None, count: int, seed: int
) -> NDArray[np.int64]:
    """Return one row for each of `count` clusters, the nearest to its centre; no row twice."""
    from sklearn.cluster import MiniBatchKMeans

    if count >= len(features):
        return np.arange(len(features))
    # A few passes: centres that are a little off still lie apart, and a pool may have many thousand rows.
    size = max(1024, count)
    model = MiniBatchKMeans(n_clusters=count, random_state=seed, n_init=1, max_iter=5, batch_size=size)
    model.fit(features, sample_weight=weights)
    distance = model.transform(features)
    chosen: list[int] = []
    taken = np.zeros(len(features), bool)
    for centre in range(count):
        place = int(np.where(taken, np.inf, distance[:, centre]).argmin())
        taken[place] = True
        chosen.append(place)
    return np.asarray(chosen, np.int64)


def _badge(pool: Pool, count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw rows by k-means++ on the loss gradient of the head, had each row the label that the probe predicts.

    That gradient is the outer product of (probabilities - one-hot) and the embedding, so products of two gradients are
    those of their factors, and the large matrix is never made.
    """
    residual = pool.probabilities.copy()
    residual[np.arange(len(pool)), pool.probabilities.argmax(1)] -= 1.0
    features = _unit(pool.features).astype(np.float64)
    norms = (residual**2).sum(1) * (features**2).sum(1)
    chosen = [int(norms.argmax())]
    nearest = np.full(len(pool), np.inf)
    while len(chosen) < count:
        last = chosen[-1]
        products = (residual @ residual[last]) * (features @ features[last])
        nearest = np.minimum(nearest, np.maximum(norms + norms[last] - 2.0 * products, 0.0))
        nearest[chosen] = 0.0
        total = nearest.sum()
        if total <= 0.0:
            # Every row left has the gradient of one that is chosen: any of them will do.
            left = np.setdiff1d(np.arange(len(pool)), chosen)
            chosen += random.permutation(left)[: count - len(chosen)].tolist()
            break
        chosen.append(int(random.choice(len(pool), p=nearest / total)))
    return np.asarray(chosen, np.int64)
