"""The training loop: what a step is, whatever the size of a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from peftlab.data.tokens import Tokens, labelled_batches, tokenise
from peftlab.encoders.hooks import Hooks
from peftlab.encoders.load import HeadShape, load_classifier, load_tokenizer
from peftlab.encoders.trainable import trained_parameters
from peftlab.errors import NonFiniteLoss, PeftlabError
from peftlab.methods import lora
from peftlab.recipe.records import Encoder, Evaluation, Optimizer, Train
from peftlab.tasks import classification
from peftlab.training.loop import Fitting, Step, fit
from peftlab.training.optimizers import make_optimizer, parameter_groups
from peftlab.training.placement import Placement
from peftlab.training.plan import make_plan

ROWS = 36
"""Not a multiple of 8: the last group of an epoch is short."""


@pytest.fixture
def fitting(tiny_encoder: Callable[..., Path]) -> Callable[..., Fitting]:
    """Return `make(batch_size, accumulation, ...)`: a LoRA on the tiny encoder, always from the same weights."""
    folder = tiny_encoder()
    tokenizer = load_tokenizer(folder)
    words = ["parcel", "refund", "battery", "courier", "invoice", "screen", "late", "card"]
    texts = [" ".join(words[(row + step) % 8] for step in range(1 + row % 5)) for row in range(ROWS)]
    tokens: Tokens = tokenise(tokenizer, texts, None, 32)
    labels = np.arange(ROWS) % 3

    def make(
        batch_size: int, accumulation: int, *, epochs: float = 1.0, learning_rate: float = 1e-2, **changes: Any
    ) -> Fitting:
        torch.manual_seed(0)
        loaded = load_classifier(Encoder(name=str(folder), pooling="mean"), folder, HeadShape(labels=3, dropout=0.0))
        for module in loaded.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        for attention in (layer.attention.self for layer in loaded.model.encoder.encoder.layer):
            attention.dropout = torch.nn.Dropout(0.0)
        model = lora.attach(loaded.model, lora.Config(dropout=0.0), loaded.anatomy)
        train = Train(epochs=epochs, batch_size=batch_size, accumulation=accumulation)
        device = torch.device("cpu")
        base = Fitting(
            model=model,
            lengths=tokens.lengths,
            batch=labelled_batches(tokens, torch.from_numpy(labels)),
            row_weights=np.ones(ROWS, np.float32),
            row_losses=lambda logits, targets: classification.row_losses(
                logits, targets, None, classification.Config()
            ),
            optimizer=make_optimizer(
                parameter_groups(model, loaded.anatomy, Optimizer(), learning_rate), Optimizer(), device
            ),
            plan=make_plan(train, Evaluation(), ROWS),
            schedule="linear",
            clip=1.0,
            seed=0,
            placement=Placement(0, 1, device, 1, "fp32"),
            describe_rows=lambda rows: ", ".join(f"row {row}" for row in rows),
            stop_asked=lambda: False,
        )
        return replace(base, **changes)

    return make


def weights(fitting: Fitting) -> dict[str, torch.Tensor]:
    """Return a copy of the trained parameters."""
    return {name: parameter.detach().clone() for name, parameter in trained_parameters(fitting.model).items()}


def largest_difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """Return the largest absolute difference of a weight."""
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def test_accumulating_two_batches_of_four_equals_one_batch_of_eight(fitting: Callable[..., Fitting]) -> None:
    """Five steps of 36 rows in groups of 8, the fifth of them short, end in the same weights to 1e-6.

    At a rate of 1e-3: Adam divides by the gradient's size, so that rounding grows with the rate, on some processors.
    """
    accumulated, whole = fitting(4, 2, learning_rate=1e-3), fitting(8, 1, learning_rate=1e-3)
    start = weights(whole)
    steps, others = list(fit(accumulated)), list(fit(whole))

    assert [step.rows for step in steps] == [step.rows for step in others]
    assert sorted(step.rows for step in steps) == [4, 8, 8, 8, 8]
    assert largest_difference(weights(accumulated), weights(whole)) < 1e-6
    assert largest_difference(start, weights(whole)) > 1e-3
    assert [step.loss for step in steps] == pytest.approx([step.loss for step in others], abs=1e-6)


def test_class_weights_keep_accumulation_exact(fitting: Callable[..., Fitting]) -> None:
    """The weight of a group is that of all its rows, not the mean over its forward passes."""
    row_weights = (1.0 + 9.0 * (np.arange(ROWS) % 3 == 0)).astype(np.float32)
    accumulated = fitting(2, 4, row_weights=row_weights, learning_rate=1e-3)
    whole = fitting(8, 1, row_weights=row_weights, learning_rate=1e-3)
    for _ in zip(fit(accumulated), fit(whole), strict=True):
        pass

    assert largest_difference(weights(accumulated), weights(whole)) < 1e-6


def test_passes_of_few_tokens_give_the_same_training(fitting: Callable[..., Fitting]) -> None:
    """The forward passes of a step are cut by their padded tokens; losses and weights stay those of whole groups."""
    whole, cut = fitting(8, 1, learning_rate=1e-3), fitting(8, 1, learning_rate=1e-3)
    widths: list[tuple[int, ...]] = []
    own = cut.batch

    def batch(rows: NDArray[np.int64], epoch: int) -> Any:
        made = own(rows, epoch)
        widths.append(tuple(made.inputs["input_ids"].shape))
        return made

    cut = replace(cut, batch=batch, plan=replace(cut.plan, most_tokens=16))
    for mine, theirs in zip(fit(cut), fit(whole), strict=True):
        assert mine.loss == pytest.approx(theirs.loss, abs=1e-6)

    assert max(rows * width for rows, width in widths) <= 16
    assert len(widths) > 2 * cut.plan.total_steps
    assert largest_difference(weights(cut), weights(whole)) < 1e-6


def test_penalty_is_added_once_a_step_and_after_step_sees_every_update(fitting: Callable[..., Fitting]) -> None:
    """A constant penalty raises the reported loss by itself, however many forward passes a step takes."""
    seen: list[tuple[int, bool]] = []
    penalised = fitting(4, 2)

    def penalty() -> torch.Tensor:
        return 5.0 + 0.0 * sum(parameter.sum() for parameter in trained_parameters(penalised.model).values())

    plain = next(fit(fitting(4, 2)))
    hooks = Hooks(penalty=penalty, after_step=lambda step, updated: seen.append((step, updated)))
    steps = list(fit(replace(penalised, hooks=hooks)))

    assert steps[0].loss == pytest.approx(plain.loss + 5.0, abs=1e-5)
    assert seen == [(1, True), (2, True), (3, True), (4, True), (5, True)]


def test_a_step_that_overflows_in_fp16_is_said_to_change_no_weight(fitting: Callable[..., Fitting]) -> None:
    """Gradients come unscaled; after an overflow the weights stay, and the hook is told so."""
    made = fitting(8, 1, row_losses=lambda logits, _: 1000.0 * logits.square().sum(1))
    seen: list[tuple[int, bool, bool]] = []

    def after_step(step: int, updated: bool) -> None:
        norm = torch.stack([p.grad.norm() for p in trained_parameters(made.model).values() if p.grad is not None]).max()
        seen.append((step, updated, bool(norm <= 1.0)))

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=1)
    start = weights(made)
    steps = fit(replace(made, hooks=Hooks(after_step=after_step)), scaler=scaler)
    next(steps)
    unchanged = largest_difference(start, weights(made))
    while not seen[-1][1]:
        scaler.update(2.0**10)
        next(steps)

    assert seen[0] == (1, False, False)
    assert unchanged == 0.0
    assert seen[-1][1:] == (True, True), "a clipped norm of 1 at most: the scale is taken out"
    assert largest_difference(start, weights(made)) > 0.0


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(fitting: Callable[..., Fitting]) -> None:
    """The error names the step and the rows, and the weights are those of the step before."""
    broken = fitting(8, 1, row_losses=lambda logits, _: logits.sum(1) * float("nan"))
    start = weights(broken)
    with pytest.raises(NonFiniteLoss, match=r"step 1 .*row \d+, row"):
        next(fit(broken))

    assert largest_difference(start, weights(broken)) == 0.0


class MemoryLimit(torch.nn.Module):
    """A model that runs out of memory on more than `rows` rows."""

    def __init__(self, model: torch.nn.Module, rows: int) -> None:
        super().__init__()
        self.model, self.rows = model, rows

    def forward(self, **batch: torch.Tensor) -> Any:
        """Refuse large batches as CUDA does."""
        if len(batch["input_ids"]) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory (made up)")
        return self.model(**batch)


def test_out_of_memory_halves_the_forward_pass_and_leaves_the_training_the_same(
    fitting: Callable[..., Fitting],
) -> None:
    """Forward passes shrink to what fits; losses and weights stay those of the whole batch."""
    whole, limited = fitting(8, 1), fitting(8, 1)
    inner = limited.model
    steps: list[Step] = list(fit(replace(limited, model=MemoryLimit(inner, rows=3))))
    others = list(fit(whole))

    assert {step.micro_rows for step in steps} == {2}
    assert [step.loss for step in steps] == pytest.approx([step.loss for step in others], abs=1e-5)
    assert largest_difference(weights(replace(limited, model=inner)), weights(whole)) < 1e-5


def test_a_single_row_that_does_not_fit_is_said_in_a_sentence(fitting: Callable[..., Fitting]) -> None:
    """There is nothing left to halve: the error says which settings to change."""
    limited = fitting(8, 1)
    with pytest.raises(PeftlabError, match=r"out of memory in a forward pass of 1 rows; lower train.batch_size"):
        next(fit(replace(limited, model=MemoryLimit(limited.model, rows=0))))


def test_continuing_after_some_steps_takes_the_same_rows(fitting: Callable[..., Fitting]) -> None:
    """Steps 3 to 5 of a continued loop see the learning rates and group sizes of an uninterrupted one."""
    whole = list(fit(fitting(8, 1)))
    rest = list(fit(fitting(8, 1), done=2))

    assert [step.number for step in rest] == [3, 4, 5]
    assert [(step.learning_rate, step.rows, step.tokens) for step in rest] == [
        (step.learning_rate, step.rows, step.tokens) for step in whole[2:]
    ]
