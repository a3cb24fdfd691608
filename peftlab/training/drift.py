"""What 8-bit or 4-bit weights save, and how far they move the logits of the trained model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from peftlab.data.tokens import first_rows
from peftlab.encoders.quantised import WeightBytes
from peftlab.encoders.saved import load_trained
from peftlab.evaluation.agreement import logit_difference
from peftlab.evaluation.forward import logits_of
from peftlab.runs.model_record import TRAINED
from peftlab.runs.result_parts import Quantised
from peftlab.training.outcome import ROUND_TRIP_ROWS, Measured, Sitting, peak_memory
from peftlab.training.prepare import Found, bare_model, tokenise_split

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
    tokens = first_rows(tokenise_split(found, splits.validation), ROUND_TRIP_ROWS)
    logits = partial(logits_of, tokens=tokens, batch_size=recipe.evaluation.batch_size, device=device)
    full = recipe.encoder.model_copy(update={"load_in": "full", "dtype": "fp32"})
    in_full = replace(found, recipe=recipe.model_copy(update={"encoder": full}))
    bare = bare_model(in_full, device=device, seed=recipe.train.seed)
    attach = partial(found.method.attach, config=recipe.method.config, anatomy=bare.anatomy)
    reference = logits(load_trained(bare.module, sitting.folder / TRAINED, attach).to(device))
    threshold = getattr(recipe.task.config, "threshold", 0.5)
    drift = logit_difference(reference, logits(model), multi_label=splits.multi_label, threshold=threshold)
    report = Quantised(
        kind=recipe.encoder.load_in,
        linear_bytes=stored.linear,
        linear_bytes_fp32=stored.linear_fp32,
        other_bytes=stored.other,
        logit_drift_max=drift.max,
        logit_drift_mean=drift.mean,
        changed_predictions=drift.flips,
        rows=drift.rows,
    )
    return Measured(report, memory)
