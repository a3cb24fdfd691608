"""Compact predictions: from a run folder to a file to commit and back."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from peftlab.errors import RunError
from peftlab.evaluation.compact_predictions import (
    SUFFIX,
    CompactPredictions,
    compact_predictions,
    read_compact,
    write_compact,
)
from peftlab.evaluation.predictions import write_predictions

LABELS = ("退款", "delivery", "other")
LOGITS = np.array([[3.0, 0.0, 0.0], [0.0, 1.0, 2.0], [0.5, 0.5, 0.0], [0.0, 9.0, 0.0]])
GOLD = np.array([0, 1, 1, 1])


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    write_predictions(tmp_path / "predictions.jsonl", [*"abcd"], LOGITS, GOLD, LABELS, multi_label=False)
    return tmp_path


def test_the_compact_form_says_what_the_predictions_say(run_folder: Path) -> None:
    made = compact_predictions(run_folder)
    chances = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    assert made.labels == LABELS
    assert made.gold == tuple(GOLD)
    assert made.predicted == (0, 2, 0, 1)
    assert made.confidence == tuple(np.round(chances.max(axis=1), 4))
    assert made.split == "test"


def test_what_is_written_reads_back_and_has_the_same_bytes_again(run_folder: Path) -> None:
    made = compact_predictions(run_folder)
    first, second = (run_folder / f"{name}{SUFFIX}" for name in ("lora-s0", "other-name"))
    write_compact(first, made)
    write_compact(second, made)
    assert read_compact(first) == made
    assert first.read_bytes() == second.read_bytes()
    assert set(json.loads(gzip.decompress(first.read_bytes()))) == {
        "schema_version",
        "labels",
        "split",
        "gold",
        "predicted",
        "confidence",
    }


def test_several_labels_a_row_are_refused(tmp_path: Path) -> None:
    gold = np.eye(3, dtype=int)[[0, 1, 2, 0]]
    write_predictions(tmp_path / "predictions.jsonl", [*"abcd"], LOGITS, gold, LABELS, multi_label=True)
    with pytest.raises(RunError, match="single-label sets only"):
        compact_predictions(tmp_path)


@pytest.mark.parametrize(
    ("gold", "predicted", "confidence", "words"),
    [((0, 1), (0,), (0.5, 0.5), "every row"), ((0,), (2,), (0.5,), "indices"), ((0,), (1,), (1.5,), "probability")],
)
def test_columns_that_do_not_fit_are_refused(
    gold: tuple[int, ...], predicted: tuple[int, ...], confidence: tuple[float, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        CompactPredictions(("a", "b"), gold, predicted, confidence)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        (b"not gzip", "no file of compact predictions"),
        (gzip.compress(b"{}", mtime=0), "no file of compact predictions"),
        (gzip.compress(b'{"schema_version": 2}', mtime=0), "schema version 2"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / f"run{SUFFIX}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=words) as raised:
        read_compact(path)
    assert str(path) in str(raised.value)
