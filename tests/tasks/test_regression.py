"""Regression from recipe to numbers on a tiny encoder; its metrics against scipy; rows without a usable number."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from task_runs import task_recipe, train_whole_and_stopped, write_rows, write_splits

from peftlab import check, predict, train
from peftlab.data.reviews.generate import generate_reviews
from peftlab.evaluation.value_scores import METRICS, point_metrics, score_values
from peftlab.recipe.load import read_recipe
from peftlab.recipe.resolve import resolved
from peftlab.runs.result import read_result
from peftlab.tasks import regression

WORDS = ("courier", "delivery", "tracking", "parcel", "warranty")
FILLER = ("the", "my", "a", "is", "was", "it", "please", "when", "why")


def valued_rows(rows: int, start: int) -> list[dict[str, Any]]:
    """Return distinct texts whose value is how many of their words are WORDS."""
    made = []
    for number in range(start, start + rows):
        value = number % 5
        made.append({"text": " ".join((*WORDS[:value], *FILLER[: 5 - value], str(number))), "value": value})
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a file of train, validation and test rows each."""
    return write_splits(tmp_path_factory.mktemp("values"), valued_rows, (15, 20), write_rows)


@pytest.fixture
def recipe(tmp_path: Path, tiny_encoder: Callable[..., Path], files: dict[str, Path]) -> Callable[..., Path]:
    """Return `write(method, data, pooling)`: the path of a recipe of regression."""

    def write(method: str = "lora", data: str | None = None, pooling: str = "mean") -> Path:
        encoder = f'name = "{tiny_encoder()}"\npooling = "{pooling}"\nmax_length = 24'
        task = 'name = "regression"\nspan = [0, 5]'
        path = tmp_path / f"{method}.toml"
        return task_recipe(path, files, encoder=encoder, task=task, method=method, data=data)

    return write


@pytest.mark.parametrize("method", ["lora", "adalora", "bottleneck", "full"])
def test_a_run_goes_on_after_a_stop_in_the_same_bits_and_predicts_as_it_was_scored(
    method: str,
    recipe: Callable[..., Path],
    tmp_path: Path,
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Trained whole, and stopped in step 16 and continued: equal files; saved, loaded back, and asked again."""
    path = str(recipe(method, pooling="native" if method == "bottleneck" else "mean"))
    whole, _ = train_whole_and_stopped(path, tmp_path, monkeypatch)

    result = read_result(whole)
    assert result.status == "ok"
    assert result.round_trip is not None
    assert result.round_trip.max_logit_difference == 0.0
    assert tuple(result.metrics.test) == METRICS
    capsys.readouterr()
    assert predict.main([str(whole), str(files["test"]), "--json"]) == 0
    told = [json.loads(line)["value"] for line in capsys.readouterr().out.splitlines()]
    scored = [json.loads(line) for line in (whole / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert told == pytest.approx([row["value"] for row in scored], abs=1e-5)
    gold = [row["gold"] for row in scored]
    assert gold == [row["value"] for row in valued_rows(20, 200)]
    assert result.metrics.test["pearson"].value == pytest.approx(stats.pearsonr(told, gold).statistic, abs=1e-4)


def test_metrics_are_those_of_scipy_and_their_intervals_hold_them() -> None:
    generator = np.random.default_rng(0)
    gold = np.round(generator.normal(size=80), 1)
    told = gold + generator.normal(size=80)
    values = point_metrics(told, gold)
    assert values["pearson"] == pytest.approx(stats.pearsonr(told, gold).statistic)
    assert values["spearman"] == pytest.approx(stats.spearmanr(told, gold).statistic)
    assert values["mse"] == pytest.approx(np.mean((told - gold) ** 2))
    scores = score_values(told, gold, 0.0)
    for name, value in values.items():
        assert scores.metrics[name].value == value
        assert scores.metrics[name].low < value < scores.metrics[name].high
    assert point_metrics(np.zeros(80), gold)["spearman"] == 0.0, "a constant is not correlated with anything"


def test_targets_are_on_the_scale_of_the_span(recipe: Callable[..., Path], tiny_encoder: Callable[..., Path]) -> None:
    from peftlab.encoders.load import load_tokenizer

    read = resolved(read_recipe(recipe(), []))
    splits = regression.load_splits(read, read.task.config)  # type: ignore[arg-type]
    encoded = regression.encode(load_tokenizer(tiny_encoder()), splits.train, read)
    objective = regression.objective(encoded, splits, read, torch.nn.Identity(), torch.device("cpu"))
    batch = objective.batch(np.arange(5), 0)
    assert batch.targets.tolist() == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    losses = objective.row_losses(torch.full((5, 1), 0.4), batch.targets)
    assert losses.tolist() == pytest.approx([0.16, 0.04, 0.0, 0.04, 0.16])


BROKEN: dict[str, tuple[list[dict[str, Any]], str]] = {
    "absent": ([{"text": "x"}], r"bad.jsonl:41: the value is absent; expected a number; correct the rows"),
    "word": ([{"text": "x", "value": "many"}], r"bad.jsonl:41: the value is 'many'; expected a number"),
    "boolean": ([{"text": "x", "value": True}], r"bad.jsonl:41: the value is True; expected a number"),
    "not a number": ([{"text": "x", "value": "nan"}], r"bad.jsonl:41: the value is 'nan'; expected a number"),
    "outside": ([{"text": "x", "value": 6}], r"bad.jsonl:41: the value 6 lies outside task.span = \[0.0, 5.0\]"),
    "two": ([{"text": "x"}, {"text": "y", "value": -1}], r"2 rows have no usable value.*bad.jsonl:41.*bad.jsonl:42"),
    "empty text": ([{"text": " ", "value": 1}], r"the text is empty: 1.*\(bad.jsonl:41\)"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_row_without_a_usable_number_stops_the_run_and_is_named(
    case: str, recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, sentence = BROKEN[case]
    data = write_rows(tmp_path / "bad.jsonl", [*valued_rows(40, 0), *rows])
    assert train.main([str(recipe(data=f'train = "{data}"')), f"run.dir={tmp_path / 'run'}"]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in shown
    assert re.search(sentence, shown), shown


def test_numbers_may_be_strings_and_splits_are_made(recipe: Callable[..., Path], tmp_path: Path) -> None:
    rows = [f"{row['text']},{row['value']}.0" for row in valued_rows(40, 0)]
    data = tmp_path / "rows.csv"
    data.write_text("text,stars\n" + "\n".join(rows) + "\n", encoding="utf-8")
    read = resolved(read_recipe(recipe(data=f'train = "{data}"\nlabel = "stars"'), []))
    splits = regression.load_splits(read, read.task.config)  # type: ignore[arg-type]
    for part in (splits.train, splits.validation, splits.test):
        assert len(part) > 0
        for text, number in zip(part.texts, part.labels, strict=True):
            assert number == int(text.split()[-1]) % 5
    assert len(splits.train.joined(splits.validation)) == len(splits.train) + len(splits.validation)


def test_what_does_not_apply_to_numbers_is_refused_with_the_recipe(
    recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["evaluation.margin=0.1", "data.checks.missing_label=warn", "task.span=[5, 1]"]
    assert check.main([str(recipe()), overrides[2]]) == 2
    assert "expected the lower end first, such as [1, 5], found [5.0, 1.0]" in capsys.readouterr().err
    assert check.main([str(recipe()), *overrides[:2]]) == 2
    shown = capsys.readouterr().err
    assert "known for accuracy only" in shown
    assert "every row needs its number" in shown
    same = write_rows(tmp_path / "same.jsonl", [{**row, "value": 2} for row in valued_rows(40, 0)])
    assert check.main([str(recipe(data=f'train = "{same}"'))]) == 2
    assert "training rows have the value 2" in " ".join(capsys.readouterr().err.split())


def test_the_built_in_reviews_are_the_same_each_time_and_within_their_span() -> None:
    reviews = generate_reviews()
    assert reviews == generate_reviews()
    assert len({one.text for one in reviews}) == len(reviews) == 1400
    assert {1.0, 3.5, 5.0} <= {one.value for one in reviews}
    assert all(1 <= one.value <= 5 for one in reviews)
    assert not [one.text for one in reviews if "{" in one.text]
