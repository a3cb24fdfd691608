"""`predictions.jsonl`: what was predicted for each test row, one JSON object a line.

Keys of a line: `id`, `gold` and `predicted` (a label name; for multi-label sets a list of names), `probabilities`
(label name to probability, every label, in the order of the labels, with every digit of the float64).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.errors import RunError
from peftlab.evaluation.decisions import predicted_labels, probabilities
from peftlab.runs.files import whole_file

FILE_NAME = "predictions.jsonl"
VALIDATION_FILE = "validation_predictions.jsonl"
"""The same of the validation split, written where the test rows were put aside."""

# Rows turned into probabilities at once.
_ROWS_HELD = 4096


@dataclass(frozen=True)
class Prediction:
    """One row of `predictions.jsonl`; `gold` and `predicted` are tuples of names for multi-label sets."""

    id: str
    gold: str | tuple[str, ...]
    predicted: str | tuple[str, ...]
    probabilities: dict[str, float]


def write_predictions(
    path: Path,
    ids: Sequence[str],
    logits: NDArray[Any],
    labels: NDArray[Any],
    label_names: Sequence[str],
    *,
    multi_label: bool,
    threshold: float = 0.5,
) -> None:
    """Write one line a row; a reader sees the old file or the whole new one. Memory does not grow with the rows.

    Shapes of `logits` and `labels` as in `score_classification`, `ids` one a row: ValueError where they do not fit.
    """
    if not len(ids) == len(logits) == len(labels) or logits.shape[1] != len(label_names):
        shapes = f"{len(ids)} ids, logits {logits.shape}, {len(labels)} labels, {len(label_names)} names"
        raise ValueError(f"predictions do not fit together: {shapes}")
    with whole_file(path) as file:
        for start in range(0, len(ids), _ROWS_HELD):
            rows = slice(start, start + _ROWS_HELD)
            chances = probabilities(logits[rows], multi_label=multi_label)
            guess = predicted_labels(chances, multi_label=multi_label, threshold=threshold)
            for name, gold, told, shares in zip(ids[rows], labels[rows], guess, chances, strict=True):
                line = {
                    "id": name,
                    "gold": _names(gold, label_names),
                    "predicted": _names(told, label_names),
                    "probabilities": dict(zip(label_names, shares.tolist(), strict=True)),
                }
                file.write((json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8"))


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Yield the rows of a predictions file; RunError where it is missing or a line is not one of ours."""
    if not path.is_file():
        raise RunError(f"{path} does not exist; it is written when the test split has been scored")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                gold, predicted = (tuple(v) if isinstance(v, list) else v for v in (row["gold"], row["predicted"]))
                yield Prediction(row["id"], gold, predicted, row["probabilities"])
            except (ValueError, KeyError, TypeError):
                raise RunError(f"{path}:{number}: expected an object with id, gold, predicted, probabilities") from None


def _names(label: Any, label_names: Sequence[str]) -> str | list[str]:
    if np.ndim(label) == 0:
        return label_names[int(label)]
    return [label_names[index] for index in np.flatnonzero(label).tolist()]
