"""Extractive question answering: the words of a passage that answer a question, or none where it holds no answer.

The format is that of SQuAD (Rajpurkar et al. 2016 and 2018). Loss: the mean of the cross-entropies of an answer's first
and last token, the first token of all standing for no answer (Devlin et al. 2019, sections 4.2 and 4.3). Long passages
are read in overlapping windows; a window without the answer is trained to find none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftlab.recipe.plugins import load_plugin
from peftlab.recipe.records import Fraction, Positive, Record

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from peftlab.data.question_windows import QuestionWindows
    from peftlab.data.questioned import QuestionSplit, QuestionSplits
    from peftlab.data.tokens import Objective
    from peftlab.encoders.load import LoadedEncoder
    from peftlab.evaluation.answer_predictor import AnswerPredictor
    from peftlab.evaluation.answer_scores import AnswerScores, Found
    from peftlab.evaluation.forward import Passes
    from peftlab.evaluation.run_model import RunModel
    from peftlab.recipe.crosschecks import Draft
    from peftlab.recipe.records import Recipe

PIPELINE = "question-answering"
HUB_METRICS = {"exact_match": "exact_match", "f1": "f1"}
ANSWER = "`answer`, its `start` and `end` in characters of the passage, and its `margin` over no answer"
BUILTIN_SETS = ("passages-en",)
SOLVERS = ("gradient",)
EXPORTS: tuple[str, ...] = ()
FEATURES = ("pairs",)
METRICS: tuple[str, ...] = ("exact_match", "f1")
LOWER_IS_BETTER: tuple[str, ...] = ()
DEFAULT_METRIC = "f1"
HEADLINE = "f1"


class Config(Record):
    """Settings of question answering."""

    overlap: Fraction = 0.25
    """Share of a window's passage that it has in common with the window before it, where a passage needs several."""
    max_answer_tokens: Positive = 30
    """Most tokens of an answer that is given."""


def unfit(draft: Draft) -> Iterator[tuple[str, str]]:
    """Yield what does not apply to single tokens: pooling, a margin of accuracy, virtual tokens, short windows."""
    if draft.encoder is not None and draft.encoder.pooling not in ("auto", "native"):
        yield "encoder.pooling", "question answering reads every token, so that nothing is pooled; remove the key"
    if draft.encoder is not None and draft.encoder.max_length < 16:
        yield "encoder.max_length", "a question and a passage need at least 16 tokens; raise it"
    if draft.evaluation is not None and draft.evaluation.margin is not None:
        yield "evaluation.margin", "the rows needed for a margin are known for accuracy only; remove the key"
    if draft.data is not None and draft.data.checks.missing_label != "stop":
        yield "data.checks.missing_label", "a question without an answer has an empty list of them; remove the key"
    if draft.train is not None and draft.train.frozen_prefix != "dropout":
        yield "train.frozen_prefix", 'layers are kept for texts with one decision only; write "dropout"'
    if draft.method is not None and getattr(load_plugin("methods", draft.method.name), "VIRTUAL_TOKENS", False):
        yield "method.name", f'{draft.method.name} puts tokens without a place in front of the text; use "lora"'


def load_splits(
    recipe: Recipe,
    config: Config,
    *,
    tokenizer: Any = None,
    report_path: Path | None = None,
) -> QuestionSplits:
    """Return the recipe's checked questions; raises DataError where the rows cannot be used.

    With `tokenizer` the report says how many passages are read in windows.
    """
    from peftlab.data.question_windows import most_question_tokens, question_windows
    from peftlab.data.questioned import load_questions, with_notes
    from peftlab.data.text_pairs import reading_of

    length = recipe.encoder.max_length if recipe.encoder is not None else None
    most = most_question_tokens(length) if length is not None else None
    reading = replace(reading_of(recipe, tokenizer, report_path), max_length=most)
    splits = load_questions(recipe.data, reading)
    if tokenizer is None or length is None:
        return splits
    notes = [
        f"{split.name}: passages above encoder.max_length = {length}, read whole in overlapping windows: {count:,}"
        for split in (splits.train, splits.validation, splits.test)
        if (count := question_windows(tokenizer, split, length, config.overlap).shared)
    ]
    return with_notes(splits, notes, report_path)


def labels(splits: QuestionSplits) -> tuple[str, ...]:  # noqa: ARG001 the contract
    """Return no names: an answer is a place in a passage."""
    return ()


def load_model(
    recipe: Recipe,
    folder: Path,
    names: Sequence[str],  # noqa: ARG001 the contract
    *,
    kept: Mapping[str, Any] | None = None,  # noqa: ARG001 the contract
    device: torch.device | None = None,
) -> LoadedEncoder:
    """Load the encoder in `folder` with two logits a token, and the threshold below which no answer is given."""
    from peftlab.encoders.reader import load_reader

    return load_reader(recipe.needed_encoder(), folder, recipe.head.dropout, device=device)


def encode(tokenizer: Any, split: QuestionSplit, recipe: Recipe) -> QuestionWindows:
    """Return the questions of `split` with their passages, in windows of the recipe's length."""
    from peftlab.data.question_windows import question_windows

    return question_windows(tokenizer, split, recipe.needed_encoder().max_length, _config(recipe).overlap)


def objective(
    encoded: QuestionWindows,
    splits: QuestionSplits,  # noqa: ARG001 the contract
    recipe: Recipe,  # noqa: ARG001
    model: nn.Module,  # noqa: ARG001
    device: torch.device,  # noqa: ARG001
) -> Objective:
    """Return what the loop trains by; a question counts once, whatever its windows."""
    from peftlab.data.question_windows import window_batches
    from peftlab.data.tokens import Objective

    return Objective(
        batch=window_batches(encoded),
        row_losses=span_losses,
        row_weights=np.ones(len(encoded), np.float32),
    )


def span_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each question, [rows], in fp32: the mean over its windows.

    `logits`: [windows, tokens, 2]. `targets`: [windows, 3], first and last token of the answer, and the question's
    place in the batch.
    """
    from torch.nn import functional

    first, last, owners = targets.unbind(1)
    scores = logits.float()
    losses = 0.5 * (
        functional.cross_entropy(scores[..., 0], first, reduction="none")
        + functional.cross_entropy(scores[..., 1], last, reduction="none")
    )
    sums = losses.new_zeros(int(owners.max()) + 1).index_add(0, owners, losses)
    return sums / owners.bincount()


def logits(
    model: nn.Module,
    encoded: QuestionWindows,
    recipe: Recipe,  # noqa: ARG001 the contract
    passes: Passes,
) -> NDArray[np.float32]:
    """Return both logits of every token, [windows, tokens, 2], zeros behind a window's last token."""
    from peftlab.evaluation.forward import as_forward, each_token, logits_through

    training = model.training
    found = logits_through(
        each_token(as_forward(model, passes.device), encoded.width), encoded.windows, passes.batch_size
    )
    model.train(training)
    return found


def outputs(model: nn.Module, encoded: QuestionWindows, recipe: Recipe, passes: Passes) -> Found:
    """Return the best span of each question, and the model's threshold; every process reads all of them."""
    from peftlab.encoders.reader import threshold_of
    from peftlab.evaluation.answer_scores import best_spans

    most = _config(recipe).max_answer_tokens
    return best_spans(logits(model, encoded, recipe, passes), encoded, most, threshold_of(model))


def settle(model: nn.Module, outputs: Found, split: QuestionSplit) -> None:
    """Write into `model` the threshold at which the F1 of the validation rows is highest."""
    from peftlab.encoders.reader import set_threshold
    from peftlab.evaluation.answer_scores import fitted_threshold

    set_threshold(model, fitted_threshold(outputs, split))


def predicted(outputs: Found, splits: QuestionSplits, config: Config) -> list[tuple[int, int] | None]:  # noqa: ARG001
    """Return the characters of each answer, None where none is given."""
    given = (outputs.margins > outputs.threshold).tolist()
    places = zip(outputs.starts.tolist(), outputs.ends.tolist(), given, strict=True)
    return [(start, end) if answers else None for start, end, answers in places]


def point_metrics(
    outputs: Found,
    split: QuestionSplit,
    splits: QuestionSplits,  # noqa: ARG001 the contract
    config: Config,  # noqa: ARG001
) -> dict[str, float]:
    """Return the metrics of one validation, at the threshold that suits it best, without intervals."""
    from peftlab.evaluation.answer_scores import point_metrics as points

    return points(outputs, split)


def score(outputs: Found, split: QuestionSplit, splits: QuestionSplits, config: Config) -> AnswerScores:  # noqa: ARG001
    """Return every metric of `split` with its 95 % interval, at the model's own threshold."""
    from peftlab.evaluation.answer_scores import score_answers

    return score_answers(outputs, split)


def write_predictions(
    path: Path,
    outputs: Found,
    split: QuestionSplit,
    splits: QuestionSplits,  # noqa: ARG001 the contract
    config: Config,  # noqa: ARG001
) -> None:
    """Write `predictions.jsonl`: `id`, `question`, `gold` answers, the given `answer` and its `margin` over none."""
    from peftlab.runs.files import whole_file

    rows = zip(
        split.ids,
        split.questions,
        split.answers,
        outputs.texts(split.contexts),
        outputs.margins.tolist(),
        strict=True,
    )
    with whole_file(path) as file:
        for name, question, answers, answer, margin in rows:
            gold = [one.text for one in answers]
            line = {"id": name, "question": question, "gold": gold, "answer": answer, "margin": margin}
            file.write((json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def predictor(run: RunModel, device: torch.device, against: Path | None) -> AnswerPredictor:  # noqa: ARG001
    """Return what `predict` asks: passages and questions to answers."""
    from peftlab.data.questioned import QuestionSplit, text_columns
    from peftlab.evaluation.answer_predictor import AnswerPredictor
    from peftlab.evaluation.forward import Passes

    again = run.recipe.model_copy(update={"encoder": run.encoder})
    passes = Passes(run.recipe.evaluation.batch_size, device)

    def find(texts: Sequence[str], questions: Sequence[str]) -> Found:
        asked = QuestionSplit("test", texts, texts, questions, [()] * len(texts))
        return outputs(run.module, encode(run.tokenizer, asked, again), again, passes)

    return AnswerPredictor(find, *text_columns(run.recipe.data))


def _config(recipe: Recipe) -> Config:
    config: Config = recipe.task.config  # type: ignore[assignment] # this task's own
    return config
