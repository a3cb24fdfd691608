"""The curators of a recipe between its rows and its training; validation and test rows pass by them untouched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from peftlab.curation.embedding import frozen_embedder
from peftlab.curation.rows import Bench, Embed
from peftlab.curation.run import Curation, read_curation, run_curators, write_curation
from peftlab.data.rows import Split
from peftlab.encoders.load import load_tokenizer
from peftlab.encoders.source import find_encoder
from peftlab.training.prepare import Found

if TYPE_CHECKING:
    import torch

FOLDER = "curation"
"""Folder in a run folder that says what curators did."""


def curated(found: Found, folder: Path, *, device: torch.device, say: Callable[[str], None], write: bool) -> Found:
    """Return `found` with its training rows curated as the recipe says, and written down in `folder` if `write`.

    Where `folder` already holds what the curators of this recipe did to these rows, as it does in a run that is
    continued and for all processes but the first, that is done again to the same bits, and no curator runs.
    """
    if not found.recipe.curate:
        return found
    own = own_training_rows(found)
    bench, key = bench_of(found, device), _key(found)
    before = read_curation(folder, own, bench, key=key)
    if before is not None:
        say(f"curate: {len(own):,} training rows in, {len(before):,} out, as written in {folder}")
        return with_training_rows(found, before)
    done = run_curators(found.recipe.curate, own, bench)
    tell(done, say)
    if write:
        write_curation(folder, done, key=key, label_names=bench.label_names)
    return with_training_rows(found, done.split)


def tell(done: Curation, say: Callable[[str], None]) -> None:
    """Say what every curator did."""
    for step in done.steps:
        for sentence in (step.sentence(), *step.sentences):
            say(sentence)


def own_training_rows(found: Found) -> Split:
    """Return the rows of the training split, without validation rows that the recipe also trains on."""
    split: Split = found.splits.train
    if found.validates:
        return split
    end = found.own_rows
    pairs = None if split.pairs is None else split.pairs[:end]
    return Split(split.name, split.ids[:end], split.texts[:end], pairs, split.labels[:end])


def with_training_rows(found: Found, split: Split) -> Found:
    """Return `found` with `split` for its training rows, validation rows behind them where they are trained on."""
    whole = split if found.validates else split.joined(found.splits.validation)
    return replace(found, splits=replace(found.splits, train=whole))


def bench_of(found: Found, device: torch.device) -> Bench:
    """Return what the curators of this recipe may use; no row of any split is among it."""
    return Bench(
        label_names=found.splits.label_names,
        multi_label=found.splits.multi_label,
        seed=found.recipe.train.seed,
        folder=found.recipe.path.parent,
        embed=_embedder(found, device),
    )


def _embedder(found: Found, device: torch.device) -> Embed | None:
    encoder, files, tokenizer = found.recipe.encoder, found.files, found.tokenizer
    if encoder is None:
        return None
    if files is None:
        # The method does without the encoder that the recipe names; its curators may use it all the same.
        files = find_encoder(encoder, beside=found.recipe.path.parent)
        tokenizer = load_tokenizer(files.folder)
    size = found.recipe.evaluation.batch_size
    return frozen_embedder(encoder, files.folder, tokenizer, device=device, batch_size=size)


def _key(found: Found) -> str:
    """Return a hash of all that the outcome follows from: curators, rows, seed and encoder."""
    recipe = found.recipe
    parts = [
        [[choice.name, choice.config.model_dump(mode="json")] for choice in recipe.curate],
        [recipe.train.seed, found.splits.fingerprint, found.files.sha256 if found.files is not None else None],
        recipe.encoder.model_dump(mode="json") if recipe.encoder is not None else None,
        _review_hashes(found),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _review_hashes(found: Found) -> list[str]:
    """Return the hashes of files that curators read: another decision in one of them is another curation."""
    names = [
        value
        for choice in found.recipe.curate
        for key in ("review", "lexicon")
        if isinstance(value := getattr(choice.config, key, None), str)
    ]
    paths = [place for name in names for place in (found.recipe.path.parent / name, Path(name)) if place.is_file()]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
