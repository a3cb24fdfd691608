"""TF-IDF with a linear support vector machine: the rung below every encoder, in seconds and without a GPU.

Terms are character 1- to 3-grams where the training texts are mostly Chinese, Japanese or Korean, word 1- and 2-grams
otherwise; term frequencies enter as 1 + log(tf) (scikit-learn's `sublinear_tf`). The margin of each label is scaled by
one temperature, fitted on validation (Guo et al. 2017, arXiv 1706.04599), so that probabilities mean something; the
predicted label does not depend on it.
Trainable parameters: one weight for each term and label, and a bias for each label.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from peftlab.errors import RunError
from peftlab.recipe.records import Positive, Record
from peftlab.runs.files import write_text

if TYPE_CHECKING:
    from peftlab.data.rows import Splits

NEEDS_ENCODER = False
TRAINS_ENCODER = False
SOLVER: Literal["own"] = "own"
LEARNING_RATE = None

_SEPARATOR = " \u241e "  # between the two texts of a pair; a symbol that no term analyser splits inside


class Config(Record):
    """Settings of the rung."""

    analyzer: Literal["auto", "char", "word"] = "auto"
    """`char`: character n-grams; `word`: word n-grams; `auto`: by the script of the training texts."""
    ngrams: tuple[Positive, Positive] | Literal["auto"] = "auto"
    """Shortest and longest n-gram; `auto`: (1, 3) for characters, (1, 2) for words."""
    min_rows: Positive = 1
    """Terms in fewer rows than this are left out."""
    c: Annotated[float, Field(gt=0)] = 1.0
    """Inverse strength of the L2 penalty."""


@dataclass(frozen=True)
class Model:
    """A fitted rung: `vocabulary` maps terms to columns of `weight` [labels, terms]; `idf` [terms]; `bias` [labels]."""

    analyzer: str
    ngrams: tuple[int, int]
    vocabulary: dict[str, int]
    idf: NDArray[np.float32]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    temperature: float

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.weight.size + self.bias.size


def fit(splits: Splits, config: Config, *, seed: int) -> Model:
    """Fit terms and classifier on the training split, the temperature on the validation split."""
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import LinearSVC

    texts = _joined(splits.train.texts, splits.train.pairs)
    analyzer = config.analyzer if config.analyzer != "auto" else ("char" if _mostly_cjk(texts) else "word")
    ngrams = config.ngrams if config.ngrams != "auto" else ((1, 3) if analyzer == "char" else (1, 2))
    vectorizer = _vectorizer(analyzer, ngrams, min_df=config.min_rows)
    features = vectorizer.fit_transform(texts)
    classifier: Any = LinearSVC(C=config.c, random_state=seed)
    if splits.multi_label:
        classifier = OneVsRestClassifier(classifier)
        classifier.fit(features, splits.train.labels)
    else:
        classifier.fit(features, splits.train.labels, sample_weight=splits.train.weights)
    weight, bias = _all_labels(classifier, len(splits.label_names), features.shape[1])
    model = Model(
        analyzer=analyzer,
        ngrams=(ngrams[0], ngrams[1]),
        vocabulary={term: int(column) for term, column in vectorizer.vocabulary_.items()},
        idf=vectorizer.idf_.astype(np.float32),
        weight=weight,
        bias=bias,
        temperature=1.0,
    )
    margins = logits(model, splits.validation.texts, splits.validation.pairs)
    temperature = _fit_temperature(margins, splits.validation.labels)
    return Model(**{**model.__dict__, "temperature": temperature})


def logits(model: Model, texts: Sequence[str], pairs: Sequence[str] | None) -> NDArray[np.float32]:
    """Return the scaled margins of each text, [texts, labels]."""
    vectorizer = _vectorizer(model.analyzer, model.ngrams, vocabulary=model.vocabulary)
    vectorizer.idf_ = model.idf.astype(np.float64)
    margins = vectorizer.transform(_joined(texts, pairs)) @ model.weight.T.astype(np.float64)
    return np.asarray((np.asarray(margins) + model.bias) / model.temperature, np.float32)


def save(model: Model, folder: Path) -> None:
    """Write `terms.json` and `tfidf.safetensors` into the existing `folder`."""
    from safetensors.numpy import save_file

    terms = sorted(model.vocabulary, key=model.vocabulary.__getitem__)
    settings = {"analyzer": model.analyzer, "ngrams": model.ngrams, "temperature": model.temperature, "terms": terms}
    write_text(folder / "terms.json", json.dumps(settings, ensure_ascii=False))
    save_file({"idf": model.idf, "weight": model.weight, "bias": model.bias}, folder / "tfidf.safetensors")


def load(folder: Path) -> Model:
    """Read what `save` wrote; RunError where it is missing or does not fit together."""
    from safetensors.numpy import load_file

    try:
        settings = json.loads((folder / "terms.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "tfidf.safetensors")
    except (OSError, ValueError) as error:
        raise RunError(
            f"{folder} holds no readable TF-IDF model: {error}; train again, or restore the folder"
        ) from error
    if tensors["weight"].shape[1] != len(settings["terms"]):
        raise RunError(f"{folder}: terms.json and tfidf.safetensors are not of one run; restore both")
    return Model(
        analyzer=settings["analyzer"],
        ngrams=(settings["ngrams"][0], settings["ngrams"][1]),
        vocabulary={term: column for column, term in enumerate(settings["terms"])},
        idf=tensors["idf"],
        weight=tensors["weight"],
        bias=tensors["bias"],
        temperature=settings["temperature"],
    )


def _vectorizer(
    analyzer: str, ngrams: tuple[int, int], *, min_df: int = 1, vocabulary: dict[str, int] | None = None
) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        analyzer=analyzer, ngram_range=ngrams, min_df=min_df, sublinear_tf=True, vocabulary=vocabulary
    )


def _joined(texts: Sequence[str], pairs: Sequence[str] | None) -> list[str]:
    return list(texts) if pairs is None else [_SEPARATOR.join(both) for both in zip(texts, pairs, strict=True)]


def _mostly_cjk(texts: Sequence[str]) -> bool:
    """Say whether over a fifth of the letters of the first 1,000 texts are Chinese, Japanese or Korean."""
    letters = [letter for text in texts[:1000] for letter in text if letter.isalpha()]
    cjk = sum(
        "\u3040" <= letter <= "\u30ff" or "\u3400" <= letter <= "\u9fff" or "\uac00" <= letter <= "\ud7af"
        for letter in letters
    )
    return cjk > 0.2 * len(letters)


def _all_labels(classifier: Any, labels: int, terms: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weight and bias with one row a label; scikit-learn has one row for two classes."""
    if hasattr(classifier, "estimators_"):
        rows = [
            (model.coef_[0], model.intercept_[0])
            if hasattr(model, "coef_")
            else (np.zeros(terms), 10.0 if model.y_[0] else -10.0)
            for model in classifier.estimators_
        ]
        return np.stack([row for row, _ in rows]).astype(np.float32), np.asarray([bias for _, bias in rows], np.float32)
    weight, bias = classifier.coef_, classifier.intercept_
    if len(weight) == 1 and labels == 2:
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    # safetensors writes memory as it lies; scikit-learn lays coefficients out by column.
    return np.ascontiguousarray(weight, np.float32), bias.astype(np.float32)


def _fit_temperature(margins: NDArray[np.float32], labels: NDArray[Any]) -> float:
    """Return the temperature at which the validation labels are likeliest under the scaled margins."""
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    def loss(log_temperature: float) -> float:
        scaled = margins.astype(np.float64) / np.exp(log_temperature)
        if labels.ndim == 1:
            return float(np.mean(logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels]))
        return float(np.mean(np.logaddexp(0.0, scaled) - labels * scaled))

    found = minimize_scalar(loss, bounds=(-6.0, 6.0), method="bounded")
    return float(np.exp(found.x))
