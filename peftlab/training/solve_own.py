"""Train a method that brings its own model and no encoder, such as `tfidf`."""

from __future__ import annotations

import time

from peftlab.encoders.saved import folder_bytes
from peftlab.runs.files import whole_folder
from peftlab.runs.model_record import TRAINED, ModelRecord, write_model_record
from peftlab.training.ceilings import TEXTS, check_memory, check_minutes, latency_of
from peftlab.training.outcome import Outcome, Sitting, prove_same
from peftlab.training.prepare import Found, check_budget


def solve_by_itself(found: Found, sitting: Sitting) -> Outcome:
    """Fit, save, load back, prove, and score the test split once."""
    recipe, splits, method = found.recipe, found.splits, found.method
    check_memory(recipe, 0.0)
    check_minutes(recipe, sitting.clock, 0.0)
    started = time.perf_counter()
    model = method.fit(splits, recipe.method.config, seed=recipe.train.seed)
    seconds = time.perf_counter() - started
    check_budget(recipe, model.parameters, 0)
    test_logits = method.logits(model, splits.test.texts, splits.test.pairs)
    validation_logits = method.logits(model, splits.validation.texts, splits.validation.pairs)
    test_seconds = time.perf_counter() - started - seconds
    folder = sitting.folder / TRAINED
    with whole_folder(folder) as target:
        method.save(model, target)
    size = folder_bytes(folder)
    check_budget(recipe, model.parameters, size)
    record = ModelRecord(labels=splits.label_names, multi_label=splits.multi_label, encoder=None)
    write_model_record(sitting.folder, record)
    latency = None
    if recipe.budget.latency_ms is not None:
        texts, pairs = splits.validation.texts, splits.validation.pairs
        singles = [slice(row, row + 1) for row in range(min(TEXTS, len(texts)))]
        latency = latency_of(
            lambda: [method.logits(model, texts[one], pairs[one] if pairs is not None else None) for one in singles],
            len(singles),
        )
    again = method.logits(method.load(folder), splits.test.texts, splits.test.pairs)
    return Outcome(
        test_outputs=test_logits,
        validation=found.task.point_metrics(validation_logits, splits.validation, splits, recipe.task.config),
        trainable=model.parameters,
        total=model.parameters,
        embedding=None,
        shipped_bytes=size,
        new_modules=(),
        encoder=None,
        best=None,
        train_seconds=seconds,
        test_seconds=test_seconds,
        tokens_per_second=None,
        logit_difference=prove_same(test_logits, again, folder),
        compared_rows=len(splits.test),
        latency_ms=latency,
    )
