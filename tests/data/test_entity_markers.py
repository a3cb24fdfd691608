"""Two entities of a text marked from columns of spans: in training, in predictions, and where they cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftlab import check, export, predict, train
from peftlab.data.entity_markers import mark, refuse_unmarked
from peftlab.data.relations.generate import generate_relations
from peftlab.errors import UserError

TEXT = "Alice works for Acme."


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0, 5], [16, 20], "@ Alice @ works for # Acme # ."),
        ([16, 20], [0, 5], "# Alice # works for @ Acme @ ."),
        ("0:5", "[16, 20]", "@ Alice @ works for # Acme # ."),
        ([0, 5], [6, 11], "@ Alice @ # works # for Acme."),
        ((0, 5), (5, 21), "@ Alice @ # works for Acme. #"),
    ],
)
def test_both_spans_are_marked_wherever_they_stand(first: Any, second: Any, expected: str) -> None:
    assert mark(TEXT, first, second) == expected
    refuse_unmarked([expected])


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ([0, 5], [16, 99], r"the second span \[16, 99\] lies outside the text of 21 characters"),
        ([-1, 5], [16, 20], r"the first span \[-1, 5\] lies outside"),
        ([5, 5], [16, 20], r"the first span \[5, 5\] lies outside"),
        ([5, 6], [16, 20], r"the first span \[5, 6\] holds white space only"),
        ([0, 8], [6, 11], r"the spans \[0, 8\] and \[6, 11\] overlap"),
        (None, [16, 20], r"the first span is absent; expected \[start, end\]"),
        ("Alice", [16, 20], r"the first span is 'Alice'; expected"),
        ([0, 5], [16.0, 20], r"the second span is \[16.0, 20\]; expected"),
    ],
)
def test_spans_that_cannot_be_marked_are_refused_with_the_reason(first: Any, second: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        mark(TEXT, first, second)


def test_unmarked_texts_are_refused() -> None:
    with pytest.raises(UserError, match="mark them, as in '@ Alice @ works for # Acme #'"):
        refuse_unmarked(["@ Alice @ works for # Acme # .", TEXT])


def rows_of(rows: int) -> list[dict[str, Any]]:
    """Return texts of the same words, whose label is the word that the first span has."""
    made = []
    for number in range(rows):
        text = f"the parcel and my invoice {number}"
        spans = ([4, 10], [18, 25]) if number % 2 else ([18, 25], [4, 10])
        made.append({"text": text, "label": text[slice(*spans[0])], "head": spans[0], "tail": spans[1]})
    return made


@pytest.fixture
def recipe(tmp_path: Path, tiny_recipe: Callable[..., Path]) -> Path:
    """Return a recipe on rows whose texts differ by their marks only."""
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows_of(80)), encoding="utf-8")
    path: Path = tiny_recipe(data=f'train = "{data}"\nentities = ["head", "tail"]')
    return path


def test_a_run_reads_marked_texts_and_predicts_from_the_same_columns(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train.main([str(recipe), f"run.dir={run}", "train.max_steps=2"]) == 0
    report = json.loads((run / "data_report.json").read_text(encoding="utf-8"))
    assert any("two entities of each text are marked" in note for note in report["notes"])
    assert not report["findings"], "texts that differ by a number or by their marks do not count as the same"
    asked = tmp_path / "asked.jsonl"
    asked.write_text("".join(json.dumps(row) + "\n" for row in rows_of(6)), encoding="utf-8")
    capsys.readouterr()
    assert predict.main([str(run), str(asked), "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    texts = [word for row in rows_of(6) for word in ("--text", mark(row["text"], row["head"], row["tail"]))]
    assert predict.main([str(run), *texts, "--json"]) == 0
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for one, other in zip(told, again, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)

    assert predict.main([str(run), "--text", "the parcel and my invoice"]) == 2
    assert "mark them, as in" in capsys.readouterr().err
    asked.write_text(json.dumps({**rows_of(1)[0], "tail": [4, 99]}) + "\n", encoding="utf-8")
    assert predict.main([str(run), str(asked)]) == 2
    assert "asked.jsonl:1: the second span [4, 99] lies outside" in capsys.readouterr().err
    assert export.main([str(run), "--to", "merged", "--out", str(tmp_path / "out")]) == 2
    assert "which no export marks" in capsys.readouterr().err


def test_rows_whose_entities_cannot_be_marked_stop_the_run_and_are_named(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [{**row, "tail": [4, 99]} if number in (2, 5) else row for number, row in enumerate(rows_of(40))]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bad), encoding="utf-8")
    assert check.main([str(recipe)]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "entities of 2 rows cannot be marked" in shown
    assert "rows.jsonl:3: the second span [4, 99] lies outside the text of" in shown
    assert "rows.jsonl:6:" in shown
    assert check.main([str(recipe), 'data.entities=["head", "tial"]']) == 2
    assert 'no column "tial" (data.entities; did you mean "tail"?)' in " ".join(capsys.readouterr().err.split())


def test_entities_are_refused_where_nobody_marks_them(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(recipe), "task.name=tagging"]) == 2
    assert "the task tagging marks no entities" in capsys.readouterr().err


def test_the_built_in_relations_are_the_same_each_time_and_their_spans_are_names() -> None:
    found = generate_relations()
    assert found == generate_relations()
    assert len({one.text for one in found}) == len(found) == 1400
    assert len({one.label for one in found}) == 6
    for one in found:
        assert "{" not in one.text
        name = one.text[slice(*one.first)]
        assert name[0].isupper() or name.startswith("the ")
        mark(one.text, list(one.first), list(one.second))
