"""Find rows that are probably labelled wrongly, by confident learning; relabel, drop or weigh them down.

A cheap model judges every row without having seen it (out-of-fold probabilities), cleanlab estimates from these how
many labels are wrong (Northcutt, Jiang and Chuang 2021, arXiv 1911.00068), and that many rows are flagged: those to
whose label the model gives the least probability. What it would do stands in a review file, which a person can correct
and feed back (`review`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from peftlab.curation.folds import Judge, features_of, fold_probabilities, single_label
from peftlab.curation.review import change_of, decided
from peftlab.curation.rows import Bench, Curated, ReviewRow, Rows
from peftlab.recipe.records import Record

PACKAGES = ("cleanlab",)
SINGLE_LABEL = True


class Config(Record):
    """Settings of the search for label issues."""

    action: Literal["relabel", "drop", "weight"] = "relabel"
    """`relabel`: to the label that the judge finds likeliest; `drop`; `weight`: count the row by the probability that
    the judge gives its label."""
    judge: Literal["auto", "probe", "tfidf"] = "auto"
    """Out-of-fold model: logistic regression on frozen embeddings or on TF-IDF terms; `auto`: the one whose answers
    agree with more of the labels, where the recipe has an encoder."""
    flag: Literal["cautious", "calibrated"] = "cautious"
    """How many rows: `cautious` counts those that are confidently another class (the confident joint's off-diagonal);
    `calibrated` scales that count up to all rows, which finds more and is wrong more often."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Folds of the out-of-fold model."""
    review: str | None = None
    """CSV that a person has corrected: its decisions are carried out, and no model is asked."""


def checks(config: Config, has_encoder: bool) -> Iterator[tuple[str, str, str | None]]:
    """Yield settings that do not go together: key, what is wrong, what to do."""
    if config.judge == "probe" and not has_encoder:
        yield "judge", "the probe needs an [encoder], and the recipe has none", 'write "tfidf"'


def curate(rows: Rows, config: Config, bench: Bench) -> Curated:
    """Return what is to be done with the flagged rows; with `review` what a person decided."""
    if config.review is not None:
        return decided(rows, config.review, bench)
    labels = single_label(rows)
    judge, probabilities = _best_judge(rows, labels, config, bench)
    order, quality, figures = flagged_rows(labels, probabilities, config.flag)
    likeliest = probabilities.argmax(1)
    review = [
        ReviewRow(
            row=int(rows.numbers[place]),
            id=rows.split.ids[place],
            label=bench.label_names[labels[place]],
            suggested=bench.label_names[likeliest[place]],
            suspicion=1.0 - float(quality[place]),
            decision=config.action,
            text=rows.text(place),
        )
        for place in order.tolist()
    ]
    changes = [
        change_of(
            row, config.action, row.suggested, float(rows.split.row_weights()[place]), "the judge finds it likelier"
        )
        for row, place in zip(review, order.tolist(), strict=True)
    ]
    noise = figures["noise_rate"]
    sentence = (
        f"about {noise['value']:.1%} of {len(rows):,} training labels are wrong (95 % interval {noise['low']:.1%} to "
        f"{noise['high']:.1%}, sampling only; by {judge}); held against labels as noisy as these, even a perfect "
        f"classifier would score {figures['ceiling']['value']:.1%}"
    )
    accuracy = float((likeliest == labels).mean())
    return Curated(changes, {"judge": judge, "judge_accuracy": accuracy, **figures}, (sentence,), review)


def _best_judge(
    rows: Rows, labels: NDArray[np.int64], config: Config, bench: Bench
) -> tuple[Judge, NDArray[np.float64]]:
    """Return the judge and its out-of-fold probabilities, [rows, classes]."""
    judges: tuple[Judge, ...] = ("tfidf",) if bench.embed is None else ("probe", "tfidf")
    if config.judge != "auto":
        judges = (config.judge,)
    found = []
    for judge in judges:
        features = features_of(judge, rows.split.texts, rows.split.pairs, bench)
        given = fold_probabilities(features, labels, len(bench.label_names), folds=config.folds, seed=bench.seed)
        found.append((float((given.argmax(1) == labels).mean()), judge, given))
    _, judge, probabilities = max(found, key=lambda one: one[0])
    return judge, probabilities


def flagged_rows(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], flag: Literal["cautious", "calibrated"]
) -> tuple[NDArray[np.int64], NDArray[np.float64], dict[str, dict[str, float | int]]]:
    """Return the flagged rows, the most suspicious first, the quality of every label [rows], and the noise.

    Quality is the probability of the row's own label. The noise rate is the calibrated joint's mass off the diagonal;
    its interval is Wilson's for that many wrong labels of so many, and says nothing of how good the judge is.
    """
    from cleanlab.count import num_label_issues
    from cleanlab.rank import get_label_quality_scores

    from peftlab.evaluation.intervals import wilson

    # cleanlab knows classes by their place among those that have rows.
    present, encoded = np.unique(labels, return_inverse=True)
    known = probabilities[:, present]
    total = known.sum(1, keepdims=True)
    known = np.where(total > 0, known / np.where(total > 0, total, 1.0), 1.0 / len(present))
    quality = get_label_quality_scores(encoded, known, method="self_confidence")
    counts = {
        name: int(num_label_issues(encoded, known, estimation_method=method))
        for name, method in (("cautious", "off_diagonal"), ("calibrated", "off_diagonal_calibrated"))
    }
    wrong = min(len(labels), counts["calibrated"])
    noise, ceiling = wilson(wrong, len(labels)), wilson(len(labels) - wrong, len(labels))
    # Stable, so that equal qualities keep the order of the rows on every machine; a row that the judge agrees with
    # is never an issue, however few rows it agrees with.
    order = np.argsort(quality, kind="stable")
    order = order[probabilities.argmax(1)[order] != labels[order]][: counts[flag]]
    return order, quality, {"noise_rate": noise.to_dict(), "ceiling": ceiling.to_dict()}
