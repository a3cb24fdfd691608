"""`peftlab pretrain` from a recipe to an encoder that a training recipe can name."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import finish, fork_server, kept_lines, kill_at, steps_written

from peftlab.pretrain import main
from peftlab.runs.pretraining_result import read_pretraining_result
from peftlab.runs.result import read_result
from peftlab.show import main as show_main
from peftlab.train import main as train_main

ROOT = Path(__file__).resolve().parents[2]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of an encoder folder."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_a_new_encoder_learns_and_a_training_recipe_can_name_it(
    pretrain_recipe: Callable[..., Path],
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    assert main([str(pretrain_recipe("[save]\ndtype = 'fp16'")), f"run.dir={run}", "train.epochs=8"]) == 0

    assert capsys.readouterr().out.splitlines()[-1] == str(run)
    result = read_pretraining_result(run)
    assert result.status == "ok"
    assert result.held_out is not None
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-5:]) < losses[0] - 0.5, "the loss falls from that of a uniform guess"
    assert result.held_out.perplexity < (result.vocabulary or 0) / 2
    assert result.text is not None
    assert result.tokens == 8 * result.text.train_sequences * 32, "every sequence once an epoch, and no padding"
    assert not (run / "checkpoints").exists()
    assert not (run / "packed").exists()
    assert {tensor.dtype for tensor in weights(run / "encoder").values()} == {torch.float16}
    card = (run / "encoder" / "README.md").read_text(encoding="utf-8")
    assert f"perplexity {result.held_out.perplexity:.2f}" in card
    assert show_main([str(run)]) == 0
    assert f"{result.held_out.perplexity:.2f}" in capsys.readouterr().out
    config = json.loads((run / "encoder" / "config.json").read_text(encoding="utf-8"))
    assert config["hidden_dropout_prob"] == 0.1, "fine-tuning finds its own dropout"

    trained = tmp_path / "trained"
    recipe = tiny_recipe("head", pooling="auto")
    settings = [f"encoder.name={run / 'encoder'}", f"run.dir={trained}", "train.epochs=1"]
    assert train_main([str(recipe), *settings]) == 0
    assert read_result(trained).status == "ok"
    assert json.loads((trained / "model.json").read_text(encoding="utf-8"))["encoder"]["pooling"] == "mean"


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    pretrain_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main([str(pretrain_recipe()), "--dry-run", "--json", f"run.dir={run}"]) == 0

    plan = json.loads(capsys.readouterr().out)
    width, inner, pieces, positions = 32, 128, 128, 32
    layer = 4 * (width + 1) * width + (width + 1) * inner + (inner + 1) * width + 4 * width
    head = (width + 1) * width + 2 * width + pieces
    assert plan["parameters"] == (pieces + positions + 2 + 2) * width + 2 * layer + head
    assert plan["text"] == ["text.txt"]
    assert not run.exists()


def test_a_killed_pretraining_ends_in_the_same_bits(
    pretrain_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL twice at random steps, continued in both ways, with dropout and measurements between checkpoints."""
    recipe = str(pretrain_recipe("[masking]\ndropout = 0.1\n\n[evaluation]\nevery = 7\nsequences = 8"))
    settings = ["run.checkpoint_every=3", "train.epochs=4"]
    processes, program = fork_server(), "peftlab.pretrain"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(processes, [recipe, *settings, f"run.dir={whole}"], tmp_path, program=program)
    total = steps_written(whole)

    assert total > 20
    places = sorted(random.sample(range(4, total - 4), 2))
    kill_at(processes, [recipe, *settings, f"run.dir={killed}"], killed, places[0], program=program)
    kill_at(processes, ["--resume", str(killed)], killed, places[1], program=program)
    again = [recipe, *settings, f"run.dir={killed}", "train.resume=auto"]
    finish(processes, again, tmp_path, program=program)

    first, second = weights(whole / "encoder"), weights(killed / "encoder")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first), f"killed after steps {places}"
    assert kept_lines(whole) == kept_lines(killed)
    assert main(again) == 0
    assert "is finished; nothing to continue" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["lora", "adalora"])
def test_an_existing_encoder_is_adapted_and_its_weights_take_the_update(
    method: str, pretrain_recipe: Callable[..., Path], tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Task-adaptive pretraining: only the method and a new head learn, and the merged folder is a plain encoder."""
    encoder = tiny_encoder("bert")
    sections = f'[encoder]\nname = "{encoder}"\n\n[method]\nname = "{method}"\n\n[masking]\nwhole_words = "off"'
    run = tmp_path / "run"
    settings = ["method.delta_t=2"] if method == "adalora" else []
    assert main([str(pretrain_recipe(sections, new=False)), f"run.dir={run}", *settings]) == 0

    result = read_pretraining_result(run)
    assert result.method == method
    assert result.started_from == str(encoder)
    assert 0 < (result.trainable or 0) < (result.total or 0)
    before, after = weights(encoder), weights(run / "encoder")
    query = "encoder.layer.0.attention.self.query"
    assert not torch.equal(before[f"{query}.weight"], after[f"bert.{query}.weight"])
    assert torch.equal(before[f"{query}.bias"], after[f"bert.{query}.bias"]), "biases are left alone"
    stated = [json.loads((folder / "config.json").read_text("utf-8")) for folder in (encoder, run / "encoder")]
    assert stated[0]["hidden_dropout_prob"] == stated[1]["hidden_dropout_prob"], "fine-tuning finds its own dropout"
    table = "embeddings.word_embeddings.weight"
    assert torch.equal(before[table], after[f"bert.{table}"])


def test_what_cannot_be_merged_is_refused_before_any_work(
    pretrain_recipe: Callable[..., Path], tiny_encoder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    sections = f'[encoder]\nname = "{tiny_encoder()}"\n\n[method]\nname = "bottleneck"'
    assert main([str(pretrain_recipe(sections, new=False))]) == 2
    assert "method.name: bottleneck cannot be merged" in capsys.readouterr().err


def test_a_folder_that_is_taken_is_refused(
    pretrain_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine", encoding="utf-8")
    assert main([str(pretrain_recipe()), f"run.dir={tmp_path / 'run'}"]) == 2
    assert "already holds files" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_pretrain_as_one(pretrain_recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Over gloo, by the launch line that works on CPUs: the same losses, one folder."""
    recipe = str(pretrain_recipe())
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([recipe, f"run.dir={one}", "--steps", "6"]) == 0
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    words = [*launch, "-m", "peftlab.pretrain", recipe, f"run.dir={two}", "--steps", "6"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(two)

    first, second = read_pretraining_result(one), read_pretraining_result(two)
    assert first.held_out is not None
    assert second.held_out is not None
    assert second.device is not None
    assert second.device.processes == 2
    assert second.held_out.predictions == first.held_out.predictions, "every held-out token once"
    assert second.held_out.nll == pytest.approx(first.held_out.nll, abs=1e-4)


@pytest.mark.parametrize("model_type", ["roberta", "distilbert", "albert", "electra"])
def test_every_architecture_is_continued(
    model_type: str, pretrain_recipe: Callable[..., Path], tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    sections = f'[encoder]\nname = "{tiny_encoder(model_type)}"\n\n[masking]\nwhole_words = "spaces"'
    run = tmp_path / "run"
    assert main([str(pretrain_recipe(sections, new=False)), f"run.dir={run}", "--steps", "3"]) == 0

    result = read_pretraining_result(run)
    assert (result.status, result.steps) == ("ok", 3)


def test_a_stand_in_is_announced_and_kept_in_the_notes(
    pretrain_recipe: Callable[..., Path],
    tiny_encoder: Callable[..., Path],
    tmp_path: Path,
    no_hub: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sections = f'[encoder]\nname = "hfl/rbt3"\nstand_in = "{tiny_encoder("bert")}"\n\n[masking]\nwhole_words = "off"'
    run = tmp_path / "run"
    assert main([str(pretrain_recipe(sections, new=False)), f"run.dir={run}", "--steps", "2"]) == 0

    assert "STAND-IN ENCODER" in capsys.readouterr().err
    said = "hfl/rbt3 cannot be reached (ConnectionError). This run uses its stand-in"
    assert [note for note in read_pretraining_result(run).notes if note.startswith(said)]


@pytest.mark.slow
def test_the_shipped_recipe_runs_on_the_built_in_text(tmp_path: Path) -> None:
    """Twenty steps, as CI runs them."""
    run = tmp_path / "run"
    small = ["train.batch_size=4", "corpus.length=64", "train.threads=1", "evaluation.sequences=8", "run.trackers=[]"]
    assert main([str(ROOT / "recipes" / "pretrain_zh.toml"), f"run.dir={run}", "--steps", "20", *small]) == 0

    assert read_pretraining_result(run).steps == 20


def test_mistakes_come_all_at_once_with_their_place(
    pretrain_recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = pretrain_recipe('[masking]\nkeep = 0.9\nrandom = 0.5\nshair = 0.2\n\n[method]\nname = "lora"')
    assert main([str(path), "architecture.heads=3", "corpus.length=8"]) == 2

    said = capsys.readouterr().err
    assert "masking.shair: unknown key in [masking]; did you mean share?" in said
    assert "the shares sum to 1.4" in said
    assert "32 is not a multiple of heads = 3" in said
    assert "a method adapts an existing encoder" in said
    assert "Traceback" not in said


def test_each_program_sends_the_other_kind_of_recipe_to_the_other(
    pretrain_recipe: Callable[..., Path], tiny_recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pretraining, training = pretrain_recipe(), tiny_recipe("lora")
    capsys.readouterr()
    assert (train_main([str(pretraining)]), main([str(training)])) == (2, 2)

    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"{pretraining}:1: corpus: this is a pretraining recipe; run: peftlab pretrain {pretraining}",
        f"{training}:6: task: this is a training recipe; run: peftlab train {training}",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty (0 bytes)"),
        (b"ok\n\xb0\xa1\xb0\xa1\n", "text.txt:2: byte 0xb0 is not UTF-8"),
    ],
)
def test_broken_text_is_one_sentence(
    content: bytes,
    expected: str,
    pretrain_recipe: Callable[..., Path],
    text_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text_file.write_bytes(content)
    run = tmp_path / "run"
    assert main([str(pretrain_recipe()), f"run.dir={run}"]) == 2

    said = capsys.readouterr().err
    assert expected in said
    assert "Traceback" not in said
    assert read_pretraining_result(run).status == "failed"
    shutil.rmtree(run)
