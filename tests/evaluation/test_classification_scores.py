"""Scores of a classifier, each against scikit-learn on random logits."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from peftlab.evaluation.classification_scores import METRICS, metric_names, point_metrics, score_classification
from peftlab.evaluation.decisions import sigmoid, softmax

NAMES = ["alpha", "beta", "gamma", "delta"]


def single_label(n: int = 400, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    logits = generator.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    return logits.astype(np.float32), labels


def multi_label(n: int = 400, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = (generator.random((n, classes)) < 0.3).astype(np.float32)
    return (generator.normal(size=(n, classes)) + 2 * labels - 1).astype(np.float32), labels


def sklearn_single(logits: np.ndarray, labels: np.ndarray) -> Mapping[str, float]:
    chances, guess, one_hot = softmax(logits), logits.argmax(1), np.eye(4)[labels]
    return {
        "accuracy": sk.accuracy_score(labels, guess),
        "macro_f1": sk.f1_score(labels, guess, average="macro"),
        "micro_f1": sk.f1_score(labels, guess, average="micro"),
        "weighted_f1": sk.f1_score(labels, guess, average="weighted"),
        "roc_auc": sk.roc_auc_score(labels, chances, multi_class="ovr"),
        "average_precision": sk.average_precision_score(one_hot, chances),
        "nll": sk.log_loss(labels, chances),
    }


def sklearn_multi(logits: np.ndarray, labels: np.ndarray) -> Mapping[str, float]:
    chances, guess = sigmoid(logits), logits >= 0
    return {
        "accuracy": sk.accuracy_score(labels, guess),
        "macro_f1": sk.f1_score(labels, guess, average="macro"),
        "micro_f1": sk.f1_score(labels, guess, average="micro"),
        "weighted_f1": sk.f1_score(labels, guess, average="weighted"),
        "roc_auc": sk.roc_auc_score(labels, chances, average="macro"),
        "average_precision": sk.average_precision_score(labels, chances),
        "hamming_loss": sk.hamming_loss(labels, guess),
        "nll": np.mean([sk.log_loss(labels[:, c], chances[:, c]) for c in range(4)]),
    }


def test_single_label_metrics_are_scikit_learns() -> None:
    logits, labels = single_label()
    ours = point_metrics(logits, labels, NAMES, multi_label=False)
    assert tuple(ours) == metric_names(multi_label=False)
    for name, value in sklearn_single(logits, labels).items():
        assert ours[name] == pytest.approx(value, abs=1e-12), name


def test_multi_label_metrics_are_scikit_learns() -> None:
    logits, labels = multi_label()
    ours = point_metrics(logits, labels, NAMES, multi_label=True)
    assert tuple(ours) == metric_names(multi_label=True)
    for name, value in sklearn_multi(logits, labels).items():
        assert ours[name] == pytest.approx(value, abs=1e-12), name


def test_two_classes_are_averaged_over_both() -> None:
    logits, labels = single_label(classes=2)
    ours = point_metrics(logits, labels, NAMES[:2], multi_label=False)
    chances = softmax(logits)
    both = [sk.average_precision_score(labels == c, chances[:, c]) for c in (0, 1)]
    assert ours["average_precision"] == pytest.approx(np.mean(both))
    assert ours["roc_auc"] == pytest.approx(sk.roc_auc_score(labels, chances[:, 1]))


@pytest.mark.parametrize("many", [False, True], ids=["single-label", "multi-label"])
def test_the_table_and_the_confusion_matrix_are_scikit_learns(many: bool) -> None:
    logits, labels = multi_label() if many else single_label()
    guess = (logits >= 0).astype(int) if many else logits.argmax(1)
    scores = score_classification(logits, labels, NAMES, multi_label=many, intervals=False)
    matrix = sk.multilabel_confusion_matrix if many else sk.confusion_matrix
    assert scores.confusion == matrix(labels, guess).tolist()
    columns = sk.precision_recall_fscore_support(labels, guess)
    for row, expected in zip(scores.per_class, zip(NAMES, *columns, strict=True), strict=True):
        assert (row.label, row.precision, row.recall, row.f1, row.support) == expected
    assert scores.undefined == ()


@pytest.mark.parametrize("many", [False, True], ids=["single-label", "multi-label"])
def test_every_metric_has_an_interval_around_it_with_the_number_of_rows(many: bool) -> None:
    logits, labels = multi_label() if many else single_label()
    scores = score_classification(logits, labels, NAMES, multi_label=many)
    assert tuple(scores.metrics) == metric_names(multi_label=many)
    for name, interval in scores.metrics.items():
        assert interval.low < interval.value < interval.high, name
        assert interval.n == 400
    again = score_classification(logits, labels, NAMES, multi_label=many)
    assert again == scores


def test_f1_and_loss_intervals_are_those_of_resampling_rows_and_scoring_each_resample() -> None:
    logits, labels = single_label(n=150)
    guess, losses = logits.argmax(1), -np.log(softmax(logits)[np.arange(150), labels])
    generator = np.random.default_rng(8)
    drawn: dict[str, list[Any]] = {"macro_f1": [], "weighted_f1": [], "nll": []}
    for _ in range(1500):
        rows = generator.integers(0, 150, 150)
        for average in ("macro", "weighted"):
            drawn[f"{average}_f1"].append(sk.f1_score(labels[rows], guess[rows], average=average))
        drawn["nll"].append(losses[rows].mean())
    ours = score_classification(logits, labels, NAMES, multi_label=False).metrics
    for name, values in drawn.items():
        low, high = np.quantile(values, [0.025, 0.975])
        tolerance = 0.1 * (high - low)
        assert ours[name].low == pytest.approx(low, abs=tolerance), name
        assert ours[name].high == pytest.approx(high, abs=tolerance), name


def test_a_class_without_rows_is_left_out_of_averages_and_said_so() -> None:
    logits, labels = single_label()
    logits[:, 3], kept = -50.0, labels != 3
    scores = score_classification(logits[kept], labels[kept], NAMES, multi_label=False)
    guess = logits[kept].argmax(1)
    assert scores.metrics["macro_f1"].value == pytest.approx(sk.f1_score(labels[kept], guess, average="macro"))
    assert scores.per_class[3].to_dict() == {
        "label": "delta",
        "precision": None,
        "recall": None,
        "f1": None,
        "support": 0,
    }
    assert {(entry.metric, entry.labels) for entry in scores.undefined} == {
        (name, ("delta",)) for name in ("precision", "recall", "f1", "roc_auc", "average_precision")
    }
    json.dumps(scores.to_dict(), allow_nan=False)


def test_a_class_that_is_wrongly_predicted_but_has_no_rows_counts_as_zero() -> None:
    logits = np.eye(3)[[0, 1, 2]]
    values = point_metrics(logits, np.array([0, 1, 1]), NAMES[:3], multi_label=False)
    assert values["macro_f1"] == pytest.approx(np.mean([1.0, 2 / 3, 0.0]))


def test_metrics_that_are_undefined_as_a_whole_are_absent() -> None:
    logits, labels = np.eye(2)[[0, 0, 0]] * 4, np.array([0, 0, 0])
    scores = score_classification(logits, labels, NAMES[:2], multi_label=False)
    assert "roc_auc" not in scores.metrics
    assert "average_precision" not in scores.metrics
    assert scores.metrics["accuracy"].high == 1.0
    json.dumps(scores.to_dict(), allow_nan=False)
    nothing = score_classification(np.full((3, 2), -9.0), np.zeros((3, 2)), NAMES[:2], multi_label=True)
    assert nothing.metrics["accuracy"].value == 1.0
    assert "macro_f1" not in nothing.metrics
    json.dumps(nothing.to_dict(), allow_nan=False)


def test_only_the_metrics_asked_for_are_computed() -> None:
    logits, labels = single_label()
    assert tuple(point_metrics(logits, labels, NAMES, multi_label=False, names=["nll", "accuracy"])) == (
        "accuracy",
        "nll",
    )
    with pytest.raises(KeyError, match=r"no metric named bleu, hamming_loss; there are accuracy, macro_f1"):
        point_metrics(logits, labels, NAMES, multi_label=False, names=["bleu", "hamming_loss"])


def test_every_metric_says_which_way_is_better() -> None:
    lower = {name for name, metric in METRICS.items() if not metric.higher_is_better}
    assert lower == {"expected_calibration_error", "nll", "hamming_loss"}


def test_the_document_lists_every_metric_with_its_interval() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "result.md").read_text(encoding="utf-8")
    for name, metric in METRICS.items():
        better = "higher" if metric.higher_is_better else "lower"
        assert f"| `{name}` | {better} | {metric.meaning} | {metric.interval} |" in text


def test_77_classes_and_4000_rows_are_scored_with_intervals_in_under_ten_seconds() -> None:
    logits, labels = single_label(4000, 77)
    started = time.process_time()
    score_classification(logits, labels, [str(index) for index in range(77)], multi_label=False)
    assert time.process_time() - started < 10


def test_logits_that_do_not_fit_the_label_names_are_refused() -> None:
    logits, labels = single_label()
    with pytest.raises(ValueError, match="4 columns for 3 labels"):
        point_metrics(logits, labels, NAMES[:3], multi_label=False)
