"""An encoder learns the last hidden states of a larger one while it is pretrained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from peftlab.encoders.masked import unexplained
from peftlab.pretrain import main
from peftlab.runs.pretraining_result import read_pretraining_result


def taught(student: Path, teacher: Path, weight: float = 0.9) -> str:
    """Return the sections of a recipe by which `teacher` teaches `student`."""
    return (
        f'[encoder]\nname = "{student}"\n\n[masking]\nwhole_words = "off"\n\n'
        f'[teacher]\nname = "{teacher}"\nweight = {weight}\n'
    )


@pytest.fixture
def student(tiny_encoder: Callable[..., Path], tmp_path: Path) -> Path:
    """Return an encoder with the vocabulary of the tiny one and weights of its own."""
    folder = tmp_path / "student"
    shutil.copytree(tiny_encoder("bert"), folder)
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(7)
    AutoModel.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    return folder


def test_a_constant_guess_leaves_all_of_the_variance_unexplained_and_the_states_themselves_none() -> None:
    wanted = torch.randn(3, 5, 8) * torch.linspace(0.1, 30, 8) + 4
    constant = wanted.mean((0, 1)).expand_as(wanted)
    assert unexplained(constant, wanted).mean().item() == pytest.approx(1.0, abs=1e-5)
    assert unexplained(wanted, wanted).tolist() == [0.0, 0.0, 0.0]


def test_the_states_come_nearer_to_those_of_the_teacher_which_is_left_as_it_was(
    student: Path, pretrain_recipe: Callable[..., Path], tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """The saved encoder has the student's parameters alone."""
    teacher, run = tiny_encoder("bert"), tmp_path / "run"
    before = {path.name: path.read_bytes() for path in teacher.iterdir() if path.is_file()}
    recipe = pretrain_recipe(taught(student, teacher, 1.0), new=False)
    settings = ["train.epochs=12", "train.learning_rate=3e-3", "masking.keep=0.9"]
    assert main([str(recipe), f"run.dir={run}", *settings]) == 0

    assert read_pretraining_result(run).status == "ok"
    assert f"`{teacher}` taught it" in (run / "encoder" / "README.md").read_text(encoding="utf-8")
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [json.loads(line)["loss"] for line in lines if '"loss"' in line]
    assert np.mean(losses[-5:]) < 0.6 * losses[0]
    names = {name.partition(".")[0] for name in load_file(run / "encoder" / "model.safetensors")}
    assert names == {"bert", "cls"}
    assert before == {path.name: path.read_bytes() for path in teacher.iterdir() if path.is_file()}


def test_the_saved_states_are_standardised_where_asked(
    student: Path, pretrain_recipe: Callable[..., Path], tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Against the same run without: the same encoder but for each dimension's place and scale."""
    from transformers import AutoModel

    recipe, states = pretrain_recipe(taught(student, tiny_encoder("bert")), new=False), {}
    ids = torch.randint(5, 60, (40, 16), generator=torch.Generator().manual_seed(0))
    for asked in ("false", "true"):
        run = tmp_path / asked
        assert main([str(recipe), f"run.dir={run}", "train.max_steps=3", f"save.standardise={asked}"]) == 0
        model = AutoModel.from_pretrained(run / "encoder", local_files_only=True).eval()
        with torch.inference_mode():
            states[asked] = model(input_ids=ids).last_hidden_state.flatten(0, 1).double()
    plain, moved = states["false"], states["true"]
    again = (plain - plain.mean(0)) / plain.std(0) * moved.std(0) + moved.mean(0)

    assert float((again - moved).abs().max()) < 1e-4
    assert float((moved.std(0) - 1).abs().mean()) < float((plain.std(0) - 1).abs().mean())
    card = (tmp_path / "true" / "encoder" / "README.md").read_text(encoding="utf-8")
    assert "has mean 0 and variance 1 over the held-out text" in card


def test_a_teacher_that_reads_other_pieces_is_refused(
    student: Path,
    pretrain_recipe: Callable[..., Path],
    tiny_encoder: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tiny_encoder("roberta")
    recipe = pretrain_recipe(taught(student, other), new=False)
    assert main([str(recipe), f"run.dir={tmp_path / 'run'}"]) == 2
    assert "has another vocabulary than the encoder that it is to teach" in capsys.readouterr().err


def test_a_teacher_of_another_width_is_refused(
    student: Path,
    pretrain_recipe: Callable[..., Path],
    tiny_encoder: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from transformers import AutoConfig, AutoModel

    wide = tmp_path / "wide"
    shutil.copytree(tiny_encoder("bert"), wide)
    config = AutoConfig.from_pretrained(wide, hidden_size=64)
    AutoModel.from_config(config).save_pretrained(wide)
    recipe = pretrain_recipe(taught(student, wide), new=False)
    assert main([str(recipe), f"run.dir={tmp_path / 'run'}"]) == 2
    assert "is 64 wide and the encoder that it is to teach 32" in capsys.readouterr().err
