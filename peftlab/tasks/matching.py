"""Matching of queries and candidates by one encoder, such as customers' questions and answers, or histories and items.

A bi-encoder: query and candidate are embedded alone, by the same encoder, pooled and divided by their length (Reimers
and Gurevych 2019). Loss: multiple negatives ranking, the cross-entropy of the right candidate among those of the other
rows of the same forward pass (Henderson et al. 2017, arXiv 1705.00652, section 4.4), cosine similarities being divided
by a temperature; candidates of other rows that are known to answer the query as well are left out.
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

from peftlab.recipe.records import Head, Positive, Record

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from peftlab.data.match_rows import MatchSplit, MatchSplits, MatchTokens
    from peftlab.data.tokens import Objective, Tokens
    from peftlab.encoders.load import LoadedEncoder
    from peftlab.evaluation.forward import Forward, Passes
    from peftlab.evaluation.intervals import Interval
    from peftlab.evaluation.match_predictor import Embed, MatchPredictor
    from peftlab.evaluation.match_scores import Embedded, MatchScores
    from peftlab.evaluation.run_model import RunModel
    from peftlab.recipe.crosschecks import Draft
    from peftlab.recipe.records import Recipe
    from peftlab.runs.certificate import Exported

PIPELINE = "sentence-similarity"
HUB_METRICS = {"mrr": "mrr"}
ANSWER = "`candidates`, the nearest first, each with `text` and `score`, a cosine similarity"
BUILTIN_SETS = ("questions-en", "questions-zh")
SOLVERS = ("gradient",)
EXPORTS = ("merged",)
EACH_TOKEN = False
FEATURES = ("against", "frozen")
METRICS: tuple[str, ...] = ("recall_at_1", "recall_at_5", "mrr", "ndcg")
LOWER_IS_BETTER: tuple[str, ...] = ()
DEFAULT_METRIC = "mrr"
HEADLINE = "recall_at_1"


class Config(Record):
    """Settings of matching."""

    pairs: Literal["columns", "by_label"] = "columns"
    """`columns`: a row has a query (`data.text`) and a text that answers it (`data.pair`, by default `pair`).
    `by_label`: the rows of a labelled set, each of which must find another of its label."""
    candidates: str | None = None
    """File of the candidates: a text a line (.txt), or a table with the column of `data.pair`. Unset: every distinct
    answer of the three splits; with `by_label` always one training row of each label, drawn by `data.split_seed`."""
    temperature: Annotated[float, Field(gt=0)] = 0.05
    """Cosine similarities are divided by it in the loss."""
    shown: Positive = 10
    """Candidates that `predict` gives for a text."""


def unfit(draft: Draft) -> Iterator[tuple[str, str]]:
    """Yield what does not apply to embeddings: a head and its settings, labels beside pairs, a margin of accuracy."""
    config = draft.task.config if draft.task is not None else None
    if draft.encoder is not None and draft.encoder.pooling == "native":
        yield "encoder.pooling", 'an embedding is pooled and has no head; write "mean" or "cls"'
    if draft.head is not None and draft.head.dropout != Head().dropout:
        yield "head.dropout", "an embedding has no head; remove the key"
    if draft.method is not None and draft.method.name == "head":
        yield "method.name", 'an embedding has no head, so that nothing would be trained; use "lora"'
    if draft.evaluation is not None and draft.evaluation.margin is not None:
        yield "evaluation.margin", "the rows needed for a margin are known for accuracy only; remove the key"
    if draft.train is not None and draft.train.max_tokens != "auto":
        yield "train.max_tokens", "a row is told from the others of its forward pass, so these stay together; remove it"
    if isinstance(config, Config) and config.pairs == "by_label":
        if config.candidates is not None:
            yield "task.candidates", "with by_label the candidates are training rows; remove one of both"
        if draft.data is not None and draft.data.pair is not None:
            yield "data.pair", "with by_label the pairs are made of labels; remove one of both"
        if draft.data is not None and (draft.data.source or "").startswith("builtin:questions-"):
            yield "task.pairs", 'the built-in questions are pairs and have no labels; write "columns"'


def load_splits(
    recipe: Recipe, config: Config, *, tokenizer: Any = None, report_path: Path | None = None
) -> MatchSplits:
    """Return the recipe's checked queries and candidates; raises DataError where the rows cannot be used."""
    from peftlab.data.matched import load_by_label, load_pairs
    from peftlab.data.text_pairs import reading_of

    reading = reading_of(recipe, tokenizer, report_path)
    if config.pairs == "by_label":
        return load_by_label(recipe.data, reading)
    return load_pairs(recipe.data, config.candidates, reading)


def labels(splits: MatchSplits) -> tuple[str, ...]:  # noqa: ARG001 the contract
    """Return no names: an embedding has none."""
    return ()


def load_model(
    recipe: Recipe,
    folder: Path,
    names: Sequence[str],  # noqa: ARG001 the contract
    *,
    kept: Mapping[str, Any] | None = None,  # noqa: ARG001 the contract
    device: torch.device | None = None,
) -> LoadedEncoder:
    """Load the encoder in `folder` as an embedder, with nothing new in it."""
    from peftlab.encoders.embedder import load_embedder

    return load_embedder(recipe.needed_encoder(), folder, device=device)


def encode(tokenizer: Any, split: MatchSplit, recipe: Recipe) -> MatchTokens:
    """Return the tokens of queries, pairs and candidates of `split`, each cut to the recipe's length."""
    from peftlab.data.match_rows import tokens_of

    return tokens_of(tokenizer, split, recipe.needed_encoder().max_length)


def objective(
    encoded: MatchTokens,
    splits: MatchSplits,
    recipe: Recipe,
    model: nn.Module,  # noqa: ARG001 the contract
    device: torch.device,  # noqa: ARG001
) -> Objective:
    """Return what the loop trains by. Negatives come from the rows of one forward pass in one process."""
    from peftlab.data.match_rows import pair_batches
    from peftlab.data.tokens import Objective

    return Objective(
        batch=pair_batches(encoded, splits.train),
        row_losses=partial(ranking_losses, temperature=_config(recipe).temperature),
        row_weights=np.ones(len(encoded), np.float32),
        rows_together=True,
    )


def ranking_losses(embeddings: Tensor, left_out: Tensor, *, temperature: float) -> Tensor:
    """Return the loss of each row, [rows], in fp32.

    `embeddings`: [2 rows, hidden size], of length 1: the queries, then the text that answers each. `left_out`: bool
    [rows, rows], true where the text of another row (column) answers the query (row) as well.
    """
    import torch
    from torch.nn import functional

    queries, answers = embeddings.float().chunk(2)
    scores = (queries @ answers.T / temperature).masked_fill(left_out, -torch.inf)
    own = torch.arange(len(queries), device=scores.device)
    return functional.cross_entropy(scores, own, reduction="none")


def logits(model: nn.Module, encoded: MatchTokens, recipe: Recipe, passes: Passes) -> NDArray[np.float32]:
    """Return the embeddings of all queries, and below them of all candidates, [rows, hidden size]."""
    embedded = outputs(model, encoded, recipe, passes)
    return np.concatenate([embedded.queries, embedded.candidates])


def outputs(model: nn.Module, encoded: MatchTokens, recipe: Recipe, passes: Passes) -> Embedded:  # noqa: ARG001
    """Return the embeddings of all queries and candidates."""
    from peftlab.evaluation.forward import logits_of
    from peftlab.evaluation.match_scores import Embedded

    embed = partial(
        logits_of, model, batch_size=passes.batch_size, device=passes.device, rank=passes.rank, world=passes.world
    )
    return Embedded(embed(encoded.queries), embed(encoded.candidates))


def predicted(outputs: Embedded, splits: MatchSplits, config: Config) -> list[int]:  # noqa: ARG001 the contract
    """Return the place of the candidate nearest to each query."""
    from peftlab.evaluation.match_scores import ranking

    return [row[0][0] for row in ranking(outputs, 1)]


def point_metrics(
    outputs: Embedded,
    split: MatchSplit,
    splits: MatchSplits,  # noqa: ARG001 the contract
    config: Config,  # noqa: ARG001
) -> dict[str, float]:
    """Return the metrics of one validation, without intervals."""
    from peftlab.evaluation.match_scores import point_metrics as points

    return points(outputs, split)


def score(outputs: Embedded, split: MatchSplit, splits: MatchSplits, config: Config) -> MatchScores:  # noqa: ARG001
    """Return every metric of `split` with its 95 % interval over queries."""
    from peftlab.evaluation.match_scores import score_matching

    return score_matching(outputs, split, splits.about_candidates)


def write_predictions(
    path: Path,
    outputs: Embedded,
    split: MatchSplit,
    splits: MatchSplits,  # noqa: ARG001 the contract
    config: Config,
) -> None:
    """Write `predictions.jsonl`: `id`, `text`, `gold` candidates, and the ranked `candidates` with their scores."""
    from peftlab.data.match_rows import relevance
    from peftlab.evaluation.match_scores import ranking
    from peftlab.runs.files import whole_file

    texts = split.candidates.texts
    with whole_file(path) as file:
        for row, found in enumerate(ranking(outputs, config.shown)):
            line = {
                "id": split.ids[row],
                "text": split.texts[row],
                "gold": [texts[place] for place in np.flatnonzero(relevance(split, [row])[0]).tolist()],
                "candidates": [{"text": texts[place], "score": score} for place, score in found],
            }
            file.write((json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def predictor(run: RunModel, device: torch.device, against: Path | None) -> MatchPredictor:
    """Return what `predict` asks: texts to the nearest of the candidates in the file `against`."""
    from peftlab.data.tokens import tokenise
    from peftlab.evaluation.forward import logits_of

    def embed(some: Sequence[str]) -> NDArray[np.float32]:
        tokens = tokenise(run.tokenizer, some, None, run.encoder.max_length)
        return logits_of(run.module, tokens, batch_size=run.recipe.evaluation.batch_size, device=device)

    data = run.recipe.data
    return _ranking(embed, against, _config(run.recipe), data.text, data.pair)


def _ranking(embed: Embed, against: Path | None, config: Config, text: str, pair: str | None) -> MatchPredictor:
    """Return what ranks the candidates in the file `against` by `embed`; `text` and `pair` name columns of tables."""
    from peftlab.data.candidates import read_candidates
    from peftlab.data.matched import PAIR
    from peftlab.errors import UserError
    from peftlab.evaluation.match_predictor import MatchPredictor

    if against is None:
        raise UserError("this model ranks candidates: name their file by --against FILE, one text a line or row")
    rows = read_candidates(against, ("text", text) if config.pairs == "by_label" else ("pair", pair or PAIR))
    texts = [row.text for row in rows]
    return MatchPredictor(embed, texts, embed(texts), config.shown, text)


def decoding(model: nn.Module, config: Config) -> dict[str, NDArray[np.float32]]:  # noqa: ARG001 the contract
    """Return nothing: candidates are ranked by the embeddings alone."""
    return {}


def tokens(encoded: MatchTokens) -> Tokens:
    """Return the tokens of queries, and behind them of candidates, that an exported model reads."""
    from peftlab.data.tokens import joined

    return joined([encoded.queries, encoded.candidates])


def read(logits: NDArray[np.float32], encoded: MatchTokens) -> NDArray[np.float32]:  # noqa: ARG001 the contract
    """Return those of the embeddings that are used: all."""
    return logits


def outputs_of(
    read: NDArray[np.float32],
    encoded: MatchTokens,
    splits: MatchSplits,  # noqa: ARG001 the contract
    config: Config,  # noqa: ARG001
    decoding: Mapping[str, NDArray[np.float32]],  # noqa: ARG001
) -> Embedded:
    """Return the embeddings that were read, [queries and candidates, hidden size], apart."""
    from peftlab.evaluation.match_scores import Embedded

    return Embedded(read[: len(encoded)], read[len(encoded) :])


def right(
    outputs: Embedded,
    split: MatchSplit,
    splits: MatchSplits,  # noqa: ARG001 the contract
    config: Config,  # noqa: ARG001
) -> NDArray[np.bool_]:
    """Return for which queries the nearest candidate is right, [rows]."""
    from peftlab.evaluation.match_scores import row_metrics

    return np.asarray(row_metrics(outputs, split)[:, 0] > 0)


def difference(
    before: Embedded,
    after: Embedded,
    split: MatchSplit,
    splits: MatchSplits,  # noqa: ARG001 the contract
    config: Config,  # noqa: ARG001
) -> Interval:
    """Return the mean reciprocal rank of `after` minus that of `before`, with its paired 95 % interval."""
    from peftlab.evaluation.match_scores import METRICS as NAMES
    from peftlab.evaluation.match_scores import row_metrics
    from peftlab.evaluation.paired import paired_bootstrap

    place = NAMES.index(DEFAULT_METRIC)
    return paired_bootstrap(row_metrics(after, split)[:, place], row_metrics(before, split)[:, place])


def exported_predictor(
    exported: Exported,
    forward: Forward,
    tokenizer: Any,
    decoding: Mapping[str, NDArray[np.float32]],  # noqa: ARG001 the contract
    against: Path | None,
) -> MatchPredictor:
    """Return what `predict` asks of an export: texts to the nearest of the candidates in the file `against`."""
    from peftlab.data.tokens import tokenise
    from peftlab.evaluation.forward import logits_through

    def embed(some: Sequence[str]) -> NDArray[np.float32]:
        return logits_through(forward, tokenise(tokenizer, some, None, exported.max_length), exported.batch_size)

    config = Config.model_validate(exported.settings)
    return _ranking(embed, against, config, exported.text_column, exported.pair_column)


def _config(recipe: Recipe) -> Config:
    config: Config = recipe.task.config  # type: ignore[assignment] # this task's own
    return config
