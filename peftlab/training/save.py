"""Save a trained model into its run folder, load it back in fresh objects, and compare."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from peftlab.encoders.quantised import weight_bytes
from peftlab.encoders.saved import load_trained, save_trained, saved_parameters
from peftlab.errors import UserError
from peftlab.evaluation.forward import Passes
from peftlab.runs.files import whole_folder
from peftlab.runs.model_record import TOKENIZER, TRAINED, EncoderRecord, ModelRecord, write_model_record
from peftlab.training.drift import measure_quantised
from peftlab.training.outcome import ROUND_TRIP_ROWS, Measured, Sitting, prove_same
from peftlab.training.prepare import Found, Model, bare_model


@dataclass(frozen=True)
class Saved:
    """What was written: its size in bytes and in parameters, its encoder, and the largest difference of a logit.

    `quantised`: what 8-bit or 4-bit weights came to, where the encoder has them.
    """

    shipped_bytes: int
    shipped: int
    encoder: EncoderRecord
    difference: float
    rows: int
    quantised: Measured | None = None


def save_and_prove(found: Found, model: Model, tokens: Any, sitting: Sitting) -> Saved:
    """Write trained part, tokenizer and model record; prove on rows of `tokens` that they reload to the same logits.

    Only the first process writes and proves. Opens no socket.
    """
    files, place = found.files, sitting.placement
    if files is None:
        raise UserError("this run has no encoder")
    encoder = EncoderRecord(
        requested=files.requested,
        used=files.used,
        kind=files.kind,
        folder=str(files.folder),
        revision=files.revision,
        sha256=files.sha256,
        pooling=model.pooling,
    )
    folder = sitting.folder / TRAINED
    size = shipped = 0
    if place.is_main:
        size = save_trained(model.module, folder, encoder_name=files.used)
        shipped = saved_parameters(folder)
        with whole_folder(sitting.folder / TOKENIZER) as target:
            found.tokenizer.save_pretrained(str(target))
        record = ModelRecord(
            labels=found.task.labels(found.splits),
            multi_label=getattr(found.recipe.task.config, "multi_label", False),
            encoder=encoder,
            kept=dict(model.kept),
        )
        write_model_record(sitting.folder, record)
        some = tokens.first(ROUND_TRIP_ROWS)
        passes = Passes(found.recipe.evaluation.batch_size, place.device)
        logits = partial(found.task.logits, encoded=some, recipe=found.recipe, passes=passes)
        before = logits(model.module)
        # Another seed than training had: whatever the saved part lacks comes out different.
        bare = bare_model(found, device=place.device, seed=found.recipe.train.seed + 1)
        stored = weight_bytes(bare.module, bare.anatomy)
        attach = partial(found.method.attach, config=found.recipe.method.config, anatomy=bare.anatomy)
        fresh = load_trained(bare.module, folder, attach).to(place.device)
        difference = prove_same(before, logits(fresh), folder)
        measured = measure_quantised(found, fresh, stored, sitting)
        return Saved(size, shipped, encoder, difference, len(some), measured)
    return Saved(size, shipped, encoder, 0.0, 0)
