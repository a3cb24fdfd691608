"""Save a trained model into its run folder, load it back in fresh objects, and compare."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from peftlab.data.tokens import Tokens, first_rows
from peftlab.encoders.saved import load_trained, save_trained
from peftlab.errors import UserError
from peftlab.evaluation.forward import logits_of
from peftlab.runs.files import whole_folder
from peftlab.runs.model_record import TOKENIZER, TRAINED, EncoderRecord, ModelRecord, write_model_record
from peftlab.training.outcome import ROUND_TRIP_ROWS, Sitting, prove_same
from peftlab.training.prepare import Found, Model, bare_model


@dataclass(frozen=True)
class Saved:
    """What was written: its size, the encoder it belongs to, and the largest difference of a logit after reloading."""

    shipped_bytes: int
    encoder: EncoderRecord
    difference: float
    rows: int


def save_and_prove(found: Found, model: Model, tokens: Tokens, sitting: Sitting) -> Saved:
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
    size = 0
    if place.is_main:
        size = save_trained(model.module, folder, encoder_name=files.used)
        with whole_folder(sitting.folder / TOKENIZER) as target:
            found.tokenizer.save_pretrained(str(target))
        record = ModelRecord(labels=found.splits.label_names, multi_label=found.splits.multi_label, encoder=encoder)
        write_model_record(sitting.folder, record)
        some = first_rows(tokens, ROUND_TRIP_ROWS)
        logits = partial(logits_of, batch_size=found.recipe.evaluation.batch_size, device=place.device)
        before = logits(model.module, some)
        # Another seed than training had: whatever the saved part lacks comes out different.
        bare = bare_model(found, device=place.device, seed=found.recipe.train.seed + 1)
        attach = partial(found.method.attach, config=found.recipe.method.config, anatomy=bare.anatomy)
        fresh = load_trained(bare.module, folder, attach).to(place.device)
        difference = prove_same(before, logits(fresh, some), folder)
        return Saved(size, encoder, difference, len(some))
    return Saved(size, encoder, 0.0, 0)
