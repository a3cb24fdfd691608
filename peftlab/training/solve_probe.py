"""Train a linear probe: frozen embeddings once, a logistic regression, and the same saving and scoring as any run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from peftlab.data.rows import SplitName
from peftlab.data.tokens import Tokens
from peftlab.encoders.anatomy import unwrapped
from peftlab.encoders.trainable import without_adapters
from peftlab.evaluation.forward import logits_of, pooled_features
from peftlab.evaluation.logistic import solve_probe
from peftlab.training.ceilings import (
    MARGIN,
    asked_latency,
    check_memory,
    check_minutes,
    check_speed,
    padded,
    seconds_of_pass,
)
from peftlab.training.linear_probe import Probe, choose_probe, linear_head, write_head
from peftlab.training.outcome import Outcome, Sitting
from peftlab.training.prepare import Found, Model, affordable_model, tokenise_splits
from peftlab.training.progress import bar
from peftlab.training.save import save_and_prove

if TYPE_CHECKING:
    from peftlab.methods.probe import Config


def solve_by_probe(found: Found, sitting: Sitting) -> Outcome:
    """Solve the head on frozen embeddings, save, prove, and score the test split once."""
    recipe, splits, place = found.recipe, found.splits, sitting.placement
    built = time.perf_counter()
    model = affordable_model(found, device=place.device)
    built = time.perf_counter() - built
    tokens = tokenise_splits(found)
    _hold_plan(found, model, tokens, sitting, built)
    config: Config = recipe.method.config  # type: ignore[assignment] # this solver is the probe's
    started = time.perf_counter()
    chosen = probe_head(found, model, tokens, sitting, c=config.c, max_iterations=config.max_iterations)
    seconds = time.perf_counter() - started
    sitting.say(f"probe: C = {chosen.c:g}, chosen at validation accuracy {chosen.accuracy:.4f}")
    shown = partial(logits_of, model.module, batch_size=recipe.evaluation.batch_size, device=place.device)
    logits = {"validation": shown(tokens["validation"]), "test": shown(tokens["test"])}
    test_seconds = time.perf_counter() - started - seconds
    saved = save_and_prove(found, model, tokens["test"], sitting)
    return Outcome(
        test_outputs=logits["test"],
        validation=found.task.point_metrics(logits["validation"], splits.validation, splits, recipe.task.config)
        if found.validates
        else {},
        trainable=model.counts.trainable,
        total=model.counts.total,
        embedding=model.counts.embedding,
        shipped_bytes=saved.shipped_bytes,
        new_modules=model.anatomy.new_modules,
        encoder=saved.encoder,
        best=None,
        train_seconds=seconds,
        test_seconds=test_seconds,
        tokens_per_second=None,
        logit_difference=saved.difference,
        compared_rows=saved.rows,
        shipped=saved.shipped,
        quantised=saved.quantised,
        latency_ms=asked_latency(found, model, tokens["validation"], place.device),
    )


def _hold_plan(found: Found, model: Model, tokens: Mapping[SplitName, Tokens], sitting: Sitting, built: float) -> None:
    """Refuse a plan that cannot keep the ceilings. `built`: seconds that loading the model took."""
    recipe, device = found.recipe, sitting.placement.device
    check_memory(recipe, 0.0)
    check_speed(found, model, tokens["validation"], device)
    if recipe.budget.minutes is None:
        return
    a_token = seconds_of_pass(found, model, tokens["validation"], device)
    passes = padded(tokens["train"]) + 2 * padded(tokens["validation"]) + padded(tokens["test"])
    check_minutes(recipe, sitting.clock, MARGIN * (a_token * passes + 2 * built) + 1.0)


def probe_head(
    found: Found,
    model: Model,
    tokens: Mapping[SplitName, Tokens],
    sitting: Sitting,
    *,
    c: float | Literal["auto"] = "auto",
    max_iterations: int = 1000,
) -> Probe:
    """Write the logistic regression on the frozen embeddings into the head of `model`, and return it.

    The embeddings are those of the encoder without what a method has attached to it. Raises EncoderError for an
    architecture's own head, before any embedding is computed.
    """
    linear_head(model.module)
    base = unwrapped(model.module)
    # Validation rows that are trained on have their embeddings among those of the training rows.
    names: tuple[SplitName, ...] = ("train", "validation") if found.validates else ("train",)
    with (
        without_adapters(model.module),
        bar(sitting.console, "embedding", sum(len(tokens[name]) for name in names)) as drawn,
    ):
        train, *held_out = (
            pooled_features(
                base,
                tokens[name],
                batch_size=found.recipe.evaluation.batch_size,
                device=sitting.placement.device,
                advance=drawn.advance,
            )
            for name in names
        )
    seed, labels, splits = found.recipe.train.seed, found.splits.train.labels, found.splits
    weights = splits.train.weights
    own = found.own_rows
    validation = held_out[0] if found.validates else train[own:]
    chosen = choose_probe(
        train[:own],
        validation,
        replace(
            splits, train=replace(splits.train, labels=labels[:own], weights=None if weights is None else weights[:own])
        ),
        c=c,
        seed=seed,
        max_iterations=max_iterations,
    )
    if not found.validates:
        weight, bias = solve_probe(train, labels, c=chosen.c, max_iterations=max_iterations, seed=seed, weights=weights)
        chosen = replace(chosen, weight=weight, bias=bias)
    write_head(model.module, chosen.weight, chosen.bias)
    return chosen
