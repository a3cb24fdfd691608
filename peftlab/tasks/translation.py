"""Translation and summarisation: a text to a text, by an encoder-decoder, its own or made of the recipe's encoder.

An encoder becomes an encoder-decoder whose cross-attention is new and trained (Rothe et al. 2020, arXiv 1907.12461).
Training is by teacher forcing; loss: the cross-entropy of each target token, label-smoothed (Szegedy et al. 2016,
section 7), averaged over the tokens of a row, rows counting by their tokens. Outputs are searched for greedily in
validation, and by beam search for test and predictions. BLEU and chrF go from 0 to 100.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from peftlab.recipe.plugins import load_plugin
from peftlab.recipe.records import Fraction, Head, Positive, Record

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from peftlab.data.paired import PairedSplit, PairedSplits
    from peftlab.data.paired_tokens import PairedTokens
    from peftlab.data.tokens import Objective
    from peftlab.encoders.load import LoadedEncoder
    from peftlab.evaluation.forward import Passes
    from peftlab.evaluation.generated_scores import Generated, GeneratedScores
    from peftlab.evaluation.generation import Search
    from peftlab.evaluation.run_model import RunModel
    from peftlab.evaluation.text_predictor import TextPredictor
    from peftlab.recipe.crosschecks import Draft
    from peftlab.recipe.records import Recipe

PIPELINE = "translation"
HUB_METRICS = {"bleu": "bleu", "chrf": "chrf", "rouge1": "rouge"}
ANSWER = "`target`, the text that was generated"
BUILTIN_SETS = ("sentences-de-en",)
SOLVERS = ("gradient",)
EXPORTS: tuple[str, ...] = ()
FEATURES: tuple[str, ...] = ()
METRICS: tuple[str, ...] = ("bleu", "chrf", "rouge1", "rouge2", "rougeL")
LOWER_IS_BETTER: tuple[str, ...] = ()
DEFAULT_METRIC = "bleu"
HEADLINE = "bleu"
HIGHEST = 100.0


class Config(Record):
    """Settings of translation and summarisation."""

    kind: Literal["translation", "summarisation"] = "translation"
    """`summarisation` also has ROUGE, by the package rouge-score."""
    max_target_length: Annotated[int, Field(ge=4, le=8192)] = 128
    """Tokens kept of each target in training, special tokens included, and most new tokens of an output."""
    label_smoothing: Fraction = 0.1
    """Share of each target token's probability that is spread evenly over the vocabulary."""
    beams: Positive = 4
    """Outputs that beam search follows at once for test and predictions; 1 is greedy. Validation is greedy."""
    length_penalty: float = 1.0
    """Beam search divides the sum of log-probabilities by the length to this power; above 0 favours longer outputs."""
    decoder_layers: Positive | None = None
    """Layers of a decoder that is made of an encoder, its lowest ones; unset: all of them."""
    prefix: str = ""
    """Put before every source, for models that were trained so, such as T5: `translate German to English: `."""
    source_language: str | None = None
    """Code of the sources' language, for tokenizers that ask for it (mBART: `de_DE`)."""
    target_language: str | None = None
    """Code of the targets' language, with which such models begin an output."""
    tokenize: Literal["auto", "13a", "zh", "char", "none"] = "auto"
    """sacrebleu's tokenizer for BLEU; `auto`: `zh` where the training targets are Chinese, else `13a`."""
    lowercase: bool | Literal["auto"] = "auto"
    """Compare outputs and references in lower case; `auto`: where the tokenizer reads lower case only."""


def unfit(draft: Draft) -> Iterator[tuple[str, str]]:
    """Yield what does not apply to generated texts: pooling, a head, a margin of accuracy, virtual tokens."""
    config = draft.task.config if draft.task is not None else None
    if draft.encoder is not None and draft.encoder.pooling not in ("auto", "native"):
        yield "encoder.pooling", "a decoder reads every token, so that nothing is pooled; remove the key"
    if draft.head is not None and draft.head.dropout != Head().dropout:
        yield "head.dropout", "a decoder has no head of one decision; remove the key"
    if draft.evaluation is not None and draft.evaluation.margin is not None:
        yield "evaluation.margin", "the rows needed for a margin are known for accuracy only; remove the key"
    if draft.train is not None and draft.train.frozen_prefix != "dropout":
        yield "train.frozen_prefix", 'layers are kept for texts with one decision only; write "dropout"'
    if draft.method is not None and getattr(load_plugin("methods", draft.method.name), "VIRTUAL_TOKENS", False):
        yield (
            "method.name",
            f'{draft.method.name} puts virtual tokens before a text, not known to a decoder; use "lora"',
        )
    if isinstance(config, Config):
        yield from _unfit_summaries(config, draft)


def _unfit_summaries(config: Config, draft: Draft) -> Iterator[tuple[str, str]]:
    from importlib.util import find_spec

    metric = draft.evaluation.metric if draft.evaluation is not None else "auto"
    if config.kind == "summarisation" and find_spec("rouge_score") is None:
        yield (
            "task.kind",
            'ROUGE needs the package rouge-score, which is not installed: pip install "peftlab[summarisation]"',
        )
    if config.kind != "summarisation" and metric.startswith("rouge"):
        yield "evaluation.metric", 'ROUGE is for summaries; write "bleu" or "chrf", or task.kind = "summarisation"'


def load_splits(
    recipe: Recipe, config: Config, *, tokenizer: Any = None, report_path: Path | None = None
) -> PairedSplits:
    """Return the recipe's checked sources and targets; raises DataError where the rows cannot be used."""
    from peftlab.data.paired import Targets, load_paired
    from peftlab.data.text_pairs import reading_of
    from peftlab.data.tokens import full_lengths, lower_case_only

    lowercase = config.lowercase
    if lowercase == "auto":
        lowercase = tokenizer is not None and lower_case_only(tokenizer)
    reading = reading_of(recipe, tokenizer, report_path)
    targets = Targets(
        max_length=config.max_target_length,
        token_lengths=partial(full_lengths, tokenizer, target=True) if tokenizer is not None else None,
        tokenize=config.tokenize,
        lowercase=lowercase,
    )
    return load_paired(recipe.data, reading, targets)


def labels(splits: PairedSplits) -> tuple[str, ...]:  # noqa: ARG001 the contract
    """Return no names: an output is a text."""
    return ()


def load_model(
    recipe: Recipe,
    folder: Path,
    names: Sequence[str],  # noqa: ARG001 the contract
    *,
    kept: Mapping[str, Any] | None = None,  # noqa: ARG001 the contract
    device: torch.device | None = None,
) -> LoadedEncoder:
    """Load the encoder-decoder in `folder`, or make one of the encoder in it."""
    from peftlab.encoders.seq2seq import load_seq2seq

    config = _config(recipe)
    return load_seq2seq(
        recipe.needed_encoder(),
        folder,
        decoder_layers=config.decoder_layers,
        target_language=config.target_language,
        most_tokens=config.max_target_length,
        device=device,
    )


def encode(tokenizer: Any, split: PairedSplit, recipe: Recipe) -> PairedTokens:
    """Return the tokens of sources and targets of `split`, each cut to the recipe's lengths."""
    from peftlab.data.paired_tokens import paired_tokens

    config = _config(recipe)
    _say_languages(tokenizer, config)
    most = (recipe.needed_encoder().max_length, config.max_target_length)
    return paired_tokens(tokenizer, split, config.prefix, most)


def objective(
    encoded: PairedTokens,
    splits: PairedSplits,  # noqa: ARG001 the contract
    recipe: Recipe,
    model: nn.Module,
    device: torch.device,  # noqa: ARG001
) -> Objective:
    """Return what the loop trains by; a row counts by the tokens of its target."""
    from peftlab.data.paired_tokens import forced, forced_batches
    from peftlab.data.tokens import Objective
    from peftlab.encoders.anatomy import unwrapped
    from peftlab.encoders.seq2seq import start_of

    start = start_of(unwrapped(model))
    return Objective(
        batch=forced_batches(encoded, start),
        row_losses=partial(token_losses, smoothing=_config(recipe).label_smoothing),
        row_weights=forced(encoded.targets, start).labels.lengths.astype(np.float32),
    )


def token_losses(logits: Tensor, targets: Tensor, *, smoothing: float) -> Tensor:
    """Return the mean loss of the target tokens of each row, [rows], in fp32.

    `logits`: [rows, tokens, vocabulary]. `targets`: [rows, tokens], -100 where there is no token.
    """
    from torch.nn import functional

    losses = functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), reduction="none", label_smoothing=smoothing, ignore_index=-100
    ).view(targets.shape)
    return losses.sum(1) / (targets != -100).sum(1).clamp(min=1)


def logits(model: nn.Module, encoded: PairedTokens, recipe: Recipe, passes: Passes) -> NDArray[np.float32]:  # noqa: ARG001
    """Return the log-probability of every target token, [rows, tokens]: all logits would not fit into memory."""
    from peftlab.evaluation.generation import gold_log_probabilities

    return gold_log_probabilities(model, encoded, passes)


def outputs(model: nn.Module, encoded: PairedTokens, recipe: Recipe, passes: Passes) -> Generated:
    """Return the generated texts: greedily for validation rows, else by beam search."""
    from peftlab.evaluation.generation import generate

    search = _search(_config(recipe), greedy=encoded.name == "validation")
    return generate(model, encoded.sources, encoded.tokenizer, search, passes)


def predicted(outputs: Generated, splits: PairedSplits, config: Config) -> list[str]:  # noqa: ARG001 the contract
    """Return the generated texts."""
    return list(outputs.texts)


def point_metrics(outputs: Generated, split: PairedSplit, splits: PairedSplits, config: Config) -> dict[str, float]:
    """Return the metrics of one validation, without intervals."""
    from peftlab.evaluation.generated_scores import point_metrics as points

    return points(outputs.texts, split, splits.scoring, rouge=config.kind == "summarisation")


def score(outputs: Generated, split: PairedSplit, splits: PairedSplits, config: Config) -> GeneratedScores:
    """Return every metric of `split` with its 95 % interval, the copied sources beside them."""
    from peftlab.evaluation.generated_scores import score_generated

    return score_generated(outputs, split, splits.scoring, rouge=config.kind == "summarisation")


def write_predictions(
    path: Path,
    outputs: Generated,
    split: PairedSplit,
    splits: PairedSplits,  # noqa: ARG001 the contract
    config: Config,  # noqa: ARG001
) -> None:
    """Write `predictions.jsonl`: `id`, `source`, `gold` and the generated `target`."""
    from peftlab.runs.files import whole_file

    with whole_file(path) as file:
        for row in zip(split.ids, split.sources, split.targets, outputs.texts, strict=True):
            line = dict(zip(("id", "source", "gold", "target"), row, strict=True))
            file.write((json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def predictor(run: RunModel, device: torch.device, against: Path | None) -> TextPredictor:  # noqa: ARG001 the contract
    """Return what `predict` asks: texts to generated texts."""
    from dataclasses import replace

    from peftlab.data.paired import wanted_columns
    from peftlab.data.tokens import tokenise
    from peftlab.evaluation.forward import Passes
    from peftlab.evaluation.generation import generate
    from peftlab.evaluation.text_predictor import TextPredictor

    config = _config(run.recipe)
    _say_languages(run.tokenizer, config)
    passes = Passes(run.recipe.evaluation.batch_size, device)

    def texts(some: Sequence[str]) -> Sequence[str]:
        tokens = tokenise(run.tokenizer, [f"{config.prefix}{text}" for text in some], None, run.encoder.max_length)
        sources = replace(tokens, segments=None)
        return generate(run.module, sources, run.tokenizer, _search(config, greedy=False), passes).texts

    return TextPredictor(texts, wanted_columns(run.recipe.data)["text"])


def _search(config: Config, *, greedy: bool) -> Search:
    from peftlab.evaluation.generation import Search

    return Search(1 if greedy else config.beams, config.max_target_length, config.length_penalty)


def _say_languages(tokenizer: Any, config: Config) -> None:
    """Tell a tokenizer that puts the language before or behind a text which languages these are."""
    for name, code in (("src_lang", config.source_language), ("tgt_lang", config.target_language)):
        if code is not None and hasattr(tokenizer, name):
            setattr(tokenizer, name, code)


def _config(recipe: Recipe) -> Config:
    config: Config = recipe.task.config  # type: ignore[assignment] # this task's own
    return config
