"""`peftlab train` from a recipe to a proven run, on a tiny encoder; and `check` and `predict` on what it made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from peftlab import check, predict, train
from peftlab.runs.result import read_result

FILES = {
    "README.md",
    "confusion_matrix.png",
    "data_report.json",
    "environment.json",
    "learning_curve.png",
    "metrics.jsonl",
    "model.json",
    "predictions.jsonl",
    "recipe.toml",
    "result.json",
    "tokenizer",
    "trained",
}


def lines(path: Path) -> list[dict[str, object]]:
    """Return the objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_run_folder_holds_everything_and_its_path_is_the_last_line(
    tiny_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output is the folder; status is ok; every documented field has its figure."""
    run = tmp_path / "run"

    assert train.main([str(tiny_recipe()), f"run.dir={run}", "evaluation.target=0.2"]) == 0
    assert capsys.readouterr().out == f"{run}\n"
    assert {path.name for path in run.iterdir()} == FILES
    result = read_result(run)
    assert result.status == "ok"
    assert result.metrics.test["accuracy"].n == len(lines(run / "predictions.jsonl")) == 24
    assert result.parameters is not None
    assert result.parameters.shipped_bytes == sum(path.stat().st_size for path in (run / "trained").iterdir())
    assert result.parameters.newly_initialised == ("classifier",)
    assert result.round_trip is not None
    assert result.round_trip.max_logit_difference == 0.0
    assert result.best is not None
    assert result.best.value == result.metrics.validation["accuracy"]
    assert result.target is not None
    assert result.seconds.train is not None
    assert result.memory.peak_rss_bytes is not None
    assert result.memory.peak_rss_bytes > 10**8
    assert result.data is not None
    assert result.data.rows == {"train": 60, "validation": 24, "test": 24}


@pytest.mark.parametrize("method", ["lora", "bottleneck", "full", "head", "probe", "tfidf"])
def test_predict_gives_the_probabilities_of_the_test_rows(
    method: str,
    tiny_recipe: Callable[..., Path],
    tiny_tickets: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """For every method, alone or in a batch, from --text or from a file: 1e-5 at most."""
    run = tmp_path / "run"
    assert train.main([str(tiny_recipe(method)), f"run.dir={run}"]) == 0
    texts = [str(row["text"]) for row in lines(tiny_tickets() / "test.jsonl")]
    capsys.readouterr()
    words = [word for text in texts[:10] for word in ("--text", text)]
    assert predict.main([str(run), *words, "--json"]) == 0
    by_text = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert predict.main([str(run), str(tiny_tickets() / "test.jsonl"), "--json"]) == 0
    by_file = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    kept = lines(run / "predictions.jsonl")
    assert (len(by_text), len(by_file)) == (10, 24)
    for answers in (by_text, by_file):
        for answer, row in zip(answers, kept, strict=False):
            assert answer["label"] == row["predicted"]
            assert answer["probabilities"] == pytest.approx(row["probabilities"], abs=1e-5)


def test_a_method_that_learns_beats_chance(tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Full fine-tuning separates the three topics of the tiny tickets."""
    run = tmp_path / "run"
    settings = ["train.epochs=20", "train.learning_rate=3e-4", "optimizer.head_learning_rate=0.01"]

    assert train.main([str(tiny_recipe("full")), *settings, f"run.dir={run}"]) == 0
    assert read_result(run).metrics.test["accuracy"].value > 0.8


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(
    tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """Initialisation of adapter and head, batch order and dropout all follow train.seed."""
    trained = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert train.main([str(tiny_recipe()), f"train.seed={seed}", f"run.dir={tmp_path / name}"]) == 0
        trained.append((tmp_path / name / "trained" / "adapter_model.safetensors").read_bytes())

    assert trained[0] == trained[1]
    assert trained[0] != trained[2]


def test_a_stand_in_is_announced_everywhere(
    tiny_recipe: Callable[..., Path],
    tiny_encoder: Callable[..., Path],
    tmp_path: Path,
    no_hub: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On the screen in a box, in the result and in the model card, with both names."""
    run = tmp_path / "run"
    names = ["encoder.name=hfl/rbt3", f"encoder.stand_in={tiny_encoder()}"]
    assert train.main([str(tiny_recipe()), *names, f"run.dir={run}"]) == 0
    said = capsys.readouterr().err
    result = read_result(run)

    box = " ".join(line.strip("│ ") for line in said.splitlines() if line.startswith("│"))
    assert "STAND-IN ENCODER" in said
    assert box.startswith("hfl/rbt3 cannot be reached (ConnectionError). This run uses its stand-in")
    assert box.endswith("its figures say nothing of hfl/rbt3.")
    assert result.stand_in
    assert (result.encoder.requested, result.encoder.used) == ("hfl/rbt3", str(tiny_encoder()))
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "hfl/rbt3" in card
    assert str(tiny_encoder()) in card
    assert predict.main([str(run), "--text", "refund my card"]) == 0


def test_without_a_stand_in_one_sentence_and_exit_2(
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    no_hub: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No traceback, and the result says why."""
    run = tmp_path / "run"

    assert train.main([str(tiny_recipe()), "encoder.name=hfl/rbt3", f"run.dir={run}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("encoder.name 'hfl/rbt3' is not a local folder")
    assert "Traceback" not in said
    assert read_result(run).status == "failed"


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("budget.trainable_parameters=100", "against budget.trainable_parameters = 100"),
        ("budget.shipped_mb=0.001", "MB shipped against budget.shipped_mb = 0.001"),
        ("evaluation.margin=0.05", "around an accuracy of 0.9 needs "),
        ('method.target_modules=["qurey"]', "did you mean 'query'"),
        ('run.trackers=["tensorbord"]', "is no tracker of Accelerate"),
        ("optimizer.name=paged_adamw_8bit", "without a GPU use 'adamw_8bit'"),
    ],
)
def test_plans_that_cannot_hold_are_refused_before_a_step(
    setting: str, sentence: str, tiny_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By `train` and by `check` alike, with exit code 2."""
    recipe = str(tiny_recipe())
    assert check.main([recipe, setting]) == 2
    assert sentence in capsys.readouterr().err
    assert train.main([recipe, setting, f"run.dir={tmp_path / 'run'}"]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_check_prints_the_plan_and_writes_nothing(
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Rows, steps, parameters and shipped bytes are those of the run."""
    recipe, run = str(tiny_recipe()), tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    assert check.main([recipe, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert set(tmp_path.iterdir()) == before
    assert train.main([recipe, f"run.dir={run}"]) == 0
    result = read_result(run)

    assert result.parameters is not None
    assert result.data is not None
    assert plan["rows"] == result.data.rows
    assert plan["steps"] == {"per_epoch": 8, "total": 24, "warmup": 2}
    assert plan["parameters"]["trainable"] == result.parameters.trainable
    assert plan["parameters"]["total"] == result.parameters.total
    # Names of encoders of different length stand in adapter_config.json.
    assert abs(plan["parameters"]["shipped_bytes"] - result.parameters.shipped_bytes) < 500
    assert plan["estimated_peak_bytes"] > 10**8


def test_a_taken_run_folder_is_refused_and_a_finished_run_is_not_run_again(
    tiny_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is overwritten; `train.resume = "auto"` on a finished run is done at once."""
    recipe, run = str(tiny_recipe("probe")), tmp_path / "run"
    assert train.main([recipe, f"run.dir={run}"]) == 0
    before = (run / "result.json").read_bytes()
    assert train.main([recipe, f"run.dir={run}"]) == 2
    assert "already holds files" in capsys.readouterr().err
    assert train.main([recipe, f"run.dir={run}", "train.resume=auto"]) == 0
    assert "nothing to continue" in capsys.readouterr().err
    assert (run / "result.json").read_bytes() == before


def test_multi_label_rows_train_and_predict_lists(tmp_path: Path, tiny_recipe: Callable[..., Path]) -> None:
    """A row may have two labels or none."""
    rows = [
        {"text": "refund my card and the parcel is late", "label": ["payment", "logistics"]},
        {"text": "where is my parcel", "label": ["logistics"]},
        {"text": "i was charged please refund", "label": ["payment"]},
        {"text": "the manual please", "label": []},
    ]
    for split, factor in (("train", 8), ("validation", 2), ("test", 2)):
        numbered = [{**row, "text": f"{row['text']} {split[0]} {index}"} for index, row in enumerate(rows * factor)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in numbered), encoding="utf-8")
    recipe = tiny_recipe(data="\n".join(f'{split} = "{split}.jsonl"' for split in ("train", "validation", "test")))
    run = tmp_path / "run"

    for method in ("lora", "probe", "tfidf"):
        folder = run / method
        settings = ["task.multi_label=true", f"method.name={method}", f"run.dir={folder}"]
        assert train.main([str(recipe), *settings]) == 0
        assert read_result(folder).metrics.test.keys() >= {"accuracy", "micro_f1", "hamming_loss"}
        assert all(isinstance(row["predicted"], list) for row in lines(folder / "predictions.jsonl"))


def test_pairs_of_texts(tmp_path: Path, tiny_recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Both texts are read, and `predict` asks for both."""
    texts = ["where is my parcel", "refund my card", "the battery is late"]
    for split, factor in (("train", 4), ("validation", 2), ("test", 2)):
        rows = [
            {"a": f"{left} {split[0]} {index}", "b": right, "label": "same" if left == right else "other"}
            for index in range(factor)
            for left in texts
            for right in texts
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = "\n".join(f'{split} = "{split}.jsonl"' for split in ("train", "validation", "test"))
    recipe, run = tiny_recipe(data=f'{data}\ntext = "a"\npair = "b"'), tmp_path / "run"
    assert train.main([str(recipe), f"run.dir={run}"]) == 0
    capsys.readouterr()

    assert predict.main([str(run), "--text", "refund my card"]) == 2
    assert "one --pair for each --text" in capsys.readouterr().err
    assert predict.main([str(run), "--text", "refund my card", "--pair", "refund my card", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] in {"same", "other"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere", "--text", "x"], "there is no run folder nowhere"),
        (["RUN"], "give texts either by --text or as a file"),
        (["RUN", "nowhere.txt"], "there is no file nowhere.txt"),
        (["RUN", "empty_line.txt"], "empty_line.txt:2: the line is empty"),
        (["RUN", "gbk.txt"], "is not UTF-8"),
        (["RUN", "rows.jsonl"], "expected a text, found 7"),
    ],
)
def test_predict_refuses_what_it_cannot_answer(
    arguments: list[str],
    sentence: str,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One sentence and exit code 2; no row is passed over."""
    monkeypatch.chdir(tmp_path)
    Path("empty_line.txt").write_text("refund\n\ncard\n", encoding="utf-8")
    Path("gbk.txt").write_bytes("退款".encode("gbk"))
    Path("rows.jsonl").write_text('{"text": "refund"}\n{"text": 7}\n', encoding="utf-8")

    assert predict.main([str(tiny_run) if word == "RUN" else word for word in arguments]) == 2
    assert sentence in capsys.readouterr().err


@pytest.fixture(scope="module")
def tiny_run(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Callable[..., Path], tiny_tickets: Callable[..., Path]
) -> Path:
    """Return a finished probe run; do not write into it."""
    folder = tmp_path_factory.mktemp("finished")
    files = "\n".join(f'{split} = "{tiny_tickets() / split}.jsonl"' for split in ("train", "validation", "test"))
    (folder / "probe.toml").write_text(
        f'[encoder]\nname = "{tiny_encoder()}"\npooling = "mean"\n[task]\nname = "classification"\n'
        f'[data]\n{files}\n[method]\nname = "probe"\n[train]\nthreads = 1\n[run]\ntrackers = []\n',
        encoding="utf-8",
    )
    assert train.main([str(folder / "probe.toml"), f"run.dir={folder / 'run'}"]) == 0
    return folder / "run"


def test_predict_refuses_another_encoder_in_the_place_of_the_runs_own(
    tiny_recipe: Callable[..., Path],
    tiny_encoder: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The weights' hash is part of the run."""
    encoder, run = tmp_path / "encoder", tmp_path / "run"
    shutil.copytree(tiny_encoder(), encoder)
    assert train.main([str(tiny_recipe("probe")), f"encoder.name={encoder}", f"run.dir={run}"]) == 0
    shutil.copyfile(tiny_encoder("electra") / "model.safetensors", encoder / "model.safetensors")

    assert predict.main([str(run), "--text", "refund"]) == 2
    assert "is not the one that the run was trained on" in capsys.readouterr().err


def test_early_stopping_ends_after_patience_and_the_best_checkpoint_is_tested(
    tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """With a learning rate that changes nothing, the first validation is the best and patience runs out."""
    run = tmp_path / "run"
    settings = ["train.epochs=50", "evaluation.patience=2", "train.learning_rate=5e-5", "evaluation.every=1"]
    assert train.main([str(tiny_recipe()), *settings, "train.warmup=0.9", f"run.dir={run}"]) == 0
    validations = [line for line in lines(run / "metrics.jsonl") if "validation" in line]
    result = read_result(run)

    assert result.best is not None
    assert len(validations) < 400
    assert int(str(validations[-1]["step"])) == result.best.step + 2
    assert not (run / "checkpoints").exists(), "a finished run needs none"


def test_a_loss_that_explodes_is_named_with_step_and_rows(
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 1, status failed, no traceback."""
    from peftlab.tasks import classification

    monkeypatch.setattr(classification, "row_losses", lambda logits, *_: logits.sum(1) * float("inf"))
    run = tmp_path / "run"

    assert train.main([str(tiny_recipe()), f"run.dir={run}"]) == 1
    said = capsys.readouterr().err
    assert "at step 1" in said
    assert "Traceback" not in said
    assert read_result(run).status == "failed"


def test_a_save_that_lost_something_is_not_ok(
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where the trained part is not what comes back, the run fails instead of lying."""
    from peftlab.encoders import saved

    monkeypatch.setattr(saved, "_load_plain", lambda model, _: model)
    run = tmp_path / "run"

    assert train.main([str(tiny_recipe("head")), f"run.dir={run}"]) == 1
    assert "does not reload to the same logits" in capsys.readouterr().err
    assert read_result(run).status == "failed"
