"""The models of a server, by name: runs of one encoder share it in memory, whatever else there is stands alone."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.errors import EncoderError, RunError, UserError
from peftlab.evaluation.predictor import Logits, Predictor, classifier, load_predictor
from peftlab.evaluation.several import Row, SeveralRuns
from peftlab.recipe.plugins import load_plugin
from peftlab.runs.calibration import run_calibration
from peftlab.runs.certificate import is_export, read_certificate
from peftlab.runs.folder import run_recipe
from peftlab.runs.model_record import read_model_record

NAME = re.compile(r"[\w.-]{1,64}")
NAME_RULE = "1 to 64 letters, digits, dots, hyphens and underscores"
EncoderKey = tuple[str, str, str, str]
"""What two runs must agree on to share an encoder: the SHA-256 of its files, how it is loaded, its type, and whether it
has the architecture's own pooler (`native`) or none."""


@dataclass(frozen=True)
class Kind:
    """What a model is, for people: its task, its method, for an export the format, and its labels."""

    task: str
    method: str
    format: str | None
    labels: tuple[str, ...]
    multi_label: bool


@dataclass(frozen=True)
class Served:
    """A model under its name.

    `predictor`: what its task makes of it; the server uses its `rows` and its `pair_column` and nothing else.
    `lane`: texts of models with the same lane may stand in one batch. `shared`: the runs that it shares its encoder
    with, by the encoder's key; None where the model stands alone, and `alone_because` says why.
    """

    name: str
    kind: Kind
    predictor: Any
    lane: str
    shared: EncoderKey | None
    alone_because: str | None


class Models:
    """Loads, answers and unloads. One thread at a time: the encoder's modules are put in and out (see `several`)."""

    def __init__(self) -> None:
        """Start without a model."""
        self._served: dict[str, Served] = {}
        self._shared: dict[EncoderKey, SeveralRuns] = {}

    @property
    def served(self) -> dict[str, Served]:
        """The models by name, in the order in which they were loaded."""
        return dict(self._served)

    def load(self, name: str, folder: Path) -> Served:
        """Load the run or export in `folder` under `name`, answer one text with it, and return it.

        Raises RunError where the name is taken or the folder is not whole, EncoderError where its encoder has changed.
        """
        if name in self._served:
            raise RunError(f"there is a model named {name!r} already; unload it first, or choose another name")
        served = _load_export(name, folder) if is_export(folder) else self._load_run(name, folder)
        self._served = {**self._served, name: served}  # other threads read the old table or the new one
        try:
            self._warm(served)
        except BaseException:
            self.unload(name)
            raise
        give_back_memory()
        return served

    def unload(self, name: str) -> None:
        """Forget the model of this name; RunError where there is none. An encoder goes with its last run."""
        served = self.known(name)
        self._served = {other: one for other, one in self._served.items() if other != name}
        if served.shared is not None:
            runs = self._shared[served.shared]
            runs.remove(name)
            if not runs.members:
                del self._shared[served.shared]
        give_back_memory()

    def known(self, name: str) -> Served:
        """Return the model of this name; RunError that lists the names where there is none."""
        if name not in self._served:
            names = ", ".join(map(repr, self._served)) or "none yet"
            raise RunError(f"there is no model of that name; there are: {names}")
        return self._served[name]

    def answer(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return what each row's predictor says of it, in the order of `rows`, all of which are of one lane."""
        first = self.known(rows[0].name)
        if len({row.name for row in rows}) == 1 or first.shared is None:
            return _alone(first.predictor, rows)
        logits = self._shared[first.shared].predict_mixed(rows)
        found: dict[int, dict[str, Any]] = {}
        for name in dict.fromkeys(row.name for row in rows):
            places = [place for place, row in enumerate(rows) if row.name == name]
            known = np.stack([logits[place] for place in places])
            predictor = replace(self.known(name).predictor, logits=partial(_known, known))
            found.update(zip(places, _alone(predictor, [rows[place] for place in places]), strict=True))
        return [found[place] for place in range(len(rows))]

    def _warm(self, served: Served) -> None:
        """Answer a text: the first pass of a model, and of a mixture of models, makes what the later ones use."""
        for names in ({served.name}, {one.name for one in self._served.values() if one.lane == served.lane}):
            self.answer([Row(one, "a", "a" if self._served[one].predictor.pair_column else None) for one in names])

    def _load_run(self, name: str, folder: Path) -> Served:
        record, recipe, key = read_model_record(folder), run_recipe(folder), _encoder_key(folder)
        kind = Kind(recipe.task.name, recipe.method.name, None, record.labels, record.multi_label)
        if key is None:
            return Served(name, kind, load_predictor(folder), f"model {name}", None, "it has no encoder")
        runs = self._shared.get(key) or SeveralRuns()
        try:
            runs.add(name, folder)
        except (RunError, EncoderError) as error:
            # A broken folder raises once more, now on its own; a whole one that changes the encoder loads.
            return Served(name, kind, load_predictor(folder), f"model {name}", None, str(error))
        self._shared[key] = runs
        if load_plugin("tasks", recipe.task.name).EACH_TOKEN:
            return Served(name, kind, runs.predictor(name), f"model {name}", key, None)
        predictor = _on_shared_encoder(folder, partial(runs.logits, name))
        lane = f"encoder {'-'.join(key)}" if runs.mixes(name) else f"model {name}"
        return Served(name, kind, predictor, lane, key, None)


def named_folders(words: Sequence[str], find: Callable[[str], Path]) -> dict[str, Path]:
    """Return the folders that a command line's words mean, by name: ``NAME=FOLDER``, or a folder under its own name.

    `find(word)` returns the folder of a word or raises. UserError where two have one name.
    """
    found: dict[str, Path] = {}
    for word in words:
        given, equals, path = word.partition("=")
        folder = find(path) if equals else find(word)
        name = given if equals else folder.resolve().name
        if not NAME.fullmatch(name):
            raise UserError(f"{name!r} is no name for a model: {NAME_RULE}; give another one: OTHER={folder}")
        if name in found:
            raise UserError(f"two models are named {name!r}; give one of them another name: OTHER={folder}")
        found[name] = folder
    return found


def _known(logits: NDArray[np.float32], _texts: Sequence[str], _pairs: Sequence[str] | None) -> NDArray[np.float32]:
    """Return logits that a mixed pass has given already."""
    return logits


def _on_shared_encoder(folder: Path, logits: Logits) -> Predictor:
    """Return the predictor of a run whose model is `logits`; whatever else a run says of its answers belongs here."""
    made = classifier(read_model_record(folder), run_recipe(folder), logits)
    return replace(made, calibration=run_calibration(folder))


def _alone(predictor: Any, rows: Sequence[Row]) -> list[dict[str, Any]]:
    pairs = [row.pair or "" for row in rows] if predictor.pair_column else None
    answers: list[dict[str, Any]] = predictor.rows([row.text for row in rows], pairs)
    return answers


def _load_export(name: str, folder: Path) -> Served:
    from peftlab.shipping.loading import load_export

    exported = read_certificate(folder).exported
    kind = Kind(
        exported.task, exported.method, exported.format.replace("_", "-"), exported.labels, exported.multi_label
    )
    return Served(name, kind, load_export(folder), f"model {name}", None, "an export is a model of its own")


def _encoder_key(folder: Path) -> EncoderKey | None:
    """Return what runs must agree on to share an encoder; None for a run without one."""
    encoder, settings = read_model_record(folder).encoder, run_recipe(folder).encoder
    if encoder is None or settings is None:
        return None
    task = load_plugin("tasks", run_recipe(folder).task.name)
    pooler = "several" in task.FEATURES and task.keeps_pooler(encoder.pooling)
    head = "native" if pooler else "pooled"
    return encoder.sha256, settings.load_in, settings.stored_as, head


def give_back_memory() -> None:
    """Give what loading used and freed back to the system, on Linux with glibc: about as much as an encoder."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
