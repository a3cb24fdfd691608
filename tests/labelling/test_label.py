"""`peftlab label`: rows out, labels back, a probe on cached embeddings, and the next round."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftlab import label
from peftlab.recipe.load import read_recipe
from peftlab.training.prepare import find_inputs

Label = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def pool(tiny_tickets: Callable[..., Path], tmp_path: Path) -> Path:
    """Return a CSV of 40 new texts, one of them twice, one empty, one that stands in test and one in train."""
    words = ["parcel", "courier", "delivery", "tracking", "invoice", "card", "refund", "battery", "screen", "colour"]
    texts = [f"where is my {first} and {second}" for first in words[:8] for second in words[5:]]
    for split in ("test", "train"):
        texts.append(json.loads((tiny_tickets() / f"{split}.jsonl").read_text("utf-8").splitlines()[0])["text"])
    path = tmp_path / "pool.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in [*texts, texts[0].upper(), ""])])
    return path


@pytest.fixture
def run(tiny_recipe: Callable[..., Path], pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Label:
    """Return `run(*words)`: exit code, JSON and standard error of `peftlab label POOL --recipe ... words`."""
    recipe = tiny_recipe("probe")

    def run(*words: str, with_pool: bool = True) -> tuple[int, Any, str]:
        first = [str(pool)] if with_pool else []
        code = label.main([*first, "--recipe", str(recipe), "--work", str(tmp_path / "work"), "--json", *words])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out.strip() else None, err

    return run


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def fill(path: Path, rows: list[dict[str, str]], labels: list[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows({**row, "label": word} for row, word in zip(rows, labels, strict=True))


def test_rounds_go_out_and_come_back_until_the_pool_is_labelled(
    run: Label, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_recipe: Callable[..., Path]
) -> None:
    code, answer, said = run("--budget", "6")
    assert code == 0
    assert answer == {"round": str(tmp_path / "work" / "round-1.csv"), "rows": 6, "strategy": "margin"}
    assert "1 rows without a text" in said
    assert "1 rows that also stand in test" in said
    assert "1 rows that also stand in train" in said
    assert "1 rows that repeat another" in said
    assert "6 of 40 rows chosen by margin" in said
    first = tmp_path / "work" / "round-1.csv"
    rows = read(first)
    assert {row["suggested"] for row in rows} <= {"logistics", "payment", "product"}

    # From here on no text is embedded: everything lies on disk.
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a text was embedded again")

    monkeypatch.setattr("peftlab.curation.embedding.pooled_features", refuse)
    fill(first, rows, ["logistics", "payment", "product", "logistics", "", ""])
    code, answer, said = run("--take", str(first), "--budget", "40", "--strategy", "diversity")
    assert code == 0
    assert (answer["taken"], answer["labels"], answer["rows"]) == (4, 64, 36)
    assert answer["difference"]["low"] <= answer["difference"]["value"] <= answer["difference"]["high"]
    assert "40 more labels: +" in said
    second = {row["row"] for row in read(tmp_path / "work" / "round-2.csv")}
    assert not second & {row["row"] for row in rows[:4]}
    assert {row["row"] for row in rows[4:]} <= second
    recipe = read_recipe(tiny_recipe("probe"), [f"data.train={answer['train']}"])
    assert len(find_inputs(recipe, report_path=None, say=lambda _: None).splits.train) == 64


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["payments", "", ""], r"round-1.csv:2: no label 'payments'; did you mean 'payment'?"),
        (["", "", ""], "the column label is empty in every row"),
    ],
)
def test_a_file_that_is_not_filled_in_rightly_is_refused_and_the_round_stays_open(
    run: Label, tmp_path: Path, labels: list[str], expected: str
) -> None:
    run("--budget", "3")
    path = tmp_path / "work" / "round-1.csv"
    fill(path, read(path), labels)
    code, _, said = run("--take", str(path))
    assert code == 2
    assert expected in said
    code, _, said = run("--budget", "3")
    assert code == 2
    assert "round-1.csv is still open; fill it in and name it with --take" in said


def test_rows_of_another_file_are_refused(run: Label, tmp_path: Path) -> None:
    run("--budget", "3")
    path = tmp_path / "work" / "round-1.csv"
    path.write_text(path.read_text(encoding="utf-8-sig").replace(",t", ",u"), encoding="utf-8")
    code, _, said = run("--take", str(path))
    assert code == 2
    assert "this row was not given out in round-1.csv" in said


def test_another_pool_needs_another_folder(run: Label, pool: Path) -> None:
    run("--budget", "3")
    pool.write_text("text\nsomething else\n", encoding="utf-8")
    code, _, said = run("--budget", "3")
    assert code == 2
    assert "belongs to another pool" in said


def test_what_is_missing_on_the_command_line_is_said(run: Label) -> None:
    code, _, said = run()
    assert code == 2
    assert "--budget N, --take FILE or both" in said


def test_a_recipe_without_an_encoder_is_refused_with_what_to_add(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_tickets: Callable[..., Path]
) -> None:
    recipe = tmp_path / "plain.toml"
    files = "\n".join(f'{split} = "{tiny_tickets() / split}.jsonl"' for split in ("train", "validation", "test"))
    recipe.write_text(f'[task]\nname = "classification"\n[data]\n{files}\n[method]\nname = "tfidf"\n', "utf-8")
    assert label.main([str(pool), "--recipe", str(recipe), "--budget", "3"]) == 2
    assert "add [encoder] with name" in capsys.readouterr().err


def test_a_simulation_compares_all_strategies_on_validation(run: Label) -> None:
    code, answer, said = run("--simulate", "--start", "9", "--most", "60", "--budget", "17", with_pool=False)
    assert code == 0
    assert answer["sizes"] == [9, 26, 43, 60]
    assert set(answer["needed"]) == {"random", "uncertainty", "margin", "diversity", "margin_diversity", "badge"}
    ends = [curve[-1] for curve in answer["curves"].values()]
    assert ends == pytest.approx([answer["wanted"]] * 6, abs=1e-6)
    assert "on 24 validation rows with 60 labels" in said
