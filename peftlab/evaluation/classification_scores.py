"""Scores of a classifier on one split: headline metrics with intervals, a row per class, the confusion matrix.

Labels and logits are those of the whole split, each row once. Predictions are the class with the largest logit (the
first on ties); for multi-label sets every class whose probability reaches the threshold.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from peftlab.evaluation.classification_intervals import RESAMPLES, classification_intervals
from peftlab.evaluation.decisions import Decisions, decide
from peftlab.evaluation.intervals import Interval
from peftlab.evaluation.ranking import rankable


class Metric(NamedTuple):
    """What a metric means, which way is better, and how its interval is made."""

    higher_is_better: bool
    meaning: str
    interval: str


_ROWS = f"percentile bootstrap over rows, {RESAMPLES:,} resamples"
_JACKKNIFE = "infinitesimal jackknife over rows, normal on the logit scale"

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "accuracy": Metric(True, "share of rows predicted right; multi-label: rows with every label right", "Wilson"),
        "macro_f1": Metric(True, "mean of the classes' F1", _ROWS),
        "micro_f1": Metric(
            True, "F1 over all decisions; single-label: equals accuracy", f"single-label: Wilson; multi-label: {_ROWS}"
        ),
        "weighted_f1": Metric(True, "mean of the classes' F1, weighted by support", _ROWS),
        "roc_auc": Metric(True, "area under the ROC curve, one class against the rest, mean over classes", _JACKKNIFE),
        "average_precision": Metric(
            True, "average precision, one class against the rest, mean over classes", _JACKKNIFE
        ),
        "expected_calibration_error": Metric(
            False,
            "gap between stated probability and share right, over 15 equal-width bins",
            f"bias-aware bootstrap over rows, {RESAMPLES:,} resamples",
        ),
        "nll": Metric(False, "mean negative log-likelihood of the gold labels, in nats", _ROWS),
        "hamming_loss": Metric(False, "multi-label only: share of (row, label) decisions that are wrong", _ROWS),
    }
)


def metric_names(*, multi_label: bool) -> tuple[str, ...]:
    """Return the names of the metrics that such a task has, in the order in which they are shown."""
    return tuple(name for name in METRICS if multi_label or name != "hamming_loss")


@dataclass(frozen=True)
class ClassScore:
    """One class on one split; precision, recall and F1 are None where they are 0/0. `support`: its gold rows."""

    label: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int

    def to_dict(self) -> dict[str, str | float | int | None]:
        """Return the fields as plain JSON values."""
        return dict(vars(self))


@dataclass(frozen=True)
class Undefined:
    """A metric that could not be computed for some classes, so that its average leaves them out."""

    metric: str
    labels: tuple[str, ...]
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {"metric": self.metric, "labels": list(self.labels), "reason": self.reason}


@dataclass(frozen=True)
class Scores:
    """Scores of one split.

    `metrics`: by name (see METRICS); a metric that is undefined as a whole is absent and stands in `undefined`.
    Without intervals, `low` and `high` equal `value`.
    `confusion`: single-label [gold][predicted] counts; multi-label one [[TN, FP], [FN, TP]] a class.
    `threshold`: probability from which a label is predicted; None for single-label sets.
    """

    metrics: Mapping[str, Interval]
    per_class: tuple[ClassScore, ...]
    confusion: list[Any]
    threshold: float | None
    undefined: tuple[Undefined, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, no NaN: `metrics` as in `metrics.test` of result.json, the rest as `scores`."""
        return {
            "metrics": {name: interval.to_dict() for name, interval in self.metrics.items()},
            "scores": {
                "per_class": [score.to_dict() for score in self.per_class],
                "confusion": self.confusion,
                "threshold": self.threshold,
                "undefined": [entry.to_dict() for entry in self.undefined],
            },
        }


def point_metrics(
    logits: NDArray[Any],
    labels: NDArray[Any],
    label_names: Sequence[str],
    *,
    multi_label: bool,
    threshold: float = 0.5,
    names: Collection[str] | None = None,
) -> dict[str, float]:
    """Return metrics without intervals, for validation during training; all of the task's, or those in `names`.

    `logits` has shape [rows, classes]; `labels` class indices [rows], or zeros and ones [rows, classes]. A metric that
    is undefined on these rows (a ranking metric where no class has rows on both sides) is absent. Raises KeyError for a
    name that the task does not have, ValueError for shapes that do not fit, and as `decide` does.
    """
    known = metric_names(multi_label=multi_label)
    wanted = set(known if names is None else names)
    if unknown := sorted(wanted - set(known)):
        raise KeyError(f"no metric named {', '.join(unknown)}; there are {', '.join(known)}")
    if logits.shape[1] != len(label_names):
        raise ValueError(f"logits have {logits.shape[1]} columns for {len(label_names)} labels")
    decisions = decide(logits, labels, multi_label=multi_label, threshold=threshold)
    values = _label_metrics(wanted, decisions) | _chance_metrics(wanted, decisions)
    if "nll" in wanted:
        values["nll"] = float(decisions.losses.mean())
    return {name: values[name] for name in known if name in wanted and not np.isnan(values[name])}


def score_classification(
    logits: NDArray[Any],
    labels: NDArray[Any],
    label_names: Sequence[str],
    *,
    multi_label: bool,
    threshold: float = 0.5,
    intervals: bool = True,
    seed: int = 0,
) -> Scores:
    """Score one split. Shapes and errors as in `point_metrics`; `seed` is that of the bootstrap draws."""
    from peftlab.evaluation.metrics import Confusion, PerClass, compute

    values = point_metrics(logits, labels, label_names, multi_label=multi_label, threshold=threshold)
    decisions = decide(logits, labels, multi_label=multi_label, threshold=threshold)
    guess, gold, classes = decisions.predicted, decisions.gold, len(label_names)
    columns = compute(PerClass, guess, gold, multi_label=multi_label, classes=classes)
    confusion = compute(Confusion, guess, gold, multi_label=multi_label, classes=classes)["confusion"]
    estimates = {name: Interval(value, value, value, len(gold)) for name, value in values.items()}
    if intervals:
        estimates = classification_intervals(values, decisions, seed=seed)
    per_class = _per_class(label_names, columns)
    return Scores(
        metrics=MappingProxyType({name: estimates[name] for name in values}),
        per_class=per_class,
        confusion=confusion.tolist(),
        threshold=threshold if multi_label else None,
        undefined=_undefined(per_class, rankable(gold, decisions.chances)[2]),
    )


def _label_metrics(wanted: set[str], decisions: Decisions) -> dict[str, float]:
    from peftlab.evaluation.metrics import F1, Accuracy, HammingLoss, compute

    guess, gold, multi_label = decisions.predicted, decisions.gold, decisions.multi_label
    values: dict[str, float] = {}
    if "accuracy" in wanted:
        values |= compute(Accuracy, guess, gold, multi_label=multi_label)
    if "hamming_loss" in wanted:
        values |= compute(HammingLoss, guess, gold, multi_label=multi_label)
    if wanted & {"macro_f1", "micro_f1", "weighted_f1"}:
        values |= compute(F1, guess, gold, multi_label=multi_label, classes=decisions.chances.shape[1])
    return values


def _chance_metrics(wanted: set[str], decisions: Decisions) -> dict[str, float]:
    from peftlab.evaluation.metrics import AveragePrecision, ExpectedCalibrationError, RocAuc, compute

    modules = {
        "roc_auc": RocAuc,
        "average_precision": AveragePrecision,
        "expected_calibration_error": ExpectedCalibrationError,
    }
    values: dict[str, float] = {}
    for name in wanted & modules.keys():
        values |= compute(modules[name], decisions.chances, decisions.gold, multi_label=decisions.multi_label)
    return values


def _per_class(label_names: Sequence[str], columns: Mapping[str, NDArray[Any]]) -> tuple[ClassScore, ...]:
    def shown(name: str, row: int) -> float | None:
        value = float(columns[name][row])
        return None if np.isnan(value) else value

    return tuple(
        ClassScore(label, shown("precision", row), shown("recall", row), shown("f1", row), int(columns["support"][row]))
        for row, label in enumerate(label_names)
    )


def _undefined(per_class: Sequence[ClassScore], ranked: NDArray[np.bool_]) -> tuple[Undefined, ...]:
    unseen = tuple(score.label for score in per_class if score.f1 is None)
    never = tuple(score.label for score in per_class if score.precision is None)
    absent = tuple(score.label for score in per_class if score.recall is None)
    one_sided = tuple(score.label for score, defined in zip(per_class, ranked, strict=True) if not defined)
    found = (
        Undefined("precision", never, "never predicted"),
        Undefined("recall", absent, "no gold row"),
        Undefined("f1", unseen, "no gold row and never predicted; the averages leave it out"),
        Undefined("roc_auc", one_sided, "not both a row with the label and a row without; the average leaves it out"),
        Undefined("average_precision", one_sided, "not both a row with the label and a row without; as for roc_auc"),
    )
    return tuple(entry for entry in found if entry.labels)
