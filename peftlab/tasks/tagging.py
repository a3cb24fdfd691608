"""Tagging of tokens, such as named entities: one tag a word or character, perhaps with a linear-chain CRF over them.

Losses: cross-entropy of each word's tag, its first piece being read (Devlin et al. 2019, section 5.3); with `crf` the
negative log-likelihood of the whole sequence (Lafferty et al. 2001; Lample et al. 2016, equation 1), divided by its
words. Decoding gives only sequences that IOB2 allows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from peftlab.errors import RunError
from peftlab.recipe.plugins import load_plugin
from peftlab.recipe.records import Fraction, Record

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from peftlab.data.tagged import TaggedSplit, TaggedSplits
    from peftlab.data.tokens import Objective, Tokens
    from peftlab.data.word_pieces import WordPieces
    from peftlab.encoders.load import LoadedEncoder
    from peftlab.evaluation.entity_predictor import EntityPredictor
    from peftlab.evaluation.entity_scores import EntityScores
    from peftlab.evaluation.forward import Forward, Passes
    from peftlab.evaluation.intervals import Interval
    from peftlab.evaluation.run_model import RunModel
    from peftlab.recipe.crosschecks import Draft
    from peftlab.recipe.records import Encoder, Recipe
    from peftlab.runs.certificate import Exported

PIPELINE = "token-classification"
HUB_METRICS = {"entity_f1": "f1", "entity_precision": "precision", "entity_recall": "recall"}
ANSWER = "`entities`, each with `type`, `start`, `end` (characters of the text) and `text`"
BUILTIN_SETS = ("entities-en", "entities-zh")
SOLVERS = ("gradient",)
EXPORTS = "all"
EACH_TOKEN = True
FEATURES = ("several",)
METRICS = ("entity_f1", "entity_precision", "entity_recall", "macro_entity_f1", "token_accuracy", "token_f1")
LOWER_IS_BETTER: tuple[str, ...] = ()
DEFAULT_METRIC = "entity_f1"
HEADLINE = "entity_f1"


class Config(Record):
    """Settings of tagging."""

    crf: bool = False
    """Score sequences of tags by a linear-chain CRF over the words, trained with the head."""
    decoding: Literal["constrained", "greedy"] = "constrained"
    """`constrained`: the best sequence that IOB2 allows, also without a CRF. `greedy`: the best tag of each word."""
    scheme: Literal["auto", "IOB1", "IOB2", "BIOES"] = "auto"
    """Scheme of the tags in the files; they are converted to IOB2. `auto`: found from the training rows."""
    units: Literal["words", "characters"] = "words"
    """What a token is: `predict` cuts texts into these. `characters`: every token is one character."""
    overlap: Fraction = 0.25
    """Share of a window that it has in common with the one before it, in sentences above `encoder.max_length`."""
    label_smoothing: Fraction = 0.0
    """Share of the target spread evenly over all tags; not with a CRF."""


@dataclass(frozen=True)
class Outputs:
    """What is scored: the decoded tags of each sentence, as indices of names."""

    tags: Sequence[tuple[int, ...]]


def unfit(draft: Draft) -> Iterator[tuple[str, str]]:
    """Yield what does not apply to single tokens: pooling, pairs, a margin of accuracy, virtual tokens."""
    config = draft.task.config if draft.task is not None else None
    if draft.encoder is not None and draft.encoder.pooling not in ("auto", "native"):
        yield "encoder.pooling", "tagging reads every token, so that nothing is pooled; remove the key"
    if draft.data is not None and draft.data.pair is not None:
        yield "data.pair", "tagging has one text a row; remove the key"
    if draft.evaluation is not None and draft.evaluation.margin is not None:
        yield "evaluation.margin", "the rows needed for a margin are known for accuracy only, not for entity F1"
    if draft.method is not None and getattr(load_plugin("methods", draft.method.name), "VIRTUAL_TOKENS", False):
        yield "method.name", f'{draft.method.name} puts tokens without tags in front of the text; use "lora"'
    if isinstance(config, Config) and config.crf and config.label_smoothing:
        yield "task.label_smoothing", "a CRF is trained on whole sequences and smooths no tag; remove one of both"
    if isinstance(config, Config) and config.crf and config.decoding == "greedy":
        yield "task.decoding", "a CRF is decoded as a sequence; remove the key, or write crf = false"


def load_splits(
    recipe: Recipe, config: Config, *, tokenizer: Any = None, report_path: Path | None = None
) -> TaggedSplits:
    """Return the recipe's checked sentences; raises DataError where the rows cannot be used.

    With `tokenizer` the report says how many sentences are read in windows.
    """
    from peftlab.data.tagged import load_tagged, with_notes

    splits = load_tagged(
        recipe.data,
        recipe_path=recipe.path,
        seed=recipe.train.seed,
        scheme=config.scheme,
        characters=config.units == "characters",
        report_path=report_path,
    )
    if tokenizer is None or recipe.encoder is None:
        return splits
    notes = [
        f"{split.name}: sentences above encoder.max_length = {recipe.encoder.max_length}, read whole in overlapping "
        f"windows: {count:,}"
        for split in (splits.train, splits.validation, splits.test)
        if (count := encode(tokenizer, split, recipe).shared)
    ]
    return with_notes(splits, notes, report_path)


def labels(splits: TaggedSplits) -> tuple[str, ...]:
    """Return the tags in the order of the logits: O, then B- and I- of each type."""
    return splits.tag_names


def load_model(
    recipe: Recipe,
    folder: Path,
    names: Sequence[str],
    *,
    kept: Mapping[str, Any] | None = None,  # noqa: ARG001 the contract
    device: torch.device | None = None,
) -> LoadedEncoder:
    """Load the encoder in `folder` under a head for the tags `names`, drawn from torch's generator."""
    from peftlab.encoders.token_head import load_tagger

    crf = _config(recipe).crf
    return load_tagger(recipe.needed_encoder(), folder, names, recipe.head.dropout, crf=crf, device=device)


def keeps_pooler(pooling: str) -> bool:  # noqa: ARG001 the contract
    """Say no: a tagger reads hidden states, so that it shares an encoder with pooled classifiers."""
    return False


def around(loaded: LoadedEncoder, encoder: Encoder, recipe: Recipe, names: Sequence[str]) -> LoadedEncoder:
    """Return the model of `load_model` around the encoder in `loaded`, with head and CRF of arbitrary values."""
    from peftlab.encoders.token_head import tagger_around

    return tagger_around(loaded, encoder, names, recipe.head.dropout, crf=_config(recipe).crf)


def encode(tokenizer: Any, split: TaggedSplit, recipe: Recipe) -> WordPieces:
    """Return the pieces of the tokens of `split`, in windows of the recipe's length."""
    return _encode(tokenizer, split.tokens, recipe)


def objective(
    encoded: WordPieces,
    splits: TaggedSplits,
    recipe: Recipe,
    model: nn.Module,
    device: torch.device,  # noqa: ARG001
) -> Objective:
    """Return what the loop trains `model` by. A sentence counts as much as it has words.

    Targets are [sentences, words, 2]: where a word stands among all positions of the batch, and its tag; both -1
    where a sentence has no more words.
    """
    import torch

    from peftlab.data.tagged import gold
    from peftlab.data.tokens import Batch, Objective
    from peftlab.encoders.token_head import crf_of, sentence_losses

    tags, crf, smoothing = gold(splits, splits.train), crf_of(model), _config(recipe).label_smoothing

    def batch(rows: NDArray[np.int64], epoch: int) -> Batch:  # noqa: ARG001 the loop's contract
        inputs, where = encoded.inputs(rows)
        targets = np.full((*where.shape, 2), -1, np.int64)
        targets[..., 0] = where
        for line, row in enumerate(rows):
            own = tags[encoded.words[row] : encoded.words[row + 1]]
            targets[line, : len(own), 1] = own
        return Batch(inputs, torch.from_numpy(targets))

    def losses(logits: Tensor, targets: Tensor) -> Tensor:
        return sentence_losses(logits, targets, crf, smoothing)

    return Objective(batch=batch, row_losses=losses, row_weights=encoded.counts.astype(np.float32))


def logits(
    model: nn.Module,
    encoded: WordPieces,
    recipe: Recipe,  # noqa: ARG001 the contract
    passes: Passes,
) -> NDArray[np.float32]:
    """Return the logits of all words, [words, tags], and below them the transitions of the CRF, where there is one."""
    from peftlab.encoders.token_head import crf_of
    from peftlab.evaluation.tag_decoding import word_logits

    parts = word_logits(model, encoded, passes)
    crf = crf_of(model)
    if crf is not None:
        learned = (crf.start_transitions[None], crf.end_transitions[None], crf.transitions)
        parts += [part.detach().float().cpu().numpy() for part in learned]
    return np.concatenate(parts)


def outputs(model: nn.Module, encoded: WordPieces, recipe: Recipe, passes: Passes) -> Outputs:
    """Return the decoded tags of all sentences."""
    from peftlab.evaluation.tag_decoding import decode, word_logits

    return Outputs(decode(word_logits(model, encoded, passes), _decoder(model, _config(recipe))))


def predicted(outputs: Outputs, splits: TaggedSplits, config: Config) -> list[tuple[int, ...]]:  # noqa: ARG001
    """Return the tags of each sentence."""
    return list(outputs.tags)


def point_metrics(
    outputs: Outputs,
    split: TaggedSplit,
    splits: TaggedSplits,
    config: Config,  # noqa: ARG001 the contract
) -> dict[str, float]:
    """Return the metrics of one validation, without intervals."""
    from peftlab.evaluation.entity_scores import point_metrics as points

    return points(split.tags, _named(outputs, splits.tag_names))


def score(
    outputs: Outputs,
    split: TaggedSplit,
    splits: TaggedSplits,
    config: Config,  # noqa: ARG001 the contract
) -> EntityScores:
    """Return every metric of `split` with its 95 % interval over sentences, and tables of types and tags."""
    from peftlab.evaluation.entity_scores import score_entities

    return score_entities(split.tags, _named(outputs, splits.tag_names))


def write_predictions(
    path: Path,
    outputs: Outputs,
    split: TaggedSplit,
    splits: TaggedSplits,
    config: Config,  # noqa: ARG001
) -> None:
    """Write `predictions.jsonl`: `id`, `tokens`, and the tags `gold` and `predicted` of each sentence, in IOB2."""
    from peftlab.runs.files import whole_file

    with whole_file(path) as file:
        named = _named(outputs, splits.tag_names)
        for name, tokens, own, told in zip(split.ids, split.tokens, split.tags, named, strict=True):
            line = {"id": name, "tokens": tokens, "gold": own, "predicted": told}
            file.write((json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def predictor(run: RunModel, device: torch.device, against: Path | None) -> EntityPredictor:  # noqa: ARG001
    """Return what `predict` asks: texts to entities with their places."""
    from peftlab.evaluation.entity_predictor import EntityPredictor
    from peftlab.evaluation.forward import Passes
    from peftlab.evaluation.tag_decoding import decode, word_logits

    names, found = run.record.labels, _decoder(run.module, _config(run.recipe))

    def tagger(sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        passes = Passes(run.recipe.evaluation.batch_size, device)
        words = word_logits(run.module, _encode(run.tokenizer, sentences, run.recipe), passes)
        return _named(Outputs(decode(words, found)), names)

    return EntityPredictor(tagger, _config(run.recipe).units == "characters", run.recipe.data.text)


def decoding(model: nn.Module, config: Config) -> dict[str, NDArray[np.float32]]:
    """Return what makes tags of logits: scores of one tag behind another, minus infinity where IOB2 forbids it.

    Learned by the CRF, zeros without one; nothing where each word gets its own best tag.
    """
    from peftlab.evaluation.tag_decoding import decoding_scores

    found = _decoder(model, config)
    return {} if found is None else decoding_scores(found)


def tokens(encoded: WordPieces) -> Tokens:
    """Return the tokens that an exported model reads: the windows."""
    return encoded.windows


def read(logits: NDArray[np.float32], encoded: WordPieces) -> NDArray[np.float32]:
    """Return the logits of all words, [words, tags], from those of windows, [windows, tokens, tags]."""
    words: NDArray[np.float32] = logits[encoded.owners, encoded.places]
    return words


def outputs_of(
    read: NDArray[np.float32],
    encoded: WordPieces,
    splits: TaggedSplits,  # noqa: ARG001 the contract
    config: Config,  # noqa: ARG001
    decoding: Mapping[str, NDArray[np.float32]],
) -> Outputs:
    """Return the decoded tags from the logits of all words."""
    return _from_words(read, encoded, decoding)


def right(
    outputs: Outputs,
    split: TaggedSplit,
    splits: TaggedSplits,
    config: Config,  # noqa: ARG001 the contract
) -> NDArray[np.bool_]:
    """Return which sentences have every tag right, [sentences]."""
    named = _named(outputs, splits.tag_names)
    return np.asarray([list(own) == told for own, told in zip(split.tags, named, strict=True)], np.bool_)


def difference(
    before: Outputs,
    after: Outputs,
    split: TaggedSplit,
    splits: TaggedSplits,
    config: Config,  # noqa: ARG001 the contract
) -> Interval:
    """Return the entity F1 of `after` minus that of `before`, with its paired 95 % interval over sentences."""
    from peftlab.evaluation.entity_scores import f1_difference

    return f1_difference(split.tags, *(_named(outputs, splits.tag_names) for outputs in (before, after)))


def exported_predictor(
    exported: Exported,
    forward: Forward,
    tokenizer: Any,
    decoding: Mapping[str, NDArray[np.float32]],
    against: Path | None,  # noqa: ARG001 the contract
) -> EntityPredictor:
    """Return what `predict` asks of an export; RunError where what its tags are decoded by is not there."""
    from peftlab.data.word_pieces import cut_words
    from peftlab.evaluation.entity_predictor import EntityPredictor
    from peftlab.evaluation.forward import logits_through

    config, names = Config.model_validate(exported.settings), exported.labels
    if config.decoding == "constrained" and not decoding:
        raise RunError("the export lacks decoding.safetensors, by which its tags are decoded; export the run again")

    def tagger(sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        encoded = cut_words(tokenizer, sentences, exported.max_length, config.overlap)
        logits = logits_through(forward, encoded.windows, exported.batch_size)
        return _named(_from_words(read(logits, encoded), encoded, decoding), names)

    return EntityPredictor(tagger, config.units == "characters", exported.text_column)


def _from_words(
    words: NDArray[np.float32], encoded: WordPieces, decoding: Mapping[str, NDArray[np.float32]]
) -> Outputs:
    from peftlab.evaluation.tag_decoding import decode, decoder_with

    parts = [words[start:end] for start, end in pairwise(encoded.words)]
    return Outputs(decode(parts, decoder_with(decoding) if decoding else None))


def _decoder(model: nn.Module, config: Config) -> Any:
    """Return what decodes the tags of `model`; None where each word gets its own best tag."""
    from peftlab.encoders.token_head import crf_of, tags_of
    from peftlab.evaluation.tag_decoding import decoder

    return None if config.decoding == "greedy" else decoder(tags_of(model), crf_of(model))


def _encode(tokenizer: Any, sentences: Sequence[Sequence[str]], recipe: Recipe) -> WordPieces:
    from peftlab.data.word_pieces import cut_words, without_boundaries

    config = _config(recipe)
    if config.units == "characters":
        without_boundaries(tokenizer)
    return cut_words(tokenizer, sentences, recipe.needed_encoder().max_length, config.overlap)


def _named(outputs: Outputs, names: Sequence[str]) -> list[list[str]]:
    return [[names[tag] for tag in tags] for tags in outputs.tags]


def _config(recipe: Recipe) -> Config:
    config: Config = recipe.task.config  # type: ignore[assignment] # this task's own
    return config
