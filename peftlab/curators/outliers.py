"""Find rows that lie far from all others: foreign text, boilerplate, slips of the export; report or drop them.

A row's distance is the mean cosine distance to its nearest neighbours among the training rows (Ramaswamy, Rastogi and
Shim 2000, in the averaged form), on frozen embeddings or TF-IDF terms.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from peftlab.curation.folds import chosen_judge, features_of
from peftlab.curation.review import decided
from peftlab.curation.rows import Bench, Change, Curated, ReviewRow, Rows
from peftlab.recipe.records import Positive, Record

PACKAGES = ()
SINGLE_LABEL = False


class Config(Record):
    """Settings of the search for outliers."""

    action: Literal["report", "drop"] = "report"
    """`report`: write them into the review file and change nothing; `drop`."""
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.01
    """Share of the rows that is taken, those farthest from their neighbours."""
    neighbours: Positive = 10
    """Nearest neighbours over which the distance is averaged."""
    space: Literal["auto", "probe", "tfidf"] = "auto"
    """`probe`: frozen embeddings; `tfidf`: terms; `auto`: `probe` where the recipe has an encoder."""
    review: str | None = None
    """CSV that a person has corrected: its decisions are carried out, and nothing is measured."""


def checks(config: Config, has_encoder: bool) -> Iterator[tuple[str, str, str | None]]:
    """Yield settings that do not go together: key, what is wrong, what to do."""
    if config.space == "probe" and not has_encoder:
        yield "space", "embeddings need an [encoder], and the recipe has none", 'write "tfidf"'


def curate(rows: Rows, config: Config, bench: Bench) -> Curated:
    """Return the farthest rows, to look at or to drop."""
    if config.review is not None:
        return decided(rows, config.review, bench)
    space = chosen_judge(config.space, bench)
    distance = _distances(features_of(space, rows.split.texts, rows.split.pairs, bench), config.neighbours)
    farthest = np.argsort(-distance, kind="stable")[: round(config.share * len(rows))].tolist()
    review = [
        ReviewRow(
            row=int(rows.numbers[place]),
            id=rows.split.ids[place],
            label="|".join(bench.labels_of(rows, place)),
            suggested="|".join(bench.labels_of(rows, place)),
            suspicion=float(np.clip(distance[place], 0.0, 1.0)),
            decision="drop" if config.action == "drop" else "keep",
            text=rows.text(place),
        )
        for place in farthest
    ]
    why = f"far from its {config.neighbours} nearest neighbours"
    changes = [
        Change("drop", int(rows.numbers[place]), why, score=round(float(distance[place]), 6))
        for place in (farthest if config.action == "drop" else [])
    ]
    figures = {"space": space, "median_distance": float(np.median(distance)), "farthest": float(distance.max())}
    return Curated(changes, figures, review=review)


def _distances(features: Any, neighbours: int) -> NDArray[np.float64]:
    """Return the mean cosine distance of each row to its nearest other rows, [rows]."""
    from sklearn.neighbors import NearestNeighbors

    count = min(neighbours, features.shape[0] - 1)
    search = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute").fit(features)
    # Asked without texts, a row is not its own neighbour.
    distances, _ = search.kneighbors()
    return np.asarray(distances.mean(1), np.float64)
