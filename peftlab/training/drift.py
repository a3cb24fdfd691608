"""What 8-bit or 4-bit weights save, and how far they move the logits of the trained model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from peftlab.encoders.quantised import WeightBytes
from peftlab.encoders.saved import load_trained
from peftlab.evaluation.agreement import gap
from peftlab.evaluation.forward import Passes
from peftlab.runs.model_record import TRAINED
from peftlab.runs.result_parts import Quantised
from peftlab.training.outcome import ROUND_TRIP_ROWS, Measured, Sitting, peak_memory
from peftlab.training.prepare import Found, bare_model

if TYPE_CHECKING:
    from torch import nn


def measure_quantised(found: Found, model: nn.Module, stored: WeightBytes, sitting: Sitting) -> Measured | None:
    """Compare the trained `model` with the same trained part on the encoder in fp32; None where that is what it has.

    Up to 256 validation rows are compared. `stored` are the bytes of the encoder's weights.
    """
    recipe, splits, device = found.recipe, found.splits, sitting.placement.device
    if recipe.encoder is None or recipe.encoder.load_in == "full":
        return None
    memory = peak_memory(device)
    task, passes = found.task, Passes(recipe.evaluation.batch_size, device)
    tokens = task.encode(found.tokenizer, splits.validation, recipe).first(ROUND_TRIP_ROWS)
    full = recipe.encoder.model_copy(update={"load_in": "full", "dtype": "fp32"})
    in_full = replace(found, recipe=recipe.model_copy(update={"encoder": full}))
    bare = bare_model(in_full, device=device, seed=recipe.train.seed)
    attach = partial(found.method.attach, config=recipe.method.config, anatomy=bare.anatomy)
    reference = load_trained(bare.module, sitting.folder / TRAINED, attach).to(device)
    largest, mean = gap(*(task.logits(one, tokens, recipe, passes) for one in (reference, model)))
    before, after = (
        task.predicted(task.outputs(one, tokens, recipe, passes), splits, recipe.task.config)
        for one in (reference, model)
    )
    report = Quantised(
        kind=recipe.encoder.load_in,
        linear_bytes=stored.linear,
        linear_bytes_fp32=stored.linear_fp32,
        other_bytes=stored.other,
        logit_drift_max=largest,
        logit_drift_mean=mean,
        changed_predictions=sum(old != new for old, new in zip(before, after, strict=True)),
        rows=len(tokens),
    )
    return Measured(report, memory)
