"""`peftlab calibrate`: what it writes, who obeys it, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftlab import calibrate, predict, train
from peftlab.evaluation.predictor import load_predictor
from peftlab.runs.calibration import run_calibration

# With 24 validation rows no more can be promised.
WORDS = ("--target", "0.7", "--confidence", "0.8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_tickets: Callable[..., Path]) -> Path:
    """Return a finished TF-IDF run, which needs no torch, with its own copy of the data beside it."""
    folder = tmp_path_factory.mktemp("calibrate")
    shutil.copytree(tiny_tickets(), folder / "data")
    files = "\n".join(f'{split} = "data/{split}.jsonl"' for split in ("train", "validation", "test"))
    recipe = folder / "tiny.toml"
    recipe.write_text(
        f'[task]\nname = "classification"\n\n[data]\n{files}\n\n[method]\nname = "tfidf"\n\n[run]\ntrackers = []\n',
        encoding="utf-8",
    )
    assert train.main([str(recipe), f"run.dir={folder / 'run'}"]) == 0
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def answers(folder: Path, texts: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert predict.main([str(folder), str(texts), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_calibrated_run_says_what_is_routed_and_predict_obeys(
    run: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`routed` is whether the largest calibrated probability reaches the threshold; labels stay as they were."""
    texts = trained.parent / "data" / "test.jsonl"
    before = answers(run, texts, capsys)
    assert calibrate.main([str(run), *WORDS]) == 0
    said = capsys.readouterr()
    made = run_calibration(run)

    assert said.out.strip() == str(run)
    assert "70 % accuracy promised with 80 % confidence on the texts that are routed" in said.err
    assert "Check on the test rows, which had no part in it: " in said.err
    assert made is not None
    assert made.threshold is not None
    assert (made.rows_fitted, made.rows_tested, made.test is not None) == (5, 19, True)
    after = answers(run, texts, capsys)
    assert [row["label"] for row in after] == [row["label"] for row in before]
    assert all("routed" not in row for row in before)
    for row in after:
        assert row["routed"] == (max(row["probabilities"].values()) >= made.threshold)
        assert sum(row["probabilities"].values()) == pytest.approx(1)
    assert made.test is not None
    assert made.test.coverage.value == sum(row["routed"] for row in after) / len(after)


def test_people_are_shown_where_a_text_goes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate.main([str(run), *WORDS]) == 0
    values = json.loads((run / "calibration.json").read_text("utf-8"))
    (run / "calibration.json").write_text(json.dumps(values | {"threshold": 0.999}), encoding="utf-8")
    capsys.readouterr()
    assert predict.main([str(run), "--text", "why"]) == 0
    assert capsys.readouterr().out.split("\t")[2] == "to people"
    (run / "calibration.json").write_text(json.dumps(values | {"threshold": 0.0}), encoding="utf-8")
    assert predict.main([str(run), "--text", "why"]) == 0
    assert capsys.readouterr().out.split("\t")[2:] == ["routed", "why\n"]


def test_where_no_threshold_keeps_the_promise_nothing_is_routed(
    run: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3, a sentence that says how many rows would do, and predict gives everything to people."""
    assert calibrate.main([str(run), "--target", "0.99", "--json"]) == 3
    said = capsys.readouterr()
    written = json.loads(said.out)
    assert "No threshold keeps 99 % accuracy with 95 % confidence on these 24 rows" in said.err
    assert "(coverage 0)" in said.err
    assert (written["threshold"], written["coverage"]["value"], written["test"]["accuracy"]) == (None, 0.0, None)
    assert written == json.loads((run / "calibration.json").read_text("utf-8"))
    assert not any(row["routed"] for row in answers(run, trained.parent / "data" / "test.jsonl", capsys))
    card = (run / "README.md").read_text("utf-8")
    assert "**No threshold keeps 99 % accuracy" in card


def test_the_card_shows_the_promise_then_the_check_and_the_curve(run: Path) -> None:
    before = (run / "README.md").read_text("utf-8")
    assert calibrate.main([str(run), *WORDS]) == 0
    card = (run / "README.md").read_text("utf-8")
    promise, check, curve = (card.index(words) for words in ("**70 % accuracy", "Check on the test", "risk_coverage"))
    assert promise < check < curve
    assert (run / "risk_coverage.png").read_bytes().startswith(b"\x89PNG")
    assert "risk_coverage" not in before
    gone = [line for line in before.splitlines() if line not in card.splitlines()]
    assert len(gone) == 1
    assert gone[0].startswith("`label` and `probabilities`; ")  # now also `routed`


def test_the_test_rows_take_no_part_in_fitting(run: Path) -> None:
    """Other predictions of the test rows change the check and nothing else."""
    assert calibrate.main([str(run), *WORDS]) == 0
    first = run_calibration(run)
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text("utf-8").splitlines()]
    for line in lines:
        line["probabilities"] = dict(zip(line["probabilities"], reversed(line["probabilities"].values()), strict=True))
    (run / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert calibrate.main([str(run), *WORDS]) == 0
    second = run_calibration(run)
    assert first is not None
    assert second is not None
    assert first.test != second.test
    plain = {"test": None, "created": first.created}
    assert first.model_copy(update=plain) == second.model_copy(update=plain)


def test_a_calibration_of_another_trained_part_is_refused_until_made_anew(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate.main([str(run), *WORDS]) == 0
    path = max((run / "trained").iterdir(), key=lambda file: file.stat().st_size)
    shutil.copy(path, run / "trained" / f"copy-{path.name}")
    capsys.readouterr()
    assert predict.main([str(run), "--text", "why"]) == 2
    assert "was made for another trained part" in capsys.readouterr().err
    assert calibrate.main([str(run), *WORDS]) == 0
    assert predict.main([str(run), "--text", "why"]) == 0


def unseen(folder: Path, run: Path) -> Path:
    """Return a file of 40 labelled rows that are not in the run's data."""
    lines = [json.loads(line) for line in (run.parent / "data" / "train.jsonl").read_text("utf-8").splitlines()]
    file = folder / "unseen.jsonl"
    file.write_text(
        "".join(json.dumps(line | {"text": f"{line['text']} new"}) + "\n" for line in lines[:40]), encoding="utf-8"
    )
    return file


def test_labelled_rows_of_a_file_take_the_place_of_validation(
    run: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = unseen(tmp_path, trained)
    assert calibrate.main([str(run), *WORDS, "--rows", str(file)]) == 0
    made = run_calibration(run)
    assert made is not None
    assert made.rows is not None
    assert made.rows.path == str(file)
    assert (made.rows_fitted, made.rows_tested, made.candidates) == (8, 32, 1)
    assert f"`{file}`" in (run / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"text": "where is it", "label": "weather"}, "unseen.jsonl:41: no label of the run: 'weather'"),
        ({"text": "", "label": "payment"}, "unseen.jsonl:41: the text is empty"),
        (None, "unseen.jsonl:41: its text is a test row of the run"),
    ],
)
def test_rows_that_say_nothing_of_new_texts_are_refused(
    row: dict[str, str] | None,
    sentence: str,
    run: Path,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = unseen(tmp_path, trained)
    again = (trained.parent / "data" / "test.jsonl").read_text("utf-8").splitlines()[0]
    with file.open("a", encoding="utf-8") as more:
        more.write((again if row is None else json.dumps(row)) + "\n")
    assert calibrate.main([str(run), *WORDS, "--rows", str(file)]) == 2
    assert sentence in capsys.readouterr().err
    assert calibrate.main([str(run), "--rows", str(tmp_path / "gone.jsonl")]) == 2


def test_a_run_that_was_trained_on_its_validation_rows_needs_others(
    tiny_recipe: Callable[..., Path], trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "both"
    words = ["data.train_on_validation=true", "train.epochs=1", f"run.dir={folder}"]
    assert train.main([str(tiny_recipe("head")), *words]) == 0
    capsys.readouterr()
    assert calibrate.main([str(folder)]) == 2
    assert "was trained on its validation rows too" in capsys.readouterr().err
    assert calibrate.main([str(folder), "--rows", str(unseen(tmp_path, trained)), "--target", "0.05"]) in (0, 3)


@pytest.mark.parametrize("content", ["", "{", '{"schema_version": 2}', '{"schema_version": 1, "target": 2.0}'])
def test_a_broken_calibration_is_a_sentence(content: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also one of a later version. A half-written file is not left by calibrate itself, which writes whole files."""
    (run / "calibration.json").write_text(content, encoding="utf-8")
    assert predict.main([str(run), "--text", "why"]) == 2
    said = capsys.readouterr().err
    assert "is not a calibration of this version of peftlab" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--target", "95"], "write 0.95 for 95 %"),
        (["--target", "1"], "expected a number between 0 and 1"),
        (["--confidence", "nan"], "expected a number between 0 and 1"),
        (["--confidence", "high"], "expected a number between 0 and 1"),
    ],
)
def test_a_share_that_is_none_is_refused(
    words: list[str], sentence: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        calibrate.main([str(run), *words])
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


def test_other_data_than_those_of_the_run_are_refused(
    trained: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their validation rows may have been trained on. Nothing is written."""
    path = trained.parent / "data" / "validation.jsonl"
    whole = path.read_text("utf-8")
    try:
        path.write_text("".join(whole.splitlines(keepends=True)[1:]), encoding="utf-8")
        assert calibrate.main([str(run)]) == 2
    finally:
        path.write_text(whole, encoding="utf-8")
    assert "fingerprints differ" in capsys.readouterr().err
    assert not (run / "calibration.json").exists()


def test_a_run_with_any_number_of_labels_is_refused(
    tiny_tickets: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = "\n".join(f'{split} = "{tiny_tickets() / split}.jsonl"' for split in ("train", "validation", "test"))
    recipe, folder = tmp_path / "many.toml", tmp_path / "many"
    recipe.write_text(
        f'[task]\nname = "classification"\nmulti_label = true\n\n[data]\n{files}\n\n[method]\nname = "tfidf"\n\n'
        "[run]\ntrackers = []\n",
        encoding="utf-8",
    )
    assert train.main([str(recipe), f"run.dir={folder}"]) == 0
    capsys.readouterr()
    assert calibrate.main([str(folder)]) == 2
    assert "gives a text any number of labels" in capsys.readouterr().err


def test_a_run_whose_test_rows_were_put_aside_is_calibrated_without_a_check(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "aside"
    words = ["evaluation.score_test=false", f"run.dir={folder}"]
    assert train.main([str(trained.parent / "tiny.toml"), *words]) == 0
    capsys.readouterr()
    assert calibrate.main([str(folder), *WORDS]) == 0
    assert "Check on the test rows" not in capsys.readouterr().err
    made = run_calibration(folder)
    assert made is not None
    assert made.test is None
    assert load_predictor(folder).calibration == made


@pytest.mark.parametrize(
    ("words", "candidates"), [([], 1), (["head.init=probe"], 6), (["train.epochs=3", "evaluation.patience=1"], 3)]
)
def test_the_models_that_validation_chose_among_are_paid_for(
    words: list[str], candidates: int, tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """Planned checkpoints times probes that were tried; a stricter test needs surer texts, never a lower threshold."""
    run = tmp_path / "run"
    assert train.main([str(tiny_recipe("lora")), "train.epochs=1", *words, f"run.dir={run}"]) == 0
    assert calibrate.main([str(run), *WORDS]) in (0, 3)
    made = run_calibration(run)
    assert made is not None
    assert made.candidates == candidates


def test_what_is_no_finished_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate.main([str(tmp_path / "gone")]) == 2
    assert calibrate.main([str(tmp_path)]) == 2
    assert "is not finished" in capsys.readouterr().err
