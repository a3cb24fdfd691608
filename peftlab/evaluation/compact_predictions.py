"""Per-example predictions in a form small enough to commit: what paired tests and reliability diagrams need.

`<run-name>.predictions.json.gz`, beside the committed `<run-name>.json` of the same run, holds one JSON object:
`schema_version`, `labels` (names), `split`, and for each row, in the order of the split, `gold` and `predicted`
(indices into `labels`) and `confidence` (probability of the predicted label, to four decimals). The same predictions
give the same bytes.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftlab.errors import RunError
from peftlab.evaluation.predictions import FILE_NAME, read_predictions
from peftlab.runs.files import whole_file

SCHEMA_VERSION = 1
SUFFIX = ".predictions.json.gz"


@dataclass(frozen=True)
class CompactPredictions:
    """A single-label test split as predicted. `gold`, `predicted` and `confidence` have one element a row."""

    labels: tuple[str, ...]
    gold: tuple[int, ...]
    predicted: tuple[int, ...]
    confidence: tuple[float, ...]
    split: str = "test"

    def __post_init__(self) -> None:
        """Raise ValueError where lengths differ, an index names no label, or a confidence is no probability."""
        if not len(self.gold) == len(self.predicted) == len(self.confidence):
            lengths = f"{len(self.gold)} gold, {len(self.predicted)} predicted, {len(self.confidence)} confidences"
            raise ValueError(f"one of each is needed for every row; found {lengths}")
        if any(not 0 <= index < len(self.labels) for index in (*self.gold, *self.predicted)):
            raise ValueError(f"gold and predicted are indices of {len(self.labels)} labels; found one outside")
        if any(not 0 <= share <= 1 for share in self.confidence):
            raise ValueError("a confidence is a probability; found one outside 0 to 1")


def compact_predictions(run_folder: Path, file_name: str = FILE_NAME, *, split: str = "test") -> CompactPredictions:
    """Return the compact form of a run's predictions of `split`, in `file_name`.

    Raises RunError where the file is missing, broken, empty, or of a multi-label set, which has no compact form.
    """
    path = run_folder / file_name
    labels: dict[str, int] = {}
    gold, predicted, confidence = [], [], []
    for row in read_predictions(path):
        if isinstance(row.gold, tuple) or isinstance(row.predicted, tuple):
            raise RunError(f"{path} has several labels a row; compact predictions are for single-label sets only")
        labels = labels or {name: index for index, name in enumerate(row.probabilities)}
        try:
            gold.append(labels[row.gold])
            predicted.append(labels[row.predicted])
            confidence.append(round(row.probabilities[row.predicted], 4))
        except KeyError as error:
            raise RunError(f"{path}: row {row.id!r} names the label {error}, which has no probability") from None
    if not gold:
        raise RunError(f"{path} has no rows")
    return CompactPredictions(tuple(labels), tuple(gold), tuple(predicted), tuple(confidence), split)


def write_compact(path: Path, predictions: CompactPredictions) -> None:
    """Write `predictions` to `path` (ending in `SUFFIX`), whole or not at all; the same predictions, the same bytes."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "labels": predictions.labels,
        "split": predictions.split,
        "gold": predictions.gold,
        "predicted": predictions.predicted,
        "confidence": predictions.confidence,
    }
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
    with whole_file(path) as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
        packed.write(text.encode("utf-8"))


def read_compact(path: Path) -> CompactPredictions:
    """Read what `write_compact` wrote; RunError where it is missing, broken or of a newer version."""
    if not path.is_file():
        raise RunError(f"{path} does not exist: the predictions of this run were not kept")
    try:
        content: Any = json.loads(gzip.decompress(path.read_bytes()))
        if content["schema_version"] > SCHEMA_VERSION:
            raise RunError(
                f"{path} has schema version {content['schema_version']}; this peftlab reads {SCHEMA_VERSION}"
            )
        return CompactPredictions(
            labels=tuple(map(str, content["labels"])),
            gold=tuple(map(int, content["gold"])),
            predicted=tuple(map(int, content["predicted"])),
            confidence=tuple(map(float, content["confidence"])),
            split=str(content["split"]),
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is no file of compact predictions: {type(error).__name__}: {error}") from None
