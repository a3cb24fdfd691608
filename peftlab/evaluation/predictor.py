"""A finished run as a function from texts to what its task says of them; for a classifier, label and probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.entity_markers import refuse_unmarked
from peftlab.data.tokens import tokenise
from peftlab.errors import UserError
from peftlab.evaluation.decisions import predicted_labels, probabilities
from peftlab.evaluation.forward import logits_of
from peftlab.evaluation.routing import route
from peftlab.evaluation.run_model import RunModel, load_run_model
from peftlab.recipe.plugins import load_plugin
from peftlab.runs.calibration import Calibration, run_calibration
from peftlab.runs.folder import run_recipe
from peftlab.runs.model_record import TRAINED, ModelRecord, read_model_record

if TYPE_CHECKING:
    import torch

    from peftlab.recipe.records import Recipe

Logits = Callable[[Sequence[str], Sequence[str] | None], NDArray[np.float32]]


@dataclass(frozen=True)
class Predictor:
    """A model that labels texts: that of a run or of an export.

    `logits(texts, pairs)` gives [texts, labels]. `text_column` and `pair_column` name the columns of files; without a
    `pair_column` it takes single texts. `entity_columns`: of the spans that are marked in a text, where there are such.
    With a `calibration`, probabilities are calibrated and texts are routed.
    """

    labels: tuple[str, ...]
    multi_label: bool
    threshold: float
    text_column: str
    pair_column: str | None
    logits: Logits
    calibration: Calibration | None = None
    entity_columns: tuple[str, str] | None = None

    def rows(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return `label` (a list of labels for multi-label runs) and `probabilities` of each text.

        With a calibration also `routed`: whether the label may be used as it is; else the text goes to people. Raises
        UserError for a text in which the run's entities are not marked.
        """
        if self.entity_columns is not None:
            refuse_unmarked(texts)
        chances = probabilities(self.logits(texts, pairs), multi_label=self.multi_label)
        decided = predicted_labels(chances, multi_label=self.multi_label, threshold=self.threshold)
        routed = None
        if self.calibration is not None:
            chances, routed = route(chances, self.calibration)
        rows: list[dict[str, Any]] = [
            {"label": self._named(label), "probabilities": dict(zip(self.labels, row.tolist(), strict=True))}
            for label, row in zip(decided, chances, strict=True)
        ]
        if routed is not None:
            for row, answered in zip(rows, routed.tolist(), strict=True):
                row["routed"] = answered
        return rows

    def line(self, text: str, row: Mapping[str, Any]) -> str:
        """Return what is printed for one of `rows`: label, its probability, where it goes if that is decided, text."""
        label = row["label"] if isinstance(row["label"], str) else ", ".join(row["label"]) or "-"
        goes = {True: "\trouted", False: "\tto people"}[row["routed"]] if "routed" in row else ""
        return f"{label}\t{max(row['probabilities'].values()):.4f}{goes}\t{text}"

    def _named(self, label: Any) -> str | list[str]:
        if not self.multi_label:
            return self.labels[int(label)]
        return [name for name, chosen in zip(self.labels, label, strict=True) if chosen]


def load_predictor(folder: Path, against: Path | None = None, *, calibrated: bool = True) -> Any:
    """Load the run in `folder` as a predictor: what its task makes of it, with the interface of `Predictor`.

    That is `text_column`, `pair_column`, `rows` and `line`; a classifier is a `Predictor`. `against`: the file that a
    task ranks. `calibrated`: with the run's calibration, where it has one. Raises RunError or EncoderError where the
    run is not whole, its encoder has changed or the calibration is of another trained part, UserError where the task
    takes no such file.
    """
    import torch

    record, recipe = read_model_record(folder), run_recipe(folder)
    task, method = load_plugin("tasks", recipe.task.name), load_plugin("methods", recipe.method.name)
    if against is not None and "against" not in task.FEATURES:
        raise UserError(f"runs of the task {recipe.task.name!r} rank nothing; leave out --against")
    if record.encoder is None:
        made = classifier(record, recipe, partial(method.logits, method.load(folder / TRAINED)))
    else:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        made = task.predictor(load_run_model(folder, device), device, against)
    if calibrated and isinstance(made, Predictor):
        made = replace(made, calibration=run_calibration(folder))
    return made


def classifier(record: ModelRecord, recipe: Recipe, logits: Logits) -> Predictor:
    """Return the predictor of a classification run whose model is `logits`."""
    return Predictor(
        labels=record.labels,
        multi_label=record.multi_label,
        threshold=getattr(recipe.task.config, "threshold", 0.5),
        text_column=recipe.data.text,
        pair_column=recipe.data.pair,
        logits=logits,
        entity_columns=recipe.data.entities,
    )


def encoder_classifier(run: RunModel, device: torch.device) -> Predictor:
    """Return the predictor of a classification run with an encoder, which is on `device`."""

    def logits(texts: Sequence[str], pairs: Sequence[str] | None) -> NDArray[np.float32]:
        tokens = tokenise(run.tokenizer, texts, pairs, run.encoder.max_length)
        return logits_of(run.module, tokens, batch_size=run.recipe.evaluation.batch_size, device=device)

    return classifier(run.record, run.recipe, logits)
