"""The runs of a suite, with everything checked that can be known before the first one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.errors import UserError
from peftlab.recipe.plugins import load_plugin, tasks_in
from peftlab.recipe.records import Recipe
from peftlab.recipe.resolve import recipe_hash
from peftlab.runs.code import code_hash
from peftlab.suites.arms import Arm
from peftlab.suites.orders import Order, PlannedRun, RunKey
from peftlab.suites.records import taught_data

if TYPE_CHECKING:
    from peftlab.training.prepare import Found

QUIET = ("run.trackers=[]",)
"""Overrides of every run of a suite: nobody watches a tracker, and it is no part of the recipe hash."""


@dataclass
class Inputs:
    """The inputs of recipes, found once for all recipes that share them; `mistakes` are the sentences said of them."""

    mistakes: list[str] = field(default_factory=list)
    _found: dict[str, Found | None] = field(default_factory=dict)

    def of(self, recipe: Recipe) -> Found | None:
        """Return the recipe's rows and encoder, None where they cannot be used; what is wrong goes to `mistakes`."""
        from dataclasses import replace

        from peftlab.training.prepare import find_inputs

        method = load_plugin("methods", recipe.method.name)
        key = _input_key(recipe, with_encoder=method.NEEDS_ENCODER)
        if key not in self._found:
            self._found[key] = None
            try:
                self._found[key] = find_inputs(recipe, report_path=None, say=lambda _: None)
            except UserError as error:
                self.note(error)
        found = self._found[key]
        return replace(found, recipe=recipe, method=method) if found is not None else None

    def note(self, error: UserError) -> None:
        """Keep what `error` says, once."""
        if str(error) not in self.mistakes:
            self.mistakes.append(str(error))


def _input_key(recipe: Recipe, *, with_encoder: bool) -> str:
    parts: dict[str, Any] = {
        "folder": str(recipe.path.resolve().parent),
        "data": recipe.data.model_dump(mode="json"),
        "task": [recipe.task.name, recipe.task.config.model_dump(mode="json")],
        "encoder": recipe.encoder.model_dump(mode="json") if with_encoder and recipe.encoder is not None else None,
        "evaluation": recipe.evaluation.model_dump(mode="json"),
        "seed": recipe.train.seed,
        "distill": recipe.distill.model_dump(mode="json") if recipe.distill is not None else None,
    }
    return json.dumps(parts, sort_keys=True)


def plan_runs(arm: Arm, seeds: Sequence[int], inputs: Inputs, more: tuple[str, ...] = ()) -> list[PlannedRun]:
    """Return the arm's runs, one a seed, with `more` overrides; those whose inputs cannot be used are left out."""
    planned = []
    for seed in seeds:
        run = plan_run(arm, f"{arm.name}-s{seed}", seed, inputs, more)
        planned += [run] if run is not None else []
    return planned


def plan_run(arm: Arm, name: str, seed: int, inputs: Inputs, more: tuple[str, ...] = ()) -> PlannedRun | None:
    """Return one run of the arm; None where its inputs cannot be used, which `inputs` then says."""
    recipe = arm.recipe(seed, *more)
    found = inputs.of(recipe)
    if found is None:
        return None
    if recipe.task.name not in tasks_in("suites"):
        text = f"{arm.path}: a suite compares test accuracy, which the task {recipe.task.name!r} does not have"
        inputs.note(UserError(text))
    elif found.splits.multi_label:
        inputs.note(UserError(f"{arm.path}: has several labels a row; a suite compares single-label recipes only"))
    code = code_hash(recipe.method.name, recipe.task.name, curators=[one.name for one in recipe.curate])
    data = taught_data(found.splits.fingerprint, found.lessons.fingerprint if found.lessons is not None else None)
    key = RunKey(recipe_hash(recipe), data, code)
    overrides = (*arm.overrides(seed, *more), *QUIET)
    return PlannedRun(Order(name, str(arm.path), overrides, key, str(Path.cwd())), arm.name, recipe)


def check_models(runs: Iterable[PlannedRun], inputs: Inputs) -> Mapping[str, int]:
    """Build the model of each arm once and hold it against its ceilings; return trainable parameters by arm.

    Methods without an encoder have no model before they are fitted, and are left out. What is wrong goes to `inputs`.
    """
    import torch

    from peftlab.training.linear_probe import linear_head
    from peftlab.training.optimizers import make_optimizer, parameter_groups
    from peftlab.training.prepare import build_model, check_budget, shipped_bytes

    counts: dict[str, int] = {}
    for run in runs:
        found = inputs.of(run.recipe)
        if run.arm in counts or found is None or found.files is None:
            continue
        recipe = run.recipe
        try:
            model = build_model(found, device=torch.device("cpu"), seed=recipe.train.seed)
            counts[run.arm] = model.counts.trainable
            if recipe.head.init == "probe" or found.method.SOLVER == "linear_probe":
                linear_head(model.module)
            check_budget(
                recipe, model.counts.trainable, shipped_bytes(model) if recipe.budget.shipped_mb is not None else 0
            )
            if found.method.SOLVER == "gradient":
                groups = parameter_groups(model.module, model.anatomy, recipe.optimizer, 1e-3)
                make_optimizer(groups, recipe.optimizer, torch.device("cpu"))
        except UserError as error:
            counts.setdefault(run.arm, 0)
            inputs.note(error)
    return counts


def raise_mistakes(inputs: Inputs) -> None:
    """Raise one UserError with all that is wrong with the inputs, if anything is."""
    if inputs.mistakes:
        raise UserError("\n".join(inputs.mistakes))
