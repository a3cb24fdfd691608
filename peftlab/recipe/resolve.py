"""A recipe with its defaults filled in: as a record, as text for the run folder, and as a hash."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import tomlkit

from peftlab.recipe import plugins
from peftlab.recipe.expectations import UNSET
from peftlab.recipe.pretraining import PretrainRecipe
from peftlab.recipe.records import Choice, Optimizer, Recipe, Record, Train
from peftlab.recipe.unknown_keys import sections

_NOT_HASHED = (
    *(("run", key) for key in ("dir", "trackers", "project", "recipe")),
    ("train", "resume"),
    # Where these end a run its status says so: what a whole run computes does not depend on them.
    *(("budget", key) for key in ("peak_memory_gb", "minutes", "latency_ms")),
)

_SOLVED_HEAD_RATE = 5e-4
"""Largest learning rate of a head that starts from the probe's solution, where none is said: more throws it away."""


def resolved(recipe: Recipe) -> Recipe:
    """Return `recipe` with what follows from other settings filled in.

    The learning rate from the method, the head's learning rate from the training's, the seed of the split from the
    training's, the metric from the task, the target from the budget. Values that depend on the encoder, the data or
    the machine stay `auto`.
    """
    task = plugins.load_plugin("tasks", recipe.task.name)
    evaluation, data = recipe.evaluation, recipe.data
    train, optimizer = _with_rates(recipe)
    if evaluation.target is None and recipe.budget.target is not None:
        evaluation = evaluation.model_copy(update={"target": recipe.budget.target})
    if evaluation.metric == "auto":
        evaluation = evaluation.model_copy(update={"metric": task.DEFAULT_METRIC})
    if data.split_seed is None:
        data = data.model_copy(update={"split_seed": train.seed})
    changed = {"train": train, "optimizer": optimizer, "evaluation": evaluation, "data": data}
    return recipe.model_copy(update=changed)


def _with_rates(recipe: Recipe) -> tuple[Train, Optimizer]:
    """Return the training and the optimizer with their learning rates.

    A method's rate is meant for what it adds to the encoder, and can be a hundred times what a linear head bears: the
    head takes at most the rate of a head alone, and less where it starts solved. Trained alone, it takes what is said.
    """
    method, head = (plugins.load_plugin("methods", name) for name in (recipe.method.name, "head"))
    usual: plugins.LearningRate | None = method.LEARNING_RATE
    train, optimizer, alone = recipe.train, recipe.optimizer, method is head
    most: float = head.LEARNING_RATE.default
    if recipe.head.init == "probe":
        most = min(most, _SOLVED_HEAD_RATE)
    if train.learning_rate == "auto" and usual is not None:
        train = train.model_copy(update={"learning_rate": min(usual.default, most) if alone else usual.default})
    if optimizer.head_learning_rate is None and train.learning_rate != "auto":
        rate = train.learning_rate if alone else min(train.learning_rate, most)
        optimizer = optimizer.model_copy(update={"head_learning_rate": rate})
    return train, optimizer


def resolved_pretraining(recipe: PretrainRecipe) -> PretrainRecipe:
    """Return `recipe` with its learning rate filled in: the method's, or the usual one of the architecture's width.

    5e-4 at width 768 and above, growing as the width shrinks up to 2e-3; 1e-4 to continue an existing encoder.
    """
    if recipe.train.learning_rate != "auto":
        return recipe
    rate = min(2e-3, 5e-4 * 768 / recipe.architecture.hidden_size)
    if recipe.encoder is not None:
        rate = 1e-4
    if recipe.method is not None:
        rate = plugins.load_plugin("methods", recipe.method.name).LEARNING_RATE.default
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"learning_rate": rate})})


def recipe_text(recipe: Recipe | PretrainRecipe) -> str:
    """Return `recipe` as TOML with every default written out; `read_recipe` reads it to the same sections.

    A key that is unset is left out where that is its default, and is `"none"` otherwise.
    """
    return tomlkit.dumps(_tables(recipe))


def recipe_hash(recipe: Recipe | PretrainRecipe) -> str:
    """Return the SHA-256, in hexadecimal, of the resolved settings that can change what a run computes.

    It does not depend on how the file is laid out or where it stands, nor on `run.dir`, `run.trackers`,
    `run.project`, `run.recipe`, `train.resume`, `budget.peak_memory_gb`, `budget.minutes` and `budget.latency_ms`.
    """
    tables = _tables(resolved(recipe) if isinstance(recipe, Recipe) else resolved_pretraining(recipe))
    for section, key in _NOT_HASHED:
        tables.get(section, {}).pop(key, None)
    canonical = json.dumps(tables, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _tables(recipe: Recipe | PretrainRecipe) -> dict[str, Any]:
    """Return the sections of `recipe` as TOML tables."""
    tables: dict[str, Any] = {}
    for section in sections(type(recipe)):
        match getattr(recipe, section):
            case Choice(name=name, config=config):
                tables[section] = {"name": name, **_table(config)}
            case (Choice(), *_) as choices:
                tables[section] = [{"name": choice.name, **_table(choice.config)} for choice in choices]
            case Record() as record:
                tables[section] = _table(record)
    return tables


def _table(record: Record) -> dict[str, Any]:
    table: dict[str, Any] = {}
    plain = record.model_dump(mode="json")
    for key, field in type(record).model_fields.items():
        value = getattr(record, key)
        if isinstance(value, Record):
            table[key] = _table(value)
        elif value is not None:
            table[key] = plain[key]
        elif field.get_default(call_default_factory=True) is not None:
            table[key] = UNSET
    return table
