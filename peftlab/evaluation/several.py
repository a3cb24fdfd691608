"""Several finished runs on one encoder in memory: each answers as it does alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from peftlab.data.tokens import Tokens, batches_by_length, joined, pad, tokenise
from peftlab.encoders.load import HeadShape, load_classifier, load_tokenizer
from peftlab.encoders.mixed import can_mix, mixed_logits
from peftlab.encoders.several import SharedEncoder
from peftlab.encoders.source import find_again
from peftlab.errors import RunError
from peftlab.evaluation.forward import logits_of
from peftlab.evaluation.run_model import RunModel
from peftlab.recipe.plugins import load_plugin, tasks_in
from peftlab.runs.folder import run_recipe
from peftlab.runs.model_record import TOKENIZER, TRAINED, EncoderRecord, ModelRecord, read_model_record

if TYPE_CHECKING:
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy
    from peftlab.encoders.load import LoadedEncoder
    from peftlab.encoders.source import EncoderFiles
    from peftlab.recipe.records import Encoder, Recipe


_OWN_PASS = 5
"""Rows of a run from which on a pass of their own takes less time than their part of a mixed one; see decision 11."""


@dataclass(frozen=True)
class Row:
    """A text for the run that was added as `name`; `pair` is its second text, for runs on pairs."""

    name: str
    text: str
    pair: str | None = None


@dataclass(frozen=True)
class Member:
    """What is known of a run that was added: where it was, its recipe with the pooling that it came to, its record."""

    folder: Path
    recipe: Recipe
    record: ModelRecord
    tokenizer: Any

    @property
    def labels(self) -> tuple[str, ...]:
        """Its labels, in the order of its logits."""
        return self.record.labels


@dataclass(frozen=True)
class OnShared:
    """What a run's task answers texts by, with the model of a shared encoder: `use` puts the run's part into it."""

    predictor: Any
    use: Callable[[], object]

    @property
    def text_column(self) -> str:
        """Name of the column of texts in files."""
        return str(self.predictor.text_column)

    @property
    def pair_column(self) -> str | None:
        """Name of the column of second texts; None for single texts."""
        return None if self.predictor.pair_column is None else str(self.predictor.pair_column)

    def rows(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return what the task says of each text."""
        self.use()
        rows: list[dict[str, Any]] = self.predictor.rows(texts, pairs)
        return rows


class SeveralRuns:
    """Finished runs of one encoder, added and removed by name. The first one added decides on the encoder."""

    def __init__(self) -> None:
        """Start without a run; nothing is loaded yet."""
        self._members: dict[str, Member] = {}
        self._tokenizers: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self._shared: SharedEncoder | None = None
        self._of: tuple[EncoderRecord, Encoder] | None = None
        self._files: EncoderFiles | None = None

    @property
    def members(self) -> dict[str, Member]:
        """The runs by name, in the order in which they were added."""
        return dict(self._members)

    def add(self, name: str, folder: Path) -> None:
        """Load the run in `folder` under `name`.

        Raises RunError where the name is taken, the run is not whole, has no encoder, was trained on another encoder or
        on the same one stored otherwise, or changes the encoder's own weights; EncoderError where the encoder changed.
        """
        record, recipe = read_model_record(folder), run_recipe(folder)
        if record.encoder is None or recipe.encoder is None:
            raise RunError(f"{folder} has no encoder (method {recipe.method.name!r}): there is nothing to share")
        if recipe.task.name not in tasks_in("several"):
            raise RunError(
                f"{folder} is a run of the task {recipe.task.name!r}, which has no models on one encoder yet"
            )
        # The pooling that training came to; `auto` might come out differently with other files beside the weights.
        settings = recipe.encoder.model_copy(update={"pooling": record.encoder.pooling})
        recipe = recipe.model_copy(update={"encoder": settings})
        task, method = load_plugin("tasks", recipe.task.name), load_plugin("methods", recipe.method.name)
        shared = self._shared
        if shared is None:
            shared, self._files = _load_shared(record, settings, task.keeps_pooler(settings.pooling))
        else:
            self._refuse_other(folder, record.encoder, settings)

        def around(loaded: LoadedEncoder, encoder: Encoder) -> LoadedEncoder:
            made: LoadedEncoder = task.around(loaded, encoder, recipe, record.labels)
            return made

        def attach(model: nn.Module, anatomy: Anatomy) -> nn.Module:
            attached: nn.Module = method.attach(model, recipe.method.config, anatomy)
            return attached

        shared.add(name, folder / TRAINED, around, attach)
        if self._shared is None:
            self._shared, self._of = shared, (record.encoder, settings)
        self._members[name] = Member(folder, recipe, record, self._tokenizer(folder / TOKENIZER))

    def predictor(self, name: str) -> OnShared:
        """Return the run of this name as what its task answers texts by, as `load_predictor` does for a run alone."""
        member, shared, files = self._known(name), self._shared, self._files
        if shared is None or files is None:
            raise AssertionError("a run was added")
        module, task = shared.part(name).model, load_plugin("tasks", member.recipe.task.name)
        run = RunModel(module, member.tokenizer, files, member.recipe.needed_encoder(), member.recipe, member.record)
        return OnShared(task.predictor(run, shared.device, None), partial(shared.use, name))

    def remove(self, name: str) -> None:
        """Forget the run of this name; RunError where there is none. The encoder stays."""
        self._known(name)
        if self._shared is not None:
            self._shared.remove(name)
        del self._members[name]

    def logits(self, name: str, texts: Sequence[str], pairs: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Return the logits of the run of this name, [texts, its labels]: those that it has alone.

        RunError where its task gives no row of logits a text; ask its `predictor`.
        """
        member = self._known(name)
        if load_plugin("tasks", member.recipe.task.name).EACH_TOKEN:
            raise RunError(f"{name!r} is a run of the task {member.recipe.task.name!r}: ask its predictor")
        if (pairs is None) != (member.recipe.data.pair is None):
            raise RunError(f"{name!r} labels {'single texts' if pairs is not None else 'pairs of texts'}")
        if self._shared is None or member.recipe.encoder is None:
            raise AssertionError("a run was added")
        model = self._shared.use(name)
        tokens = tokenise(member.tokenizer, texts, pairs, member.recipe.encoder.max_length)
        device = next(model.parameters()).device
        return logits_of(model, tokens, batch_size=member.recipe.evaluation.batch_size, device=device)

    def mixes(self, name: str) -> bool:
        """Say whether rows of this run may stand in one forward pass with rows of others that say so too."""
        self._known(name)
        return self._shared is not None and can_mix(self._shared.part(name))

    def predict_mixed(self, rows: Sequence[Row]) -> list[NDArray[np.float32]]:
        """Return the logits of each row by the run that it names, [labels of that run], in the order of `rows`.

        Rows of runs that may meet in one forward pass (plain LoRA under a pooled head) are mixed there, but for runs
        with enough rows for a pass of their own; the others are grouped by run. Either way a row's logits are those of
        the run alone, up to rounding.
        """
        for row in rows:
            if (row.pair is not None) != (self._known(row.name).recipe.data.pair is not None):
                expected = "single texts" if row.pair is not None else "pairs of texts"
                raise RunError(f"{row.name!r} labels {expected}")
        if self._shared is None:
            return []
        places: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(row.name, []).append(place)
        mixing = [name for name, own in places.items() if len(own) < _OWN_PASS and self.mixes(name)]
        found: dict[int, NDArray[np.float32]] = {}
        if len(mixing) > 1:
            some = [place for place, row in enumerate(rows) if row.name in mixing]
            found.update(zip(some, self._mixed(self._shared, [rows[place] for place in some]), strict=True))
        for name in places.keys() - (mixing if len(mixing) > 1 else ()):
            own = [rows[place] for place in places[name]]
            pairs = [row.pair for row in own if row.pair is not None]
            found.update(zip(places[name], self.logits(name, [row.text for row in own], pairs or None), strict=True))
        return [found[place] for place in range(len(rows))]

    def _mixed(self, shared: SharedEncoder, rows: Sequence[Row]) -> list[NDArray[np.float32]]:
        """Return the logits of each row from passes in which rows of several runs stand together."""
        import torch

        # All that may be mixed, so that one mixture serves any choice of them.
        names = tuple(name for name in self._members if self.mixes(name))
        parts = [shared.part(name) for name in names]
        tokens, rows, order = self._tokens(rows)
        model = shared.mixed(names)
        device = next(model.parameters()).device
        size = min(self._members[name].recipe.evaluation.batch_size for name in names)
        found: dict[int, NDArray[np.float32]] = {}
        with torch.inference_mode():
            for some in batches_by_length(tokens.lengths, size):
                batch = {key: tensor.to(device) for key, tensor in pad(tokens, some).items()}
                numbers = [names.index(rows[place].name) for place in some]
                for place, values in zip(some, mixed_logits(model, parts, numbers, batch), strict=True):
                    found[order[int(place)]] = values.float().cpu().numpy()
        return [found[place] for place in range(len(rows))]

    def _tokens(self, rows: Sequence[Row]) -> tuple[Tokens, list[Row], list[int]]:
        """Return the tokens of `rows` run by run, the rows in that order, and the place of each in `rows`."""
        order = sorted(range(len(rows)), key=lambda place: rows[place].name)
        grouped = [rows[place] for place in order]
        parts = []
        for name in dict.fromkeys(row.name for row in grouped):
            member, own = self._members[name], [row for row in grouped if row.name == name]
            if member.recipe.encoder is None:
                raise AssertionError("members have an encoder")
            pairs = [row.pair for row in own if row.pair is not None] or None
            parts.append(tokenise(member.tokenizer, [row.text for row in own], pairs, member.recipe.encoder.max_length))
        return joined(parts), grouped, order

    def _tokenizer(self, folder: Path) -> Any:
        """Return the tokenizer in `folder`: that of a member whose files say the same, since each takes some 10 MB."""
        key = _said_by(folder)
        found = self._tokenizers.get(key)
        if found is None:
            self._tokenizers[key] = found = load_tokenizer(folder)
        return found

    def _known(self, name: str) -> Member:
        if name not in self._members:
            known = ", ".join(map(repr, self._members)) or "none yet"
            raise RunError(f"there is no run named {name!r}; there are: {known}")
        return self._members[name]

    def _refuse_other(self, folder: Path, record: EncoderRecord, settings: Encoder) -> None:
        if self._of is None:
            raise AssertionError("the first run decides")
        known, stored = self._of
        if record.sha256 != known.sha256:
            raise RunError(
                f"{folder} was trained on the encoder {record.used} (SHA-256 {record.sha256[:12]}), the runs here on "
                f"{known.used} ({known.sha256[:12]}); runs share an encoder only if it is the same"
            )
        for key, own, theirs in (
            ("load_in", settings.load_in, stored.load_in),
            ("dtype", settings.stored_as, stored.stored_as),
        ):
            if own != theirs:
                raise RunError(
                    f"{folder} was trained with encoder.{key} = {own!r}, the runs here with {theirs!r}; its logits "
                    "would not be its own"
                )


def _load_shared(record: ModelRecord, settings: Encoder, keeps_pooler: bool) -> tuple[SharedEncoder, EncoderFiles]:
    """Load the encoder of a run, with the architecture's own pooler or without it, for whatever is put around it."""
    import torch

    known = record.encoder
    if known is None:
        raise AssertionError("members have an encoder")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    files = find_again(known.used, known.revision, known.sha256, Path(known.folder))
    settings = settings.model_copy(update={"pooling": "native" if keeps_pooler else "mean"})
    loaded = load_classifier(settings, files.folder, HeadShape(len(record.labels), 0.0), device=device)
    loaded.model.to(device)
    return SharedEncoder(loaded, settings), files


def _said_by(folder: Path) -> str:
    """Return a hash of a tokenizer's files without the cut and the padding of its last call, which each call sets."""
    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        raw = path.read_bytes()
        if path.name == "tokenizer.json":
            raw = json.dumps({**json.loads(raw), "truncation": None, "padding": None}).encode()
        found.update(f"{path.name} {len(raw)} ".encode() + raw)
    return found.hexdigest()
