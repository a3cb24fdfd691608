"""A whole run on an encoder in 8 bit: through the recipe, with checkpoints, resume, proof, and what it saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftlab import predict, show, train
from peftlab.evaluation.predictor import load_predictor
from peftlab.runs.folder import run_recipe
from peftlab.runs.result import Result, read_result
from peftlab.training import supervise

pytest.importorskip("bitsandbytes", reason="absent: bitsandbytes")

Write = Callable[..., Path]


def run(recipe: Path, folder: Path, *settings: str) -> Result:
    """Train in this process; return the result."""
    assert train.main([str(recipe), *settings, f"run.dir={folder}"]) == 0
    return read_result(folder)


def stop_at_save(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Interrupt training right after its `number`th checkpoint."""
    save, calls = supervise._save, list[int]()

    def save_and_stop(*given: Any) -> None:
        save(*given)
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt

    monkeypatch.setattr(supervise, "_save", save_and_stop)


def trained(folder: Path) -> dict[str, bytes]:
    """Return the files of the trained part."""
    return {path.name: path.read_bytes() for path in sorted((folder / "trained").iterdir())}


@pytest.mark.parametrize(
    ("kind", "optimizer", "most"), [("int8", "adamw_8bit", 0.35), ("nf4", "lion_8bit", 0.2), ("full", "adamw_8bit", 1)]
)
def test_a_run_on_quantised_weights_resumes_to_the_same_bits_and_says_what_it_saved(
    kind: str,
    optimizer: str,
    most: float,
    tiny_recipe: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Validation between steps, 8-bit optimizer state in the checkpoint, reload to the same logits."""
    recipe = tiny_recipe(sections="checkpoint_every = 5\n\n[evaluation]\nevery = 7")
    # The head's learning rate and rank 128 give matrices of 4,096 values, from which on the state is kept in bytes.
    settings = [f"encoder.load_in={kind}", f"optimizer.name={optimizer}", "method.r=128", "train.learning_rate=1e-3"]
    whole = run(recipe, tmp_path / "whole", *settings)
    with monkeypatch.context() as patch:
        stop_at_save(patch, 3)
        assert train.main([str(recipe), *settings, f"run.dir={tmp_path / 'stopped'}"]) == 130
    (state,) = (tmp_path / "stopped" / "checkpoints").glob("step-*")
    tree = (state / "state.json").read_text(encoding="utf-8")
    assert train.main(["--resume", str(tmp_path / "stopped")]) == 0

    assert "qmap1" in tree, "the state of some parameters is kept in bytes"
    assert trained(tmp_path / "whole") == trained(tmp_path / "stopped")
    lines = [(tmp_path / name / "predictions.jsonl").read_bytes() for name in ("whole", "stopped")]
    assert lines[0] == lines[1]
    assert whole.round_trip is not None
    assert whole.round_trip.max_logit_difference == 0
    said = capsys.readouterr()
    assert "MatMul" not in said.err
    assert "Paged" not in said.err
    measured = whole.encoder.quantised
    assert show.main([str(tmp_path / "whole")]) == 0
    shown = capsys.readouterr().out
    card = (tmp_path / "whole" / "README.md").read_text(encoding="utf-8")
    if kind == "full":
        assert measured is None
        assert "logit drift" not in shown + card
        return
    assert measured is not None
    assert measured.kind == kind
    assert measured.linear_share <= most
    assert 0 < measured.logit_drift_mean <= measured.logit_drift_max < 1
    assert measured.rows == 24
    assert "logit drift against fp32" in shown
    assert "logit drift against fp32" in card
    assert predict.main([str(tmp_path / "whole"), "--text", "refund my card", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"label", "probabilities"}


def test_the_drift_is_that_of_the_same_trained_part_on_the_full_encoder(tiny_recipe: Write, tmp_path: Path) -> None:
    """Recomputed by hand: the validation rows through the run, and through the run said to be in full precision."""
    folder = tmp_path / "run"
    measured = run(tiny_recipe(), folder, "encoder.load_in=int8", "encoder.dtype=bf16").encoder.quantised
    split = run_recipe(folder).data.validation
    assert split is not None
    texts = [json.loads(line)["text"] for line in Path(split).read_text(encoding="utf-8").splitlines()]
    own = load_predictor(folder).logits(texts, None)
    recipe = folder / "recipe.toml"
    text = recipe.read_text(encoding="utf-8").replace('load_in = "int8"', 'load_in = "full"')
    recipe.write_text(text.replace('dtype = "bf16"', 'dtype = "fp32"'), encoding="utf-8")
    full = load_predictor(folder).logits(texts, None)

    assert measured is not None
    assert measured.logit_drift_max == pytest.approx(float(np.abs(own - full).max()), abs=1e-6)
    assert measured.logit_drift_mean == pytest.approx(float(np.abs(own - full).mean()), abs=1e-6)
    assert measured.changed_predictions == int((own.argmax(1) != full.argmax(1)).sum())


def test_a_head_starts_from_the_probe_on_quantised_weights(tiny_recipe: Write, tmp_path: Path) -> None:
    """The embeddings are those of the encoder as it is stored."""
    result = run(tiny_recipe(sections='[head]\ninit = "probe"'), tmp_path / "run", "encoder.load_in=int8")
    assert result.status == "ok"
    assert run(tiny_recipe("probe"), tmp_path / "probe", "encoder.load_in=nf4").encoder.quantised is not None
