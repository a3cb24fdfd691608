"""Train a linear probe: frozen embeddings once, a logistic regression, and the same saving and scoring as any run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from peftlab.data.tokens import Tokens
from peftlab.evaluation.forward import logits_of, pooled_features
from peftlab.training.linear_probe import choose_probe, linear_head, write_head
from peftlab.training.outcome import Outcome, Sitting
from peftlab.training.prepare import Found, build_model, check_budget, shipped_bytes, tokenise_split
from peftlab.training.progress import bar
from peftlab.training.save import save_and_prove

if TYPE_CHECKING:
    from peftlab.methods.probe import Config


def solve_by_probe(found: Found, sitting: Sitting) -> Outcome:
    """Solve the head on frozen embeddings, save, prove, and score the test split once."""
    recipe, splits, place = found.recipe, found.splits, sitting.placement
    model = build_model(found, device=place.device, seed=recipe.train.seed)
    linear_head(model.module)
    check_budget(recipe, model.counts.trainable, shipped_bytes(model) if recipe.budget.shipped_mb is not None else 0)
    tokens: dict[str, Tokens] = {
        split.name: tokenise_split(found, split) for split in (splits.train, splits.validation, splits.test)
    }
    config: Config = recipe.method.config  # type: ignore[assignment] # this solver is the probe's
    started = time.perf_counter()
    features: dict[str, Any] = {}
    with bar(sitting.console, "embedding", len(splits.train) + len(splits.validation)) as drawn:
        for name in ("train", "validation"):
            features[name] = pooled_features(
                model.module,
                tokens[name],
                batch_size=recipe.evaluation.batch_size,
                device=place.device,
                advance=drawn.advance,
            )
    chosen = choose_probe(
        features["train"],
        features["validation"],
        splits,
        c=config.c,
        seed=recipe.train.seed,
        max_iterations=config.max_iterations,
    )
    write_head(model.module, chosen.weight, chosen.bias)
    seconds = time.perf_counter() - started
    sitting.say(f"probe: C = {chosen.c:g}, validation accuracy {chosen.accuracy:.4f}")
    logits = {
        name: logits_of(model.module, tokens[name], batch_size=recipe.evaluation.batch_size, device=place.device)
        for name in ("validation", "test")
    }
    test_seconds = time.perf_counter() - started - seconds
    saved = save_and_prove(found, model, tokens["test"], sitting)
    return Outcome(
        test_logits=logits["test"],
        validation=found.task.point_metrics(logits["validation"], splits.validation, splits, recipe.task.config),
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
    )
