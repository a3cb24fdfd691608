"""The promise of a run travels with every export of it, fitted on the export's own logits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from export_cases import FORMATS, Case, Run

from peftlab import calibrate, export, predict, verify
from peftlab.runs.calibration import run_calibration
from peftlab.runs.certificate import read_certificate
from peftlab.shipping.loading import load_export

LORA = Case("lora", pooling="native")


@pytest.fixture(scope="module")
def run(finished_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a calibrated copy of a LoRA run; 24 validation rows do not allow to promise more."""
    folder = tmp_path_factory.mktemp("calibrated") / "run"
    shutil.copytree(finished_run(LORA), folder)
    assert calibrate.main([str(folder), "--target", "0.05", "--confidence", "0.5"]) == 0
    return folder


@pytest.fixture(scope="module")
def calibrated(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(to: str) -> Path:
        if to not in made:
            made[to] = tmp_path_factory.mktemp("export") / to
            assert export.main([str(run), "--to", to, "--out", str(made[to]), "--max-drop", "0.2"]) == 0
        return made[to]

    return make


@pytest.mark.parametrize("to", FORMATS)
def test_every_format_carries_the_promise_and_predict_obeys_it(
    to: str,
    run: Path,
    calibrated: Callable[[str], Path],
    tiny_tickets: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In fp32 temperature and threshold are the run's; in 8 bit they are the export's own. The hash is listed."""
    folder = calibrated(to)
    own, of_run = load_export(folder).calibration, run_calibration(run)
    assert own is not None
    assert of_run is not None
    assert (own.target, own.confidence, own.candidates) == (0.05, 0.5, of_run.candidates)
    assert "calibration.json" in read_certificate(folder).files
    if read_certificate(folder).exported.dtype == "fp32":
        assert own.temperature == pytest.approx(of_run.temperature, rel=1e-3)
        assert own.threshold == pytest.approx(of_run.threshold, abs=1e-3)
    card = (folder / "README.md").read_text("utf-8")
    assert card.index("**5 % accuracy promised with 50 % confidence") < card.index("Check on the test rows")
    capsys.readouterr()
    assert predict.main([str(folder), str(tiny_tickets() / "test.jsonl"), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert own.threshold is not None
    assert [row["routed"] for row in rows] == [max(row["probabilities"].values()) >= own.threshold for row in rows]
    assert verify.main([str(folder)]) == 0


def test_another_calibration_beside_an_export_is_refused_and_does_not_verify(
    run: Path, calibrated: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that was edited, that came later, or that is gone."""
    folder = tmp_path / "copy"
    shutil.copytree(calibrated("merged"), folder)
    path = folder / "calibration.json"
    whole = path.read_text("utf-8")
    path.write_text(whole.replace('"target": 0.05', '"target": 0.9'), encoding="utf-8")
    capsys.readouterr()
    assert predict.main([str(folder), "--text", "why"]) == 2
    assert "was not made with this export" in capsys.readouterr().err
    assert verify.main([str(folder)]) == 1
    path.unlink()
    assert predict.main([str(folder), "--text", "why"]) == 2
    assert "calibration.json is missing" in capsys.readouterr().err


def test_an_export_of_a_run_without_a_promise_makes_none(
    finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert export.main([str(finished_run(LORA)), "--to", "merged", "--out", str(out)]) == 0
    assert load_export(out).calibration is None
    shutil.copy(finished_run(LORA) / "model.json", out / "calibration.json")
    assert predict.main([str(out), "--text", "why"]) == 2
    assert calibrate.main([str(out)]) == 2
    assert "calibrate the run that it was made of" in capsys.readouterr().err


def test_an_export_reads_the_rows_of_a_file_again_and_refuses_others(
    run: Path, tiny_tickets: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = tmp_path / "run", tmp_path / "unseen.jsonl"
    shutil.copytree(run, folder)
    rows = [json.loads(line) for line in (tiny_tickets() / "train.jsonl").read_text("utf-8").splitlines()]
    text = "".join(json.dumps(row | {"text": f"{row['text']} new"}) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8")
    words = ["--target", "0.05", "--confidence", "0.5", "--rows", str(file)]
    assert calibrate.main([str(folder), *words]) == 0
    words = ["--to", "merged", "--max-drop", "0.2", "--out", str(tmp_path / "out")]
    assert export.main([str(folder), *words]) == 0
    own, of_run = load_export(tmp_path / "out").calibration, run_calibration(folder)
    assert own is not None
    assert of_run is not None
    assert (own.rows, own.rows_tested) == (of_run.rows, of_run.rows_tested)
    assert own.threshold == pytest.approx(of_run.threshold, abs=1e-3)
    file.write_text(text + text.splitlines()[0], encoding="utf-8")
    shutil.rmtree(tmp_path / "out")
    assert export.main([str(folder), *words]) == 2
    assert "whose rows the run was calibrated on, is another now" in capsys.readouterr().err


def test_a_run_whose_promise_is_stale_is_not_exported(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "trained" / "another.json").write_text("{}", encoding="utf-8")
    assert export.main([str(folder), "--to", "merged", "--out", str(tmp_path / "out")]) == 2
    assert "was made for another trained part" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
