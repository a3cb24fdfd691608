"""Everything of a run that stands before its first step: data, encoder, head, method, plan, ceilings."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from peftlab.encoders.anatomy import Anatomy
from peftlab.encoders.hooks import Hooks
from peftlab.encoders.load import Pooling, load_tokenizer
from peftlab.encoders.saved import save_trained
from peftlab.encoders.shape import inner_width
from peftlab.encoders.source import EncoderFiles, find_encoder
from peftlab.encoders.trainable import ParameterCounts, count_parameters
from peftlab.encoders.virtual_tokens import check_room
from peftlab.errors import BudgetError, DataError, UserError
from peftlab.recipe.plugins import load_plugin
from peftlab.training.heap import freed_memory_returned
from peftlab.training.plan import Plan, make_plan
from peftlab.training.teachers import Lessons, find_lessons

if TYPE_CHECKING:
    import torch
    from torch import nn

    from peftlab.data.rows import SplitName
    from peftlab.recipe.records import Recipe, Record


@dataclass(frozen=True)
class Model:
    """An encoder with head and method attached. `pooling` is what `auto` came to; `kept` as in `LoadedEncoder`."""

    module: nn.Module
    anatomy: Anatomy
    pooling: Pooling
    counts: ParameterCounts
    kept: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A recipe's plug-ins, rows and encoder; `files` and `tokenizer` are None for a method without an encoder.

    `splits`: the record of the task's own (see "Adding a task" in CONTRIBUTING.md). `lessons`: who teaches the run,
    where its recipe has `[distill]`.
    """

    recipe: Recipe
    task: ModuleType
    method: ModuleType
    splits: Any
    files: EncoderFiles | None
    tokenizer: Any
    lessons: Lessons | None = None

    @property
    def validates(self) -> bool:
        """Whether the validation rows are held out; else they are the last of the training rows too."""
        return not (self.recipe.data.train_on_validation and self.recipe.evaluation.score_test)

    @property
    def own_rows(self) -> int:
        """Training rows that are no validation rows; they come first."""
        return len(self.splits.train) - (0 if self.validates else len(self.splits.validation))


@freed_memory_returned()
def find_inputs(recipe: Recipe, *, report_path: Path | None, say: Callable[[str], None]) -> Found:
    """Find the encoder, then read and check the rows; `say` gets what people must know.

    Raises EncoderError, DataError or MissingPackage, each in sentences, before anything is computed.
    """
    task, method = load_plugin("tasks", recipe.task.name), load_plugin("methods", recipe.method.name)
    files, tokenizer = None, None
    if method.NEEDS_ENCODER:
        if recipe.encoder is None:
            raise UserError(f"{recipe.path}: the method {recipe.method.name!r} needs an [encoder] section")
        files = find_encoder(recipe.encoder, beside=recipe.path.parent)
        tokenizer = load_tokenizer(files.folder)
    splits = task.load_splits(recipe, recipe.task.config, tokenizer=tokenizer, report_path=report_path)
    for sentence in (*splits.report["notes"], *splits.report["warnings"]):
        say(f"data: {sentence}")
    _refuse_small_test(recipe, splits)
    lessons = find_lessons(recipe, splits, task, say)
    if not recipe.evaluation.score_test:
        # Here the test rows end: every later stage gets the validation rows in their place.
        splits = replace(splits, test=replace(splits.validation, name="test"))
    found = Found(recipe, task, method, splits, files, tokenizer, lessons)
    if found.validates:
        return found
    say("data: the validation rows are trained on too (data.train_on_validation); the last step is kept")
    return replace(found, splits=replace(splits, train=splits.train.joined(splits.validation)))


def build_model(found: Found, *, device: torch.device, seed: int) -> Model:
    """Load the encoder, draw the head and attach the method, all from `seed`; nothing depends on earlier draws."""
    loaded = bare_model(found, device=device, seed=seed)
    module = found.method.attach(loaded.module, found.recipe.method.config, loaded.anatomy)
    if found.recipe.encoder is not None:
        check_room(module, found.recipe.encoder.max_length)
    module.to(device)
    return Model(module, loaded.anatomy, loaded.pooling, count_parameters(module, loaded.anatomy), loaded.kept)


def bare_model(found: Found, *, device: torch.device, seed: int) -> Model:
    """Load the encoder under a fresh head, without the method: what a trained part is loaded into."""
    import torch

    if found.recipe.encoder is None or found.files is None:
        raise UserError("this run has no encoder")
    torch.manual_seed(seed)
    loaded = found.task.load_model(found.recipe, found.files.folder, found.task.labels(found.splits), device=device)
    if found.recipe.encoder.load_in == "full":
        loaded.model.to(device)
    counts = count_parameters(loaded.model, loaded.anatomy)
    return Model(loaded.model, loaded.anatomy, loaded.pooling, counts, loaded.kept)


@freed_memory_returned()
def tokenise_splits(found: Found) -> dict[SplitName, Any]:
    """Tokenise the three splits as task and recipe say."""
    splits = found.splits
    return {
        split.name: found.task.encode(found.tokenizer, split, found.recipe)
        for split in (splits.train, splits.validation, splits.test)
    }


def affordable_model(found: Found, *, device: torch.device) -> Model:
    """Build the recipe's model from its seed; BudgetError where it exceeds a ceiling of the recipe."""
    recipe = found.recipe
    model = build_model(found, device=device, seed=recipe.train.seed)
    check_budget(recipe, model.counts.trainable, shipped_bytes(model) if recipe.budget.shipped_mb is not None else 0)
    return model


def plan_of(found: Found) -> Plan:
    """Return the steps of the run."""
    return make_plan(found.recipe.train, found.recipe.evaluation, len(found.splits.train))


def hooks_of(found: Found, model: Model, plan: Plan) -> Hooks:
    """Return what the recipe's method does beside the gradient; UserError where the plan is too short for it."""
    return method_hooks(found.method, model.module, found.recipe.method.config, plan.total_steps, found.recipe.path)


def method_hooks(method: ModuleType, module: nn.Module, config: Record, total_steps: int, recipe_path: Path) -> Hooks:
    """Return what `method` does beside the gradient on `module` in a run of `total_steps` optimizer steps.

    Raises UserError, with the recipe's path, where the steps are too few for it.
    """
    make = getattr(method, "hooks", None)
    if make is None:
        return Hooks()
    try:
        hooks: Hooks = make(module, config, total_steps)
    except UserError as error:
        raise UserError(f"{recipe_path}: {error}") from error
    return hooks


def check_budget(recipe: Recipe, trainable: int, shipped_bytes: int) -> None:
    """Raise BudgetError where the plan exceeds a ceiling of the recipe, naming every one that it exceeds."""
    over = []
    ceiling = recipe.budget.trainable_parameters
    if ceiling is not None and trainable > ceiling:
        over.append(f"{trainable:,} trainable parameters against budget.trainable_parameters = {ceiling:,}")
    megabytes = recipe.budget.shipped_mb
    if megabytes is not None and shipped_bytes > megabytes * 1e6:
        over.append(f"{shipped_bytes / 1e6:.2f} MB shipped against budget.shipped_mb = {megabytes:g}")
    if over:
        raise BudgetError(
            f"{recipe.path}: the plan exceeds its budget: {'; '.join(over)}; choose a smaller method or raise it"
        )


def shipped_bytes(model: Model) -> int:
    """Return the bytes of the trained part as it will be shipped, by writing it to a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        return save_trained(model.module, Path(folder) / "trained", encoder_name="encoder")


def estimate_peak_bytes(
    model: Model,
    plan: Plan,
    width: int,
    *,
    resident: int,
    optimizer_bytes: int,
    most_tokens: int | None,
    recompute: bool = False,
) -> int:
    """Estimate the peak memory of training: what is resident now, gradients, optimizer state, and activations.

    `width`: tokens of the longest row. `resident`: bytes that the process holds with the model loaded.
    `optimizer_bytes`: bytes of optimizer state a trained parameter. Activations are counted for the largest possible
    forward pass: about 20 hidden-sized and 5 feed-forward-sized fp32 values a token and layer, and 4 attention maps;
    with `recompute` those of one layer, and the input of each. `most_tokens`: of a forward pass. An estimate, not a
    promise.
    """
    config: Any = model.module.config
    hidden, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    one_layer = 4 * (20 * hidden + 5 * inner_width(config) + 4 * heads * width)
    per_token = one_layer + layers * 4 * hidden if recompute else layers * one_layer
    tokens = plan.micro_rows * width
    activations = min(tokens, max(most_tokens or tokens, width)) * per_token
    return int(resident + model.counts.trainable * (4 + optimizer_bytes) + activations)


def _refuse_small_test(recipe: Recipe, splits: Any) -> None:
    """Raise DataError where the test split cannot give the interval that the recipe asks for."""
    from peftlab.evaluation.intervals import rows_needed

    margin = recipe.evaluation.margin
    if margin is None:
        return
    expected = recipe.evaluation.target if recipe.evaluation.target is not None else 0.9
    needed = rows_needed(margin, expected)
    if len(splits.test) < needed:
        raise DataError(
            f"{recipe.path}: evaluation.margin: a 95 % interval of ±{margin:g} around an accuracy of {expected:g} "
            f"needs {needed:,} test rows, and there are {len(splits.test):,}; label more, or ask for a wider margin"
        )
