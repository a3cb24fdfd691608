"""The encoder before any training, scored on the test rows like the trained one: what training is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftlab.evaluation.forward import Passes
from peftlab.training.prepare import Found, bare_model

if TYPE_CHECKING:
    from peftlab.runs.result import TaskScores
    from peftlab.training.outcome import Sitting

PREFIX = "frozen_"
"""Stands before the names of the metrics of the encoder without training."""


@dataclass(frozen=True)
class BesideFrozen:
    """Scores of the trained model, and beside them the metrics of the frozen encoder on the same rows."""

    trained: TaskScores
    frozen: TaskScores

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Metrics of both, those of the frozen encoder with PREFIX."""
        return {**self.trained.metrics, **{f"{PREFIX}{name}": found for name, found in self.frozen.metrics.items()}}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, as `TaskScores` does."""
        before = self.frozen.to_dict()["metrics"]
        told = self.trained.to_dict()
        return {**told, "metrics": {**told["metrics"], **{f"{PREFIX}{name}": found for name, found in before.items()}}}


def frozen_outputs(found: Found, tokens: Any, sitting: Sitting) -> Any:
    """Return what the recipe's encoder puts out on the test rows in `tokens` without training.

    None where the task does not ask for it (`"frozen"` in its FEATURES), or the test rows are put aside. Seeds torch.
    """
    if "frozen" not in found.task.FEATURES or not found.recipe.evaluation.score_test:
        return None
    place = sitting.placement
    bare = bare_model(found, device=place.device, seed=found.recipe.train.seed)
    passes = Passes(found.recipe.evaluation.batch_size, place.device, place.rank, place.world)
    return found.task.outputs(bare.module, tokens, found.recipe, passes)
