"""The runs that teach another one: found, held against its data, and asked once for what they say of each text.

A teacher that was trained, or chosen, on rows that this run is judged by would hand them on. So each teacher's own rows
are read again, checked against the fingerprint in its result, and compared with this run's held-out texts by their
SHA-256 after normalisation (`text_key`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from peftlab.data.corpus import find_text, passages
from peftlab.data.examples import text_key
from peftlab.errors import DataError, RunError
from peftlab.evaluation.predictor import load_predictor
from peftlab.recipe.pretraining import Corpus
from peftlab.runs.files import whole_file
from peftlab.runs.folder import run_recipe
from peftlab.runs.model_record import TRAINED, read_model_record
from peftlab.runs.result import read_result

if TYPE_CHECKING:
    from types import ModuleType

    from peftlab.data.rows import Split, Splits
    from peftlab.recipe.records import Distill, Recipe

CACHE = "teaching"
"""Folder beside a teacher's trained part that keeps the logits which it was asked for."""


@dataclass(frozen=True)
class Lessons:
    """Who teaches a run, and the texts without a label that it learns from besides.

    `fingerprint`: SHA-256 over the teachers' trained parts and these texts.
    """

    teachers: tuple[Path, ...]
    unlabelled: tuple[str, ...]
    fingerprint: str


def find_lessons(recipe: Recipe, splits: Splits, task: ModuleType, say: Callable[[str], None]) -> Lessons | None:
    """Return what `[distill]` names, None without it. RunError or DataError where it cannot teach this run honestly."""
    asked = recipe.distill
    if asked is None:
        return None
    folders = tuple(_folder(name, recipe.path.parent) for name in asked.teachers)
    held_out = _held_out(recipe, splits)
    for folder in folders:
        _check_labels(folder, splits)
        _check_rows(folder, splits, task, held_out)
    texts = _unlabelled(asked, recipe, splits, held_out, say)
    digest = hashlib.sha256()
    for part in (*map(trained_hash, folders), *texts):
        digest.update(part.encode() + b"\x1e")
    return Lessons(folders, texts, digest.hexdigest())


def trained_hash(folder: Path) -> str:
    """Return the SHA-256 of what a run trained, over the names and bytes of its files."""
    digest = hashlib.sha256()
    for path in sorted((folder / TRAINED).rglob("*")):
        if path.is_file() and path.name != "README.md":
            digest.update(path.relative_to(folder).as_posix().encode() + b"\x1e" + path.read_bytes())
    return digest.hexdigest()


def teacher_logits(
    folder: Path,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    label_names: Sequence[str],
    say: Callable[[str], None],
) -> NDArray[np.float32]:
    """Return a teacher's logits, [texts, labels], columns in the order of `label_names`; computed once and then kept.

    They are kept in `teaching/` of the teacher's folder under the SHA-256 of its trained part and of the texts.
    """
    content = json.dumps([trained_hash(folder), list(texts), list(pairs) if pairs is not None else None])
    path = folder / CACHE / f"{hashlib.sha256(content.encode()).hexdigest()}.npy"
    if path.is_file():
        logits: NDArray[np.float32] = np.load(path, allow_pickle=False)
    else:
        logits = load_predictor(folder).logits(texts, pairs)
        try:
            with whole_file(path) as file:
                np.save(file, logits, allow_pickle=False)
        except OSError as error:
            say(f"the logits of the teacher {folder} could not be kept for the next run ({error.strerror or error})")
    own = read_model_record(folder).labels
    return logits[:, [own.index(name) for name in label_names]]


def _folder(name: str, beside: Path) -> Path:
    given = Path(name).expanduser()
    places = [given] if given.is_absolute() else [beside / given, given]
    folder = next((place.resolve() for place in places if place.is_dir()), None)
    if folder is None:
        raise RunError(f"distill.teachers: there is no run folder {name!r}; looked in {' and '.join(map(str, places))}")
    status = read_result(folder).status
    if status not in ("ok", "validated", "stopped"):
        raise RunError(f"distill.teachers: the run in {folder} has the status {status}; only a trained one can teach")
    return folder


def _check_labels(folder: Path, splits: Splits) -> None:
    record = read_model_record(folder)
    if set(record.labels) != set(splits.label_names) or record.multi_label != splits.multi_label:
        odd = sorted(set(record.labels) ^ set(splits.label_names))[:5]
        raise RunError(
            f"distill.teachers: {folder} knows other labels than this run's data: {', '.join(odd) or 'kind'}"
        )


def _held_out(recipe: Recipe, splits: Splits) -> set[str]:
    """Return the texts that this run is chosen and judged by, but for those that it trains on all the same."""
    judged = [splits.test]
    if not (recipe.data.train_on_validation and recipe.evaluation.score_test):
        judged.append(splits.validation)
    return {key for split in judged for key in _keys(split)} - _keys(splits.train)


def _keys(split: Split) -> set[str]:
    pairs = split.pairs if split.pairs is not None else [None] * len(split)
    return {text_key(text, pair) for text, pair in zip(split.texts, pairs, strict=True)}


def _check_rows(folder: Path, splits: Splits, task: ModuleType, held_out: set[str]) -> None:
    """Raise DataError where the teacher trained on a held-out text, or where that can no longer be told."""
    recipe, data = run_recipe(folder), read_result(folder).data
    also_validation = recipe.data.train_on_validation and recipe.evaluation.score_test
    if data is not None and data.fingerprint == splits.fingerprint and not also_validation:
        return  # the very same rows: what this run holds out, the teacher held out
    own = task.load_splits(recipe, recipe.task.config)
    if data is None or own.fingerprint != data.fingerprint:
        raise DataError(
            f"distill.teachers: the data of {folder} has changed since it was trained, so it cannot be told whether it "
            "saw this run's test rows; train the teacher again"
        )
    trained = _keys(own.train) | (_keys(own.validation) if also_validation else set())
    seen = held_out & trained
    if seen:
        raise DataError(
            f"distill.teachers: {folder} was trained on {len(seen):,} of this run's validation and test texts, such as "
            f"{min(seen)[:60]!r}; give both runs the same split (data.split_seed, or a file for each split)"
        )


def _unlabelled(
    asked: Distill, recipe: Recipe, splits: Splits, held_out: set[str], say: Callable[[str], None]
) -> tuple[str, ...]:
    if not asked.unlabelled:
        return ()
    if splits.train.pairs is not None:
        raise DataError(f"{recipe.path}: distill.unlabelled holds single texts, and this run's rows are pairs")
    corpus = Corpus(files=asked.unlabelled, text=asked.unlabelled_text)
    found = list(passages(find_text(corpus, recipe_path=recipe.path)))
    known = held_out | _keys(splits.train)
    fresh: dict[str, str] = {}
    for text in found:
        key = text_key(text)
        if key not in known:
            fresh.setdefault(key, text)
    say(
        f"distill: {len(fresh):,} unlabelled texts of {len(found):,}; the others are repeats, or stand in this run's "
        "own splits"
    )
    return tuple(fresh.values())
