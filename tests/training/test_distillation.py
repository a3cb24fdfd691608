"""`[distill]`: soft labels of finished runs, on unlabelled text too, and nothing of what the student is judged by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftlab import train
from peftlab.errors import UserError
from peftlab.recipe.load import read_recipe
from peftlab.recipe.plugins import load_plugin, plugin_names
from peftlab.recipe.resolve import resolved
from peftlab.runs.result import Result, read_result
from peftlab.suites.arms import Arm
from peftlab.suites.plan import Inputs, plan_run
from peftlab.suites.records import key_of
from peftlab.training import teachers
from peftlab.training.distillation import divergence, taught, taught_losses, taught_targets
from peftlab.training.prepare import find_inputs

GRADIENT = [
    name
    for name in plugin_names("methods")
    if load_plugin("methods", name).SOLVER == "gradient" and load_plugin("methods", name).NEEDS_ENCODER
]


@pytest.fixture(scope="module")
def taught_by(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Callable[..., Path], tiny_tickets: Callable[..., Path]
) -> dict[str, Path]:
    """Folders of two finished runs on the tiny tickets, `probe` and `tfidf`."""
    folder = tmp_path_factory.mktemp("teachers")
    tickets = tiny_tickets()
    files = "\n".join(f'{split} = "{tickets / split}.jsonl"' for split in ("train", "validation", "test"))
    for name in ("probe", "tfidf"):
        path = folder / f"{name}.toml"
        path.write_text(
            f'[encoder]\nname = "{tiny_encoder()}"\npooling = "mean"\nmax_length = 32\n'
            '[task]\nname = "classification"\n'
            f'[data]\n{files}\n[method]\nname = "{name}"\n[run]\ntrackers = []\n',
            encoding="utf-8",
        )
        assert train.main([str(path), f"run.dir={folder / name}"]) == 0
    return {name: folder / name for name in ("probe", "tfidf")}


def listed(folders: list[Path]) -> str:
    return f"distill.teachers={[str(folder) for folder in folders]!r}"


def run(recipe: Path, folder: Path, *words: str) -> tuple[int, Result]:
    code = train.main([str(recipe), f"run.dir={folder}", "train.max_steps=2", *words])
    return code, read_result(folder)


def test_the_divergence_is_zero_for_the_teacher_itself_and_has_the_gradient_of_the_difference() -> None:
    """By hand for one row: T^2 KL; its gradient is T (q - p), Hinton et al. 2015, equation 2 at scale."""
    import torch

    teacher = torch.tensor([[1.0, -2.0, 0.5]])
    for temperature in (1.0, 3.0):
        p = (teacher / temperature).softmax(-1)
        assert divergence(teacher, p, temperature, multi_label=False).item() == pytest.approx(0.0, abs=1e-6)
        student = torch.tensor([[0.2, 0.1, -0.4]], requires_grad=True)
        q = (student / temperature).softmax(-1)
        loss = divergence(student, p, temperature, multi_label=False)
        assert loss.item() == pytest.approx(temperature**2 * (p * (p / q).log()).sum().item(), rel=1e-5)
        loss.sum().backward()
        assert student.grad is not None
        assert torch.allclose(student.grad, temperature * (q - p), atol=1e-6)


def test_several_labels_a_row_diverge_label_by_label() -> None:
    import torch

    chances = torch.tensor([[0.9, 0.2, 1.0, 0.0]])
    exact = torch.logit(chances.clamp(1e-6, 1 - 1e-6))
    assert divergence(exact, chances, 1.0, multi_label=True).item() == pytest.approx(0.0, abs=1e-4)
    assert divergence(-exact, chances, 1.0, multi_label=True).item() > 1


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_row_with_a_label_has_both_terms_and_one_without_the_second(multi_label: bool) -> None:
    import torch

    from peftlab.recipe.records import Distill

    labels: Any = np.array([2, 0]) if not multi_label else np.array([[0, 1, 1], [0, 0, 0]], np.float32)
    chances = np.array([[0.2, 0.3, 0.5], [0.6, 0.2, 0.2]], np.float32)
    targets = taught_targets(labels, 1, chances)
    seen: list[Any] = []

    def plain(logits: Any, gold: Any) -> Any:
        seen.append(gold)
        return torch.full((len(logits),), 7.0)

    asked = Distill(teachers=("a",), weight=0.25, temperature=1.0)
    logits = torch.zeros(2, 3)
    found = taught_losses(plain, asked, classes=3, multi_label=multi_label)(logits, targets)
    second = 0.25 * divergence(logits, torch.from_numpy(chances), 1.0, multi_label=multi_label)
    assert found.tolist() == pytest.approx([0.75 * 7 + second[0].item(), second[1].item()])
    assert np.array_equal(seen[0].numpy(), labels)


@pytest.mark.slow
@pytest.mark.parametrize("method", GRADIENT)
def test_every_method_that_trains_by_gradient_can_be_taught(
    method: str, tiny_recipe: Callable[..., Path], tmp_path: Path, taught_by: dict[str, Path]
) -> None:
    words = ["train.max_steps=8", "method.delta_t=1"] if method == "adalora" else []
    code, result = run(tiny_recipe(method), tmp_path / "run", listed([taught_by["probe"]]), *words)
    assert (code, result.status) == (0, "ok")
    assert result.distilled is not None
    assert result.distilled.teachers == (str(taught_by["probe"]),)


def test_a_student_learns_what_its_teacher_says_and_not_the_labels_beside_it(
    tiny_recipe: Callable[..., Path], tiny_tickets: Callable[..., Path], tmp_path: Path, taught_by: dict[str, Path]
) -> None:
    """Every training label is turned to another one; only a teacher with the whole weight leads past them."""
    tickets, labels = tiny_tickets(), ("logistics", "payment", "product")
    rows = [json.loads(line) for line in (tickets / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    turned = [row | {"label": labels[(labels.index(row["label"]) + 1) % 3]} for row in rows]
    (tmp_path / "turned.jsonl").write_text("".join(json.dumps(row) + "\n" for row in turned), encoding="utf-8")
    files = "\n".join(f'{split} = "{tickets / split}.jsonl"' for split in ("validation", "test"))
    recipe = tiny_recipe("full", data=f'train = "{tmp_path / "turned.jsonl"}"\n{files}')
    words = ["train.max_steps=none", "train.epochs=12", "train.learning_rate=3e-4", "data.train_on_validation=false"]
    words += ["optimizer.head_learning_rate=0.01"]
    word = listed([taught_by["tfidf"]])
    found = run(recipe, tmp_path / "taught", *words, word, "distill.weight=1.0", "distill.temperature=1.0")[1]
    assert found.metrics.test["accuracy"].value > 0.6


def test_the_teachers_are_asked_once_and_what_they_said_is_kept(
    tiny_recipe: Callable[..., Path], tmp_path: Path, taught_by: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe("head")
    word = listed([taught_by["probe"], taught_by["tfidf"]])
    first = run(recipe, tmp_path / "first", word)[1]
    monkeypatch.setattr(teachers, "load_predictor", lambda _: pytest.fail("a teacher was asked again"))
    again = run(recipe, tmp_path / "again", word)[1]
    assert again.metrics == first.metrics
    assert list((taught_by["probe"] / "teaching").glob("*.npy"))


def test_unlabelled_texts_are_learnt_from_without_those_that_the_student_is_judged_by(
    tiny_recipe: Callable[..., Path],
    tiny_tickets: Callable[..., Path],
    tmp_path: Path,
    taught_by: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Repeats, own rows, validation and test texts are left out, and counted."""
    texts = ["refund my card please", "where is my parcel", "where is my parcel"]
    texts += [json.loads(line)["text"] for line in (tiny_tickets() / "test.jsonl").read_text().splitlines()]
    (tmp_path / "more.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    word = listed([taught_by["probe"]])
    more = f'distill.unlabelled=["{tmp_path / "more.txt"}"]'
    result = run(tiny_recipe("head"), tmp_path / "run", word, more)[1]
    assert "distill: 2 unlabelled texts of 27" in capsys.readouterr().err
    assert result.distilled is not None
    assert result.distilled.unlabelled == 2
    recipe = resolved(read_recipe(tiny_recipe("head"), [word, more]))
    found = find_inputs(recipe, report_path=None, say=lambda _: None)
    whole, chances = taught(found, lambda _: None)
    assert chances is not None
    assert len(whole.splits.train) == len(found.splits.train) + 2 == len(chances)
    assert np.allclose(chances.sum(1), 1, atol=1e-5)
    assert list(whole.splits.train.texts[-2:]) == ["refund my card please", "where is my parcel"]


def test_self_training_takes_the_texts_that_the_teachers_are_sure_of(
    tiny_recipe: Callable[..., Path], tmp_path: Path, taught_by: dict[str, Path]
) -> None:
    texts = [
        f"{a} {b} please" for a in ("refund", "parcel", "colour", "the") for b in ("card", "courier", "size", "why")
    ]
    (tmp_path / "more.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")

    def extra(*words: str) -> tuple[int, np.ndarray]:
        all_words = [listed([taught_by["probe"]]), f'distill.unlabelled=["{tmp_path / "more.txt"}"]', *words]
        found = find_inputs(resolved(read_recipe(tiny_recipe("head"), all_words)), report_path=None, say=lambda _: None)
        whole, chances = taught(found, lambda _: None)
        assert chances is not None
        return len(whole.splits.train) - len(found.splits.train), chances[len(found.splits.train) :]

    every, soft = extra()
    middle = float(np.median(soft.max(1)))
    some, hard = extra(f"distill.confidence={middle!r}", 'distill.targets="hard"', "distill.temperature=1.0")
    assert 0 < some < every == len(texts)
    assert set(np.unique(hard)) == {0.0, 1.0}


def test_a_teacher_that_saw_held_out_rows_is_refused(
    tiny_recipe: Callable[..., Path],
    tiny_tickets: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another split of the same rows by another seed; with one split for both it teaches."""
    everything = tmp_path / "all.jsonl"
    tickets = tiny_tickets()
    rows = "".join(
        (tickets / f"{split}.jsonl").read_text(encoding="utf-8") for split in ("train", "validation", "test")
    )
    everything.write_text(rows, encoding="utf-8")
    recipe = tiny_recipe("head", data=f'train = "{everything}"')
    assert run(recipe, tmp_path / "teacher", "data.split_seed=1")[0] == 0
    code, result = run(recipe, tmp_path / "student", "data.split_seed=2", listed([tmp_path / "teacher"]))
    assert (code, result.status) == (2, "failed")
    assert "of this run's validation and test texts, such as" in capsys.readouterr().err
    same = run(recipe, tmp_path / "same", "data.split_seed=1", "train.seed=5", listed([tmp_path / "teacher"]))
    assert same[0] == 0
    fewer = run(recipe, tmp_path / "fewer", "data.split_seed=1", "data.train_rows=30", listed([tmp_path / "teacher"]))
    assert fewer[0] == 0


def test_a_teacher_trained_on_the_validation_rows_is_refused(
    tiny_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny_recipe("head")
    assert run(recipe, tmp_path / "teacher", "data.train_on_validation=true")[0] == 0
    assert run(recipe, tmp_path / "student", listed([tmp_path / "teacher"]))[0] == 2
    assert "was trained on 24 of this run's validation and test texts" in capsys.readouterr().err
    both = run(recipe, tmp_path / "both", listed([tmp_path / "teacher"]), "data.train_on_validation=true")
    assert both[0] == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["distill.teachers=[]"], "distill.teachers"),
        (['distill.teachers=["nowhere"]'], "there is no run folder 'nowhere'"),
        (['distill.teachers=["a"]', "distill.confidence=0.9"], "is about unlabelled texts, and there are none"),
        (['distill.teachers=["a"]', 'method={name="probe"}'], "probe is not trained by gradient steps"),
    ],
)
def test_mistakes_are_sentences(
    words: list[str],
    sentence: str,
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train.main([str(tiny_recipe("head")), f"run.dir={tmp_path / 'run'}", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_another_teacher_in_the_same_folder_makes_another_run(
    tiny_recipe: Callable[..., Path], tmp_path: Path, taught_by: dict[str, Path]
) -> None:
    """So that a suite does not take the record of the former student for it."""
    import shutil

    recipe, teacher = tiny_recipe("head"), tmp_path / "teacher"
    shutil.copytree(taught_by["probe"], teacher)
    arm = Arm("student", recipe, ((listed([teacher]), ()), ("train.max_steps=2", ())))
    first = plan_run(arm, "student", 0, Inputs())
    assert first is not None
    assert train.main([first.order.recipe, *first.order.overrides, f"run.dir={tmp_path / 'run'}"]) == 0
    assert key_of(read_result(tmp_path / "run")) == first.order.key
    weights = next(path for path in (teacher / "trained").iterdir() if path.suffix == ".safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    second = plan_run(arm, "student", 0, Inputs())
    assert second is not None
    assert second.order.key != first.order.key
    with pytest.raises(UserError, match="there is no run folder"):
        find_inputs(resolved(read_recipe(recipe, ['distill.teachers=["gone"]'])), report_path=None, say=lambda _: None)
