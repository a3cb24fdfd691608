"""The predictions file: one object a row, every digit kept, whole or absent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from peftlab.errors import RunError
from peftlab.evaluation.decisions import softmax
from peftlab.evaluation.predictions import Prediction, read_predictions, write_predictions

NAMES = ["退款", "delivery"]


def test_a_row_says_id_gold_predicted_and_every_probability_with_every_digit(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    logits = np.array([[1.3, 0.1], [0.2, 2.0]], np.float32)
    write_predictions(path, ["a.csv:2", "a.csv:3"], logits, np.array([0, 0]), NAMES, multi_label=False)
    first, second = path.read_text(encoding="utf-8").splitlines()
    assert list(json.loads(first)) == ["id", "gold", "predicted", "probabilities"]
    assert "退款" in first
    rows = [json.loads(first), json.loads(second)]
    assert [(row["id"], row["gold"], row["predicted"]) for row in rows] == [
        ("a.csv:2", "退款", "退款"),
        ("a.csv:3", "退款", "delivery"),
    ]
    assert [list(row["probabilities"].values()) for row in rows] == softmax(logits).tolist()


def test_multi_label_rows_have_lists_of_names(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    logits = np.array([[3.0, 3.0], [-3.0, -0.5]])
    write_predictions(path, ["1", "2"], logits, np.array([[1, 0], [0, 0]]), NAMES, multi_label=True, threshold=0.3)
    first, second = read_predictions(path)
    assert (first.gold, first.predicted) == (("退款",), ("退款", "delivery"))
    assert (second.gold, second.predicted) == ((), ("delivery",))


def test_what_was_written_is_read_back_over_many_rows(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    logits = np.random.default_rng(0).normal(size=(5000, 2))
    labels = np.zeros(5000, int)
    write_predictions(path, [str(row) for row in range(5000)], logits, labels, NAMES, multi_label=False)
    rows = list(read_predictions(path))
    assert len(rows) == 5000
    assert rows[4999] == Prediction(
        "4999",
        "退款",
        NAMES[int(logits[4999].argmax())],
        dict(zip(NAMES, softmax(logits[4999:])[0].tolist(), strict=True)),
    )


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, ["1"], np.zeros((1, 2)), np.array([0]), NAMES, multi_label=False)
    before = path.read_bytes()
    with pytest.raises(IndexError):
        write_predictions(path, ["1", "2"], np.zeros((2, 2)), np.array([0, 7]), NAMES, multi_label=False)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_lengths_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 ids"):
        write_predictions(tmp_path / "p", ["1"], np.zeros((2, 2)), np.zeros(2, int), NAMES, multi_label=False)


def test_a_missing_or_broken_file_is_said_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    with pytest.raises(RunError, match="does not exist"):
        list(read_predictions(path))
    good = '{"id": "1", "gold": "a", "predicted": "a", "probabilities": {"a": 1.0}}\n'
    for broken in ('{"id": "1"', '{"id": "1"}\n', "[]\n", "7\n"):
        path.write_text(good + broken, encoding="utf-8")
        with pytest.raises(RunError, match=r"predictions\.jsonl:2: expected an object"):
            list(read_predictions(path))
