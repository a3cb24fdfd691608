"""How well queries find what answers them: recall, reciprocal rank and nDCG, from embeddings of length 1.

Candidates are ranked by cosine similarity; of equal ones those that do not answer the query stand first, so that no
metric gains by a tie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.match_rows import MatchSplit, relevance
from peftlab.evaluation.intervals import Interval, bootstrap_weighted, percentiles

METRICS = ("recall_at_1", "recall_at_5", "mrr", "ndcg")
RESAMPLES = 1000
_HELD = 2**22  # similarities held at once


@dataclass(frozen=True)
class Embedded:
    """Embeddings of length 1 in fp32: of the queries [rows, hidden size] and of the candidates [candidates, ...]."""

    queries: NDArray[np.float32]
    candidates: NDArray[np.float32]


@dataclass(frozen=True)
class MatchScores:
    """Metrics of one split with their 95 % intervals, and what they depend on."""

    metrics: Mapping[str, Interval]
    facts: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: `metrics` and `facts` as in result.json."""
        return {
            "metrics": {name: interval.to_dict() for name, interval in self.metrics.items()},
            "facts": dict(self.facts),
        }


def similarities(embedded: Embedded) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield cosine similarities, [some rows, candidates], with the place of their first row, in row order."""
    step = max(1, _HELD // max(1, len(embedded.candidates)))
    for start in range(0, len(embedded.queries), step):
        yield start, embedded.queries[start : start + step] @ embedded.candidates.T


def row_metrics(embedded: Embedded, split: MatchSplit) -> NDArray[np.float64]:
    """Return METRICS of each row, [rows, 4]; every row has a candidate that answers it.

    recall_at_k: candidates that answer the query among the first k, of those that there are, of k at most (the capped
    recall of Thakur et al. 2021, arXiv 2104.08663), which with one of them is whether it is among the first k. mrr: 1 /
    rank of the first that answers (Voorhees 1999). ndcg: over the whole ranking, with gains of 0 and 1 (Jaervelin and
    Kekaelaeinen 2002).
    """
    parts = []
    for start, scores in similarities(embedded):
        right = relevance(split, range(start, start + len(scores)))
        order = np.lexsort((right, -scores), axis=1)
        hits = np.take_along_axis(right, order, axis=1).astype(np.float64)
        known, places = hits.sum(1), np.arange(hits.shape[1])
        gains = 1.0 / np.log2(places + 2.0)
        ideal = np.cumsum(gains)[known.astype(np.int64) - 1]
        columns = [
            hits[:, :1].sum(1) / np.minimum(known, 1),
            hits[:, :5].sum(1) / np.minimum(known, 5),
            1.0 / (hits.argmax(1) + 1.0),
            hits @ gains / ideal,
        ]
        parts.append(np.stack(columns, axis=1))
    return np.concatenate(parts)


def point_metrics(embedded: Embedded, split: MatchSplit) -> dict[str, float]:
    """Return METRICS without intervals."""
    return dict(zip(METRICS, map(float, row_metrics(embedded, split).mean(0)), strict=True))


def score_matching(embedded: Embedded, split: MatchSplit, about_candidates: str, *, seed: int = 0) -> MatchScores:
    """Return METRICS with 95 % percentile bootstrap intervals over queries; the candidates are taken as given."""
    rows = row_metrics(embedded, split)
    n = len(rows)
    low, high = percentiles(bootstrap_weighted(lambda drawn: drawn @ rows / n, n, resamples=RESAMPLES, seed=seed))
    values = rows.mean(0)
    metrics = {
        name: Interval(float(values[place]), float(low[place]), float(high[place]), n)
        for place, name in enumerate(METRICS)
    }
    facts = {
        "candidates": about_candidates,
        "intervals": f"percentile bootstrap over queries, {RESAMPLES:,} resamples",
    }
    return MatchScores(MappingProxyType(metrics), MappingProxyType(facts))


def ranking(embedded: Embedded, most: int) -> list[tuple[tuple[int, float], ...]]:
    """Return the `most` candidates nearest to each query, nearest first, as places and cosine similarities."""
    ranked = []
    for _, scores in similarities(embedded):
        order = np.argsort(-scores, axis=1, kind="stable")[:, :most]
        found = np.take_along_axis(scores, order, axis=1)
        ranked += [
            tuple(zip(places, values, strict=True))
            for places, values in zip(order.tolist(), found.tolist(), strict=True)
        ]
    return ranked
