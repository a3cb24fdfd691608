"""Question answering from recipe to spans on a tiny encoder: windows, the threshold, SQuAD's rules, and broken rows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_runs import task_recipe, train_whole_and_stopped, write_rows, write_splits

from peftlab import check, predict
from peftlab.data.passages.generate import generate_questions
from peftlab.data.question_windows import QuestionWindows, question_windows
from peftlab.data.questioned import Answer, QuestionSplit
from peftlab.encoders.load import load_tokenizer
from peftlab.evaluation.answer_scores import (
    ALWAYS,
    METRICS,
    PARTS,
    Found,
    best_spans,
    fitted_threshold,
    point_metrics,
    right_rows,
    score_answers,
)
from peftlab.recipe.load import read_recipe
from peftlab.recipe.resolve import resolved
from peftlab.runs.result import read_result
from peftlab.tasks import question_answering

THINGS = ("parcel", "battery", "invoice", "colour", "warranty")
PLACES = ("courier", "account", "bank", "model", "screen")


def question_rows(rows: int, start: int) -> list[dict[str, Any]]:
    """Return passages that say where two things are; every fourth question asks for a third one."""
    made = []
    for number in range(start, start + rows):
        one, two, other = (THINGS[(number + step) % 5] for step in (0, 1, 2))
        places = (PLACES[number % 5], PLACES[(number // 5 + 2) % 5])
        context = f"{number} the {one} is {places[0]}. it was the {two} when {places[1]}."
        asked, answer = (one, places[0]) if number % 2 else (two, places[1])
        answers = [{"text": answer, "answer_start": context.rindex(answer) if asked == two else context.index(answer)}]
        if number % 4 == 0:
            asked, answers = other, []
        made.append({"id": f"q{number}", "context": context, "question": f"when is the {asked}?", "answers": answers})
    return made


def write_squad(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as SQuAD 2.0 does."""
    paragraphs = [
        {
            "context": row["context"],
            "qas": [{key: row[key] for key in ("id", "question", "answers")} | {"is_impossible": not row["answers"]}],
        }
        for row in rows
    ]
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "x", "paragraphs": paragraphs}]}), "utf-8")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a file of train, validation and test rows each."""
    return write_splits(tmp_path_factory.mktemp("questions"), question_rows, (16, 20), write_squad, ".json")


@pytest.fixture
def recipe(tmp_path: Path, tiny_encoder: Callable[..., Path], files: dict[str, Path]) -> Callable[..., Path]:
    """Return `write(method, data, length)`: the path of a recipe of question answering."""

    def write(method: str = "lora", data: str | None = None, length: int = 16) -> Path:
        encoder = f'name = "{tiny_encoder()}"\nmax_length = {length}'
        task = 'name = "question_answering"'
        path = tmp_path / f"{method}.toml"
        return task_recipe(path, files, encoder=encoder, task=task, method=method, data=data)

    return write


def splits_of(path: Path) -> Any:
    read = resolved(read_recipe(path, []))
    return question_answering.load_splits(read, read.task.config)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["lora", "adalora", "bottleneck", "full"])
def test_a_run_goes_on_after_a_stop_in_the_same_bits_and_predicts_as_it_was_scored(
    method: str,
    recipe: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Trained whole, and stopped in step 16 and continued: equal files; saved, loaded back, and asked again."""
    # Windows of 16 tokens: passages are longer.
    whole, _ = train_whole_and_stopped(str(recipe(method)), tmp_path, monkeypatch)

    result = read_result(whole)
    assert result.status == "ok"
    assert result.round_trip is not None
    assert result.round_trip.max_logit_difference == 0.0
    assert result.parameters is not None
    assert set(result.parameters.newly_initialised) == {"classifier", "no_answer"}
    assert tuple(result.metrics.test) == (*METRICS, *PARTS)
    assert any("read whole in overlapping windows: 56" in note for note in result.notes)
    rows = write_rows(tmp_path / "test.jsonl", question_rows(20, 200))
    capsys.readouterr()
    assert predict.main([str(whole), str(rows), "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    scored = [json.loads(line) for line in (whole / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in scored] == [f"q{number}" for number in range(200, 220)]
    for answer, row, asked in zip(told, scored, question_rows(20, 200), strict=True):
        # The threshold that was fitted is saved with the head: the same questions are left unanswered.
        assert answer["answer"] == row["answer"]
        assert answer["margin"] == pytest.approx(row["margin"], abs=1e-4)
        if answer["answer"]:
            assert asked["context"][answer["start"] : answer["end"]] == answer["answer"]
        else:
            assert answer["start"] is None


def test_a_long_passage_is_read_whole_and_each_answer_stands_in_a_window(tiny_encoder: Callable[..., Path]) -> None:
    """Windows overlap, none is longer than asked, and the tokens between both targets are those of the answer."""
    words = [f"{thing} {number}" for number, thing in enumerate(THINGS * 40)]
    context = " ".join(words)
    answers = [(Answer(words[place], context.index(f" {words[place]} ") + 1),) for place in (1, 30, 77, 198)]
    split = QuestionSplit("train", list("abcd"), [context] * 4, ["where is it?"] * 4, answers)
    tokenizer = load_tokenizer(tiny_encoder())
    encoded = question_windows(tokenizer, split, 48, 0.5)
    assert encoded.width == 48
    assert len(encoded) == 4
    assert encoded.shared == 4
    for row in range(4):
        windows = range(int(encoded.rows[row]), int(encoded.rows[row + 1]))
        seen = np.zeros(len(context), bool)
        held = 0
        for window in windows:
            spans = encoded.span_of(window)
            for start, end in spans[spans[:, 1] > 0]:
                seen[start:end] = True
            first, last = encoded.targets[window]
            if first:
                held += 1
                assert context[spans[first, 0] : spans[last, 1]] == answers[row][0].text
        assert held >= 1
        assert all(seen[place] or context[place] == " " for place in range(len(context)))
    some = encoded.first(2)
    assert len(some) == 2
    assert len(some.targets) == encoded.rows[2]


def test_the_loss_of_a_question_is_the_mean_over_its_windows() -> None:
    logits = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 2, 0], [0, 0, 0], [3, 4, 1]])
    found = question_answering.span_losses(logits, targets)
    logs = logits.log_softmax(1)
    each = [-(logs[w, first, 0] + logs[w, last, 1]) / 2 for w, (first, last, _) in enumerate(targets.tolist())]
    assert found.tolist() == pytest.approx([float((each[0] + each[1]) / 2), float(each[2])], rel=1e-5)


def made_up_windows(rows: list[int], tokens: int) -> QuestionWindows:
    """Return questions of `rows` windows each: a first token, then tokens that stand for two characters each."""
    from peftlab.data.tokens import Tokens

    windows = sum(rows)
    spans = np.asarray([(-1, -1), *((2 * place, 2 * place + 2) for place in range(tokens - 1))] * windows, np.int32)
    starts = np.arange(windows + 1) * tokens
    made = Tokens(np.zeros(windows * tokens, np.int32), None, starts, 0, False)
    return QuestionWindows(made, np.cumsum([0, *rows]), spans, np.zeros((windows, 2), np.int64))


def test_the_best_span_is_that_of_a_search_through_all() -> None:
    """Over all windows of a question, no longer than asked, the end not before the start."""
    encoded = made_up_windows([1, 3, 2], 7)
    logits = np.random.default_rng(0).normal(size=(6, 7, 2)).astype(np.float32)
    found = best_spans(logits, encoded, 3, 0.5)
    for row in range(3):
        best: tuple[float, int, int] = (-np.inf, 0, 0)
        none = np.inf
        for window in range(encoded.rows[row], encoded.rows[row + 1]):
            none = min(none, float(logits[window, 0].sum()))
            for start in range(1, 7):
                for end in range(start, min(7, start + 3)):
                    score = float(logits[window, start, 0]) + float(logits[window, end, 1])
                    best = max(best, (score, 2 * (start - 1), 2 * end))
        assert (found.starts[row], found.ends[row]) == best[1:]
        assert found.margins[row] == pytest.approx(best[0] - none, rel=1e-6)
    assert found.threshold == 0.5


@pytest.mark.parametrize(
    ("text", "answers", "exact", "f1"),
    [
        ("The  Cat!", ["a cat"], 1.0, 1.0),
        ("black cat", ["the cat", "a black cat sat"], 0.0, 0.8),
        ("", [], 1.0, 1.0),
        ("cat", [], 0.0, 0.0),
        ("", ["cat"], 0.0, 0.0),
        ("北京市", ["北京"], 0.0, 0.8),
        ("dog", ["cat"], 0.0, 0.0),
    ],
)
def test_answers_are_right_by_the_rules_of_squad(text: str, answers: list[str], exact: float, f1: float) -> None:
    split = QuestionSplit("test", ["1"], ["x"], ["x"], [tuple(Answer(one, 0) for one in answers)])
    assert right_rows([text], split)[0].tolist() == pytest.approx([exact, f1])


def random_found(rows: int, seed: int, none: float = 0.4) -> tuple[Found, QuestionSplit]:
    """Return spans of "ab" or "cd" with margins, where "ab" is right, or nothing is."""
    generator = np.random.default_rng(seed)
    starts = generator.choice([0, 2], rows)
    answers = [() if generator.random() < none else (Answer("ab", 0),) for _ in range(rows)]
    margins = generator.normal(size=rows).round(1) + np.asarray([float(bool(one)) for one in answers])
    split = QuestionSplit("test", ["1"] * rows, ["abcd"] * rows, ["x"] * rows, answers)
    return Found(starts, starts + 2, margins, 0.0), split


@pytest.mark.parametrize("seed", range(6))
def test_no_other_threshold_has_a_higher_f1_on_the_rows_that_it_was_fitted_on(seed: int) -> None:
    found, split = random_found(30, seed)
    best = replace(found, threshold=fitted_threshold(found, split))
    value = right_rows(best.texts(split.contexts), split)[:, 1].mean()
    assert point_metrics(found, split)["f1"] == value
    for threshold in np.arange(-5, 5, 0.05):
        other = replace(found, threshold=float(threshold) + 0.01)
        assert right_rows(other.texts(split.contexts), split)[:, 1].mean() <= value


def test_every_question_is_answered_where_every_validation_row_has_an_answer() -> None:
    found, split = random_found(10, 0, none=0.0)
    assert fitted_threshold(found, split) == ALWAYS
    assert all(replace(found, threshold=ALWAYS).texts(split.contexts))
    assert list(score_answers(found, split).metrics) == list(METRICS), "there are no parts to tell apart"


def test_scores_are_means_with_intervals_also_of_either_kind_of_question() -> None:
    found, split = random_found(300, 1)
    scores = score_answers(found, split)
    right = right_rows(found.texts(split.contexts), split)
    has = np.asarray([bool(one) for one in split.answers])
    values = {
        "exact_match": right[:, 0].mean(),
        "f1": right[:, 1].mean(),
        "answerable_exact_match": right[has, 0].mean(),
        "answerable_f1": right[has, 1].mean(),
        "unanswerable_right": right[~has, 0].mean(),
    }
    for name, value in values.items():
        assert scores.metrics[name].value == pytest.approx(value)
        assert scores.metrics[name].low < value < scores.metrics[name].high
    assert scores.metrics["unanswerable_right"].n == int((~has).sum())
    assert "questions answered" in scores.to_dict()["facts"]["no answer"]


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "outside": (
        {"answers": [{"text": "parcel", "answer_start": 900}]},
        r'the answer "parcel" at character 900 lies out',
    ),
    "elsewhere": (
        {"answers": [{"text": "parcel", "answer_start": 0}]},
        r'"parcel" does not stand at character 0 .*"40 the"',
    ),
    "no list": ({"answers": "parcel"}, r"answers are 'parcel'; expected a list"),
    "absent": ({"answers": None}, r"answers are absent; expected a list, empty where there is none"),
    "no start": ({"answers": [{"text": "parcel"}]}, r"an answer is .*expected \{"),
    "unlike": ({"answers": {"text": ["a", "b"], "answer_start": [1]}}, r"2 answers have 1 starts"),
    "empty passage": ({"context": " ", "answers": []}, r"the text is empty: 1.*bad.jsonl:41"),
    "no question": ({"question": None}, r"no pair: 1.*bad.jsonl:41"),
    "long question": ({"question": "is it? " * 2000}, r"the question has 6,002 tokens; .*half of it, 8, at most"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_row_whose_answers_cannot_be_used_stops_the_run_and_is_named(
    case: str, recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed, sentence = BROKEN[case]
    last = question_rows(1, 40)[0] | changed
    data = write_rows(tmp_path / "bad.jsonl", [*question_rows(40, 0), last])
    assert check.main([str(recipe(data=f'train = "{data}"'))]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in shown
    assert "bad.jsonl:41" in shown
    assert re.search(sentence, shown), shown


def test_rows_of_the_hub_s_form_are_read_and_questions_on_one_passage_stay_together(
    recipe: Callable[..., Path], tmp_path: Path
) -> None:
    rows = question_rows(40, 0)
    for row in rows:
        row["answers"] = {key: [one[key] for one in row["answers"]] for key in ("text", "answer_start")}
    data = write_rows(tmp_path / "rows.jsonl", [*rows, rows[7] | {"id": "again", "question": "why?"}])
    splits = splits_of(recipe(data=f'train = "{data}"\nid = "id"'))
    parts = (splits.train, splits.validation, splits.test)
    where = [part.name for part in parts for name in part.ids if name in ("again", "q7")]
    assert len(where) == 2
    assert len(set(where)) == 1
    for part in parts:
        for context, answers in zip(part.contexts, part.answers, strict=True):
            assert all(context[one.start : one.end] == one.text for one in answers)


def test_a_file_that_is_not_squad_s_is_refused(
    recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.json"
    path.write_text('{"data": [{"paragraphs": [{"qas": []}, {"qas": [{"question": "x"}]}]}]}', encoding="utf-8")
    assert check.main([str(recipe(data=f'train = "{path}"'))]) == 2
    assert "odd.json: is no file of SQuAD (KeyError: 'context')" in " ".join(capsys.readouterr().err.split())


def test_what_does_not_apply_to_spans_is_refused_with_the_recipe(
    recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["encoder.pooling=mean", "evaluation.margin=0.1", "train.frozen_prefix=eval"]
    assert check.main([str(recipe("prompt", length=8)), *overrides, "data.checks.missing_label=warn"]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    for sentence in (
        "so that nothing is pooled",
        "known for accuracy only",
        "layers are kept for texts with one decision only",
        "a question without an answer has an empty list",
        "puts tokens without a place in front of the text",
        "need at least 16 tokens",
    ):
        assert sentence in shown


def test_the_built_in_passages_are_the_same_each_time_and_hold_their_answers() -> None:
    found = generate_questions()
    assert found == generate_questions()
    assert len({one.context for one in found}) == len(found) == 1850
    without = [one for one in found if one.answer is None]
    assert 0.2 < len(without) / len(found) < 0.3
    for one in found:
        assert "{" not in one.context + one.question
        if one.answer is not None:
            text, start = one.answer
            assert one.context[start : start + len(text)] == text
