"""Tagging keeps what every task keeps: it trains, goes on after a stop, saves, loads back and predicts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_sentences import write_tiny_sentences

from peftlab import train
from peftlab.cli import main
from peftlab.data.tag_schemes import misplaced
from peftlab.errors import RecipeError
from peftlab.recipe.load import read_recipe
from peftlab.runs.result import read_result
from peftlab.training import supervise

LONG = 2000
# The methods that the issue names, with and without a CRF over them; AdaLoRA's penalty beside the CRF's loss.
METHODS = {"lora": "true", "adalora": "true", "bottleneck": "false", "full": "true"}


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 40, 16 and 16 sentences; the first test sentence has 2,000 words."""
    return write_tiny_sentences(tmp_path_factory.mktemp("sentences"), LONG)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Callable[..., Path], sentences: Path) -> Any:
    """Return `write(method)`, which gives the path of a recipe of 12 steps with a checkpoint every third one."""

    def write(method: str, more: str = "") -> Path:
        path = tmp_path_factory.mktemp("recipe") / f"{method}_tagging.toml"
        files = "\n".join(f'{name} = "{sentences / name}.jsonl"' for name in ("train", "validation", "test"))
        path.write_text(
            f'[encoder]\nname = "{tiny_encoder()}"\nmax_length = 32\n\n'
            f'[task]\nname = "tagging"\ncrf = {METHODS.get(method, "false")}\n\n[data]\n{files}\n\n'
            f'[method]\nname = "{method}"\n{"delta_t = 2" if method == "adalora" else ""}\n\n'
            '[train]\nepochs = 2.4\nbatch_size = 8\nprecision = "fp32"\nthreads = 1\nlearning_rate = "auto"\n\n'
            f"[run]\ntrackers = []\ncheckpoint_every = 3\n\n{more}\n",
            encoding="utf-8",
        )
        return path

    return write


def trained_bytes(run: Path) -> dict[str, bytes]:
    """Return the files of the trained part."""
    return {path.name: path.read_bytes() for path in sorted((run / "trained").iterdir())}


@pytest.fixture(scope="module", params=METHODS)
def finished(request: pytest.FixtureRequest, recipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run by each method."""
    run = tmp_path_factory.mktemp("runs") / request.param
    assert train.main([str(recipe(request.param)), f"run.dir={run}"]) == 0
    return run


def test_a_run_stopped_and_continued_ends_in_the_same_bits(
    finished: Path, recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in step 8, it goes on from the checkpoint of step 6: weights and predictions are those of a whole run."""
    stopped, report = tmp_path / "stopped", supervise._report

    def stop(*args: Any) -> None:
        report(*args)
        if args[2].number == 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(supervise, "_report", stop)
        assert train.main([str(recipe(finished.name)), f"run.dir={stopped}"]) == 130
    assert read_result(stopped).status == "interrupted"
    assert train.main(["--resume", str(stopped)]) == 0
    assert trained_bytes(stopped) == trained_bytes(finished)
    assert (stopped / "predictions.jsonl").read_bytes() == (finished / "predictions.jsonl").read_bytes()


def test_the_result_is_that_of_an_independent_call_of_seqeval_on_the_predictions(finished: Path) -> None:
    from seqeval.metrics import accuracy_score, f1_score
    from seqeval.scheme import IOB2

    rows = [json.loads(line) for line in (finished / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    gold, told = ([row[side] for row in rows] for side in ("gold", "predicted"))
    result = read_result(finished)
    assert result.metrics.test["entity_f1"].value == f1_score(gold, told, mode="strict", scheme=IOB2, zero_division=0)
    assert result.metrics.test["token_accuracy"].value == pytest.approx(accuracy_score(gold, told))
    assert result.metrics.test["entity_f1"].n == 16
    assert [len(row["predicted"]) for row in rows] == [len(row["tokens"]) for row in rows]
    assert len(rows[0]["tokens"]) == LONG, "no word of a long sentence is lost"
    assert all(misplaced(tags, "IOB2") is None for tags in told)
    assert [table.columns[0] for table in result.tables] == ["type", "tag"]


def test_what_was_saved_loads_back_with_its_transitions(finished: Path) -> None:
    """The CRF is among the new modules, in the shipped files, and part of the proof."""
    from safetensors import safe_open

    result = read_result(finished)
    with_crf = METHODS[finished.name] == "true"
    assert result.parameters is not None
    assert result.parameters.newly_initialised == (("classifier", "crf") if with_crf else ("classifier",))
    assert result.round_trip is not None
    assert result.round_trip.max_logit_difference == 0
    assert result.round_trip.rows == 16
    (weights,) = (finished / "trained").glob("*.safetensors")
    with safe_open(weights, framework="np") as file:
        assert any("crf" in name and "transitions" in name for name in file.keys()) == with_crf  # noqa: SIM118


def test_predict_gives_entities_with_their_places_in_the_text(
    finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    texts = ["Where is  my parcel, please?", "card refund", "...", "the parcel " * LONG]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    capsys.readouterr()
    assert main(["predict", str(finished), str(tmp_path / "texts.jsonl"), "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(answer) for answer in answers] == [{"entities"}] * 4
    for text, answer in zip(texts, answers, strict=True):
        for one in answer["entities"]:
            assert text[one["start"] : one["end"]] == one["text"]
            assert one["type"] in {"logistics", "payment"}
            assert one["text"] == one["text"].strip() != ""
    assert main(["predict", str(finished), "--text", "card\nrefund"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_the_card_and_the_screen_have_a_row_for_each_type(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = (finished / "README.md").read_text(encoding="utf-8")
    assert 'pipeline_tag: "token-classification"' in card
    assert "| logistics |" in card
    assert "seqeval" in card
    assert main(["show", str(finished)]) == 0
    shown = capsys.readouterr().out
    assert "entity_f1" in shown
    assert "logistics" in shown


@pytest.mark.parametrize("finished", ["lora"], indirect=True)
def test_what_tagging_does_not_have_is_refused_in_one_sentence(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, sentence in (
        (["predict", str(finished), "--text", "a", "--against", "b"], "rank nothing; leave out --against"),
        (["calibrate", str(finished)], "defined for classification with one label a text only"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert "Traceback" not in error


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ('method={name="prompt"}', "prompt puts tokens without tags in front of the text"),
        ('method={name="tfidf"}', "tfidf makes one decision a text"),
        ('method={name="probe"}', "probe makes one decision a text"),
        ("encoder.pooling=mean", "nothing is pooled"),
        ("evaluation.margin=0.02", "for accuracy only"),
        ("data.pair=other", "one text a row"),
        ("head.init=probe", "no probe to start from"),
        ("task.label_smoothing=0.1", "a CRF is trained on whole sequences"),
        ("task.decoding=greedy", "a CRF is decoded as a sequence"),
        ("evaluation.metric=accuracy", 'expected one of "auto", "entity_f1"'),
        ("data.source=builtin:tickets-en", '"builtin:entities-en", "builtin:entities-zh"'),
    ],
)
def test_settings_that_tagging_has_no_use_for_are_mistakes_of_the_recipe(
    override: str, sentence: str, recipe: Any
) -> None:
    with pytest.raises(RecipeError, match=sentence):
        read_recipe(recipe("lora"), [override])


@pytest.mark.parametrize(("kind", "decoding"), [("merged", "constrained"), ("adapter", "greedy")])
def test_a_run_without_a_crf_is_exported_and_tags_as_it_did(
    kind: str, decoding: str, recipe: Any, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers, or peft on top of it, loads the export by itself to the same logits; a long text is read whole."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    from peftlab.evaluation.run_model import load_run_model

    folder = tmp_path_factory.mktemp("exported")
    run, out = folder / "run", folder / "out"
    path = recipe("lora")
    assert (
        train.main([str(path), "task.crf=false", f"task.decoding={decoding}", "train.max_steps=3", f"run.dir={run}"])
        == 0
    )
    assert main(["export", str(run), "--to", kind, "--out", str(out)]) == 0
    assert main(["verify", str(out), "--run", str(run)]) == 0
    assert (out / "decoding.safetensors").is_file() == (decoding == "constrained")
    if kind == "merged":
        plain = AutoModelForTokenClassification.from_pretrained(out)
        assert plain.config.id2label[1] == "B-logistics"
    else:
        encoder = read_recipe(path).encoder
        assert encoder is not None
        base = AutoModelForTokenClassification.from_pretrained(encoder.name, num_labels=5)
        plain = PeftModel.from_pretrained(base, out)
    inputs = AutoTokenizer.from_pretrained(out)(["where is the parcel", "late"], padding=True, return_tensors="pt")
    own = load_run_model(run, torch.device("cpu")).module
    with torch.inference_mode():
        assert torch.allclose(plain.eval()(**inputs).logits, own.eval()(**inputs).logits, atol=1e-5)
    answers = []
    for model in (run, out):
        capsys.readouterr()
        assert main(["predict", str(model), "--text", "where is my parcel", "--text", "courier " * 500, "--json"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
