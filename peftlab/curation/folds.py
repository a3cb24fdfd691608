"""Out-of-fold probabilities: what a cheap model that has not seen a row thinks of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from peftlab.curation.rows import Bench, Rows
from peftlab.evaluation.logistic import solve_probe

Judge = Literal["probe", "tfidf"]

PROBE_C = 0.01
"""Inverse penalty of the probe on standardised embeddings."""
TFIDF_C = 3.0
"""Inverse penalty of the logistic regression on TF-IDF terms, whose rows have length 1."""
MOST_ITERATIONS = 300


def chosen_judge(asked: Literal["auto", "probe", "tfidf"], bench: Bench) -> Judge:
    """Return the model that judges: for `auto` the probe where the recipe has an encoder."""
    if asked != "auto":
        return asked
    return "probe" if bench.embed is not None else "tfidf"


def features_of(judge: Judge, texts: Sequence[str], pairs: Sequence[str] | None, bench: Bench) -> Any:
    """Return what `judge` reads of each text: dense embeddings or sparse TF-IDF terms, [texts, features].

    Terms are character 1- to 3-grams where the texts are mostly Chinese, Japanese or Korean, else words and pairs of
    them. They are weighted by how many of these texts have them, labels unseen.
    """
    if judge == "probe":
        if bench.embed is None:
            raise AssertionError("the recipe is checked to have an encoder")
        return bench.embed(texts, pairs)
    from sklearn.feature_extraction.text import TfidfVectorizer

    joined = (
        list(texts) if pairs is None else [f"{text} \u241e {pair}" for text, pair in zip(texts, pairs, strict=True)]
    )
    letters = mostly_cjk(joined)
    vectorizer = TfidfVectorizer(
        analyzer="char" if letters else "word",
        ngram_range=(1, 3) if letters else (1, 2),
        sublinear_tf=True,
    )
    return vectorizer.fit_transform(joined)


def mostly_cjk(texts: Sequence[str]) -> bool:
    """Say whether over a fifth of the letters of the first 1,000 texts are Chinese, Japanese or Korean."""
    letters = [letter for text in texts[:1000] for letter in text if letter.isalpha()]
    return sum(is_cjk(letter) for letter in letters) > 0.2 * len(letters)


def is_cjk(letter: str) -> bool:
    """Say whether `letter` is Chinese, Japanese or Korean."""
    return "\u3040" <= letter <= "\u30ff" or "\u3400" <= letter <= "\u9fff" or "\uac00" <= letter <= "\ud7af"


def fold_probabilities(
    features: Any, labels: NDArray[np.int64], classes: int, *, folds: int, seed: int
) -> NDArray[np.float64]:
    """Return for each row what a model fitted on the other folds gives each class, [rows, classes].

    Folds are stratified by label and drawn by `seed`. A class with too few rows to stand in every fold may be unknown
    to the model that judges its rows, which then gives it probability 0.
    """
    from sklearn.model_selection import StratifiedKFold

    # A class with fewer rows than folds would only be warned of; the report of the data says it already.
    smallest = int(np.bincount(labels, minlength=classes).max())
    splitter = StratifiedKFold(min(folds, smallest), shuffle=True, random_state=seed)
    probabilities = np.zeros((len(labels), classes))
    for fitted, judged in _without_warnings(splitter, labels):
        probabilities[judged] = class_probabilities(
            features[fitted], labels[fitted], features[judged], classes, seed=seed
        )
    return probabilities


def class_probabilities(
    features: Any, labels: NDArray[np.int64], judged: Any, classes: int, *, seed: int
) -> NDArray[np.float64]:
    """Return what a logistic regression of `labels` on `features` gives each row of `judged`, [rows, classes]."""
    from scipy.special import softmax
    from sklearn.linear_model import LogisticRegression

    present, encoded = np.unique(labels, return_inverse=True)
    probabilities = np.zeros((judged.shape[0], classes))
    if len(present) == 1:
        probabilities[:, present[0]] = 1.0
    elif isinstance(features, np.ndarray):
        weight, bias = solve_probe(features, encoded, c=PROBE_C, max_iterations=MOST_ITERATIONS, seed=seed)
        probabilities[:, present] = softmax((judged @ weight.T + bias).astype(np.float64), axis=1)
    else:
        model = LogisticRegression(C=TFIDF_C, max_iter=MOST_ITERATIONS, random_state=seed).fit(features, encoded)
        probabilities[:, present] = model.predict_proba(judged)
    return probabilities


def single_label(rows: Rows) -> NDArray[np.int64]:
    """Return the class index of each row, [rows]; a multi-label recipe is refused before this is asked."""
    if rows.labels.ndim != 1:
        raise AssertionError("the recipe is checked to have one label a row")
    return rows.labels


def _without_warnings(splitter: Any, labels: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        return list(splitter.split(np.zeros(len(labels)), labels))
