"""Classification metrics as local modules of the `evaluate` library, built on scikit-learn.

The scripts behind `evaluate.load` live on the hub, so they are written here and nothing is loaded by name. Importing
this module takes seconds (evaluate brings transformers and datasets with it): import it only where something is scored.
The modules work with all that evaluate offers (`add_batch`, `evaluate.combine`). `compute` runs one of them without
touching evaluate's cache folder.

Single-label modules take class indices; with ``config_name="multilabel"``, as in evaluate's own modules, they take
lists of zeros and ones. Averages over classes leave out a class for which the metric is 0/0 (scikit-learn's
``zero_division=nan``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import evaluate
import numpy as np
from datasets import Features, Value
from datasets import Sequence as ListOf
from numpy.typing import NDArray
from sklearn import metrics as sk

from peftlab.evaluation.calibration import confidence_and_outcome, expected_calibration_error
from peftlab.evaluation.ranking import rankable

MULTI_LABEL = "multilabel"


def compute(
    module: type[evaluate.Metric],
    predictions: NDArray[Any],
    references: NDArray[Any],
    *,
    multi_label: bool,
    **options: Any,
) -> dict[str, Any]:
    """Run one metric module on all rows; it works in memory, and the folder it insists on making is removed again."""
    with tempfile.TemporaryDirectory(prefix="peftlab-metrics-") as folder:
        config = MULTI_LABEL if multi_label else "default"
        metric = module(config_name=config, keep_in_memory=True, cache_dir=folder)
        computed: dict[str, Any] = metric.compute(predictions=predictions, references=references, **options)
    return computed


def _info(description: str, citation: str, predictions: Any, references: Any) -> evaluate.MetricInfo:
    features = Features({"predictions": predictions, "references": references})
    return evaluate.MetricInfo(description=description, citation=citation, inputs_description="", features=features)


def _labels_info(config_name: str, description: str) -> evaluate.MetricInfo:
    feature = ListOf(Value("int64")) if config_name == MULTI_LABEL else Value("int64")
    return _info(description, "", feature, feature)


def _chances_info(config_name: str, description: str, citation: str = "") -> evaluate.MetricInfo:
    gold = ListOf(Value("int64")) if config_name == MULTI_LABEL else Value("int64")
    return _info(description, citation, ListOf(Value("float64")), gold)


class Accuracy(evaluate.Metric):  # type: ignore[misc]
    """Share of rows predicted right; multi-label: rows whose whole set of labels is right (subset accuracy)."""

    def _info(self) -> evaluate.MetricInfo:
        return _labels_info(self.config_name, "Share of rows predicted right.")

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        return {"accuracy": float(sk.accuracy_score(np.asarray(references), np.asarray(predictions)))}


class HammingLoss(evaluate.Metric):  # type: ignore[misc]
    """Share of (row, label) decisions that are wrong."""

    def _info(self) -> evaluate.MetricInfo:
        return _labels_info(self.config_name, "Share of (row, label) decisions that are wrong.")

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        return {"hamming_loss": float(sk.hamming_loss(np.asarray(references), np.asarray(predictions)))}


class F1(evaluate.Metric):  # type: ignore[misc]
    """F1 averaged over classes: `macro`, `micro` and `weighted` by support."""

    def _info(self) -> evaluate.MetricInfo:
        return _labels_info(self.config_name, "F1 averaged over classes: macro, micro and weighted.")

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any], classes: int) -> dict[str, float]:
        gold, guess = np.asarray(references), np.asarray(predictions)
        labels = list(range(classes))
        return {
            f"{average}_f1": float(sk.f1_score(gold, guess, labels=labels, average=average, zero_division=np.nan))
            for average in ("macro", "micro", "weighted")
        }


class PerClass(evaluate.Metric):  # type: ignore[misc]
    """Precision, recall and F1 (NaN where 0/0) and support of every class."""

    def _info(self) -> evaluate.MetricInfo:
        return _labels_info(self.config_name, "Precision, recall, F1 and support of every class.")

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any], classes: int) -> dict[str, NDArray[Any]]:
        columns = sk.precision_recall_fscore_support(
            np.asarray(references), np.asarray(predictions), labels=list(range(classes)), zero_division=np.nan
        )
        return dict(zip(("precision", "recall", "f1", "support"), columns, strict=True))


class Confusion(evaluate.Metric):  # type: ignore[misc]
    """Confusion matrix, rows gold and columns predicted; multi-label: [[TN, FP], [FN, TP]] of every class."""

    def _info(self) -> evaluate.MetricInfo:
        return _labels_info(self.config_name, "Confusion matrix, rows gold and columns predicted.")

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any], classes: int) -> dict[str, NDArray[Any]]:
        gold, guess = np.asarray(references), np.asarray(predictions)
        matrix = sk.multilabel_confusion_matrix if self.config_name == MULTI_LABEL else sk.confusion_matrix
        return {"confusion": matrix(gold, guess, labels=list(range(classes)))}


class RocAuc(evaluate.Metric):  # type: ignore[misc]
    """Area under the ROC curve, one class against the rest, mean over classes (macro)."""

    def _info(self) -> evaluate.MetricInfo:
        return _chances_info(self.config_name, "Area under the ROC curve, macro average of one against the rest.")

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        gold, chances, ranked = rankable(np.asarray(references), np.asarray(predictions))
        if not ranked.any():
            return {"roc_auc": float("nan")}
        return {"roc_auc": float(sk.roc_auc_score(gold[:, ranked], chances[:, ranked], average="macro"))}


class AveragePrecision(evaluate.Metric):  # type: ignore[misc]
    """Area under the precision-recall steps, one class against the rest, mean over classes (macro)."""

    def _info(self) -> evaluate.MetricInfo:
        return _chances_info(self.config_name, "Average precision, macro average of one against the rest.")

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        gold, chances, ranked = rankable(np.asarray(references), np.asarray(predictions))
        if not ranked.any():
            return {"average_precision": float("nan")}
        value = sk.average_precision_score(gold[:, ranked], chances[:, ranked], average="macro")
        return {"average_precision": float(value)}


class ExpectedCalibrationError(evaluate.Metric):  # type: ignore[misc]
    """Expected calibration error over 15 equal-width bins of the predicted class's probability."""

    def _info(self) -> evaluate.MetricInfo:
        source = "Naeini et al. 2015 (AAAI); Guo et al. 2017 (ICML), equation 3."
        return _chances_info(self.config_name, "Expected calibration error, 15 equal-width bins.", source)

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        multi_label = self.config_name == MULTI_LABEL
        decisions = confidence_and_outcome(np.asarray(predictions), np.asarray(references), multi_label=multi_label)
        return {"expected_calibration_error": expected_calibration_error(*decisions)}
