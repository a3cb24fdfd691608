"""`peftlab combine`: the weighted sum of LoRA runs, against the sum worked out by hand; and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from peftlab import combine, predict, train
from peftlab.encoders.load import HeadShape, load_classifier, load_tokenizer
from peftlab.evaluation.predictor import load_predictor
from peftlab.recipe.records import Encoder

TEXTS = ["refund my card", "where is the parcel it is late why", "the screen is not a fits", "i was charged"]


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_encoder: Callable[..., Path],
    tiny_tickets: Callable[..., Path],
) -> dict[str, Path]:
    """Train three tiny LoRA runs that go together; make others out of the first that do not."""
    folder = tmp_path_factory.mktemp("combine")
    files = "\n".join(f'{split} = "{tiny_tickets() / split}.jsonl"' for split in ("train", "validation", "test"))
    recipe = folder / "lora.toml"
    recipe.write_text(
        f'[encoder]\nname = "{tiny_encoder()}"\npooling = "mean"\nmax_length = 16\n\n'
        f'[task]\nname = "classification"\n\n[data]\n{files}\n\n[method]\nname = "lora"\nr = 4\n\n'
        '[train]\nepochs = 2\nbatch_size = 8\nlearning_rate = 5e-3\nprecision = "fp32"\nthreads = 1\n\n'
        "[run]\ntrackers = []\n",
        encoding="utf-8",
    )
    trained = {
        "a": (),
        "b": ("train.seed=1",),
        "c": ("method.r=2", "method.rslora=true", 'method.target_modules=["query", "ffn_in"]', "train.seed=2"),
    }
    for name, settings in trained.items():
        assert train.main([str(recipe), *settings, f"run.dir={folder / name}"]) == 0
    changed = {
        "dora": ("trained/adapter_config.json", '"use_dora": false', '"use_dora": true'),
        "pissa": ("trained/adapter_config.json", '"init_lora_weights": true', '"init_lora_weights": "pissa"'),
        "head": ("recipe.toml", re.compile(r'name = "lora"\n(.+\n)*'), 'name = "head"\n'),
        "labels": ("model.json", '"product"', '"products"'),
        "encoder": ("model.json", re.compile(r'"sha256": "...'), '"sha256": "000'),
        "short": ("recipe.toml", "max_length = 16", "max_length = 8"),
    }
    for name, (file, old, new) in changed.items():
        shutil.copytree(folder / "a", folder / name)
        text = (folder / name / file).read_text(encoding="utf-8")
        replaced = text.replace(old, new) if isinstance(old, str) else old.sub(new, text)
        assert replaced != text, name
        (folder / name / file).write_text(replaced, encoding="utf-8")
    return {name: folder / name for name in (*trained, *changed)}


def summed(encoder: Path, runs: Sequence[Path], weights: Sequence[float]) -> torch.nn.Module:
    """Return the encoder with the weighted sum of updates added to its weights, and of heads as its head."""
    model = load_classifier(Encoder(name="x", pooling="mean"), encoder, HeadShape(3, 0.0)).model
    modules = dict(model.named_modules())
    head = {"weight": torch.zeros(3, 32), "bias": torch.zeros(3)}
    for run, weight in zip(runs, weights, strict=True):
        settings = json.loads((run / "trained" / "adapter_config.json").read_text("utf-8"))
        scale = settings["lora_alpha"] / (settings["r"] ** (0.5 if settings["use_rslora"] else 1))
        tensors = load_file(run / "trained" / "adapter_model.safetensors")
        for name, down in tensors.items():
            if name.endswith("lora_A.weight"):
                up = tensors[name.replace("lora_A", "lora_B")]
                path = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                modules[path].weight.data += weight * scale * up @ down  # type: ignore[operator, union-attr]
            elif "classifier" in name:
                head[name.rpartition(".")[2]] += weight * down
    model.classifier.load_state_dict(head)  # type: ignore[operator, union-attr]
    return model.eval()


def expected(encoder: Path, runs: Sequence[Path], weights: Sequence[float]) -> np.ndarray[tuple[int, ...], np.dtype]:  # type: ignore[type-arg]
    """Return the logits of the texts under the sum worked out by hand."""
    batch = load_tokenizer(encoder)(TEXTS, padding=True, truncation=True, max_length=16, return_tensors="pt")
    with torch.inference_mode():
        logits: np.ndarray[tuple[int, ...], np.dtype] = summed(encoder, runs, weights)(**batch).logits.numpy()  # type: ignore[type-arg]
    return logits


@pytest.mark.parametrize(
    ("names", "weights", "rank"),
    [("ab", None, 8), ("ab", [0.7, 0.3], 8), ("abc", [1.0, -0.5, 0.25], 10)],
)
def test_cat_is_exactly_the_weighted_sum(
    names: str,
    weights: list[float] | None,
    rank: int,
    runs: dict[str, Path],
    tiny_encoder: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of other ranks, scalings and target modules too; by default the mean."""
    chosen, out = [runs[name] for name in names], tmp_path / "sum"
    given = [] if weights is None else ["--weights", *map(str, weights)]
    assert combine.main([*map(str, chosen), *given, "--out", str(out)]) == 0
    said = capsys.readouterr()
    want = expected(tiny_encoder(), chosen, weights or [1 / len(chosen)] * len(chosen))

    assert said.out.splitlines() == [str(out)]
    assert f"rank {rank}, by cat" in said.err
    assert np.allclose(load_predictor(out).logits(TEXTS, None), want, rtol=0, atol=1e-5)
    kept = json.loads((out / "combined.json").read_text("utf-8"))
    assert (kept["how"], kept["rank"]) == ("cat", rank)
    assert predict.main([str(out), "--text", TEXTS[0], "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["probabilities"]) == {"logistics", "payment", "product"}
    assert not [path for path in out.rglob("*") if path.suffix in {".bin", ".pt", ".pkl"}]


def test_svd_at_the_full_rank_is_the_sum_and_below_it_is_near(
    runs: dict[str, Path], tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    chosen = [runs["a"], runs["b"]]
    want = expected(tiny_encoder(), chosen, [0.5, 0.5])
    errors = []
    for rank in (8, 4, 1):
        out = tmp_path / str(rank)
        arguments = ["--how", "svd", "--rank", str(rank), "--out", str(out)]
        assert combine.main([*map(str, chosen), *arguments]) == 0
        shapes = {
            value.shape[0]
            for name, value in load_file(out / "trained" / "adapter_model.safetensors").items()
            if "lora_A" in name
        }
        assert shapes == {rank}
        errors.append(float(np.abs(load_predictor(out).logits(TEXTS, None) - want).max()))

    assert errors[0] < 1e-5
    assert errors[0] < errors[1] < errors[2]


def test_linear_is_exact_for_an_adapter_with_itself(
    runs: dict[str, Path], tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """The factors sum to 2 sqrt(w s) A and 2 sqrt(w s) B, whose product is s B A for w = 1/4; the head sums to half."""
    out = tmp_path / "same"
    arguments = ["--weights", "0.25", "0.25", "--how", "linear", "--out", str(out)]
    assert combine.main([str(runs["a"]), str(runs["a"]), *arguments]) == 0
    made, own = (load_file(folder / "trained" / "adapter_model.safetensors") for folder in (out, runs["a"]))
    downs = [name for name in own if name.endswith("lora_A.weight")]

    assert len(downs) == 12
    for down in downs:
        up = down.replace("lora_A", "lora_B")
        assert torch.allclose(made[up] @ made[down], 16 / 4 * own[up] @ own[down], atol=1e-5)
    heads = [name for name in own if "lora_" not in name]
    assert all(torch.allclose(made[name], own[name] / 2) for name in heads)


@pytest.mark.parametrize(
    ("names", "options", "sentence"),
    [
        ("a dora", (), "holds a DoRA adapter, whose magnitudes do not add up"),
        ("a pissa", (), "started from the frozen weights .pissa. and changes them"),
        ("a head", (), "was trained by 'head'; only LoRA adapters can be combined"),
        ("a labels", (), "since their labels differ: only one of them has 'product'"),
        ("a encoder", (), "since their encoder differs"),
        ("a short", (), "since their encoder.max_length differs: 8 and 16"),
        ("a c", ("--how", "linear"), "'linear' needs adapters of one rank, and these have 2, 4; take cat or svd"),
        ("a", (), "name two runs or more"),
        ("a b", ("--weights", "1"), "--weights has 1 numbers for 2 runs"),
        ("a b", ("--weights", "1", "nan"), "expected finite numbers, not all of them 0"),
        ("a b", ("--rank", "4"), "--rank 4: the rank of --how svd"),
    ],
)
def test_what_does_not_add_up_is_refused_in_a_sentence(
    names: str,
    options: tuple[str, ...],
    sentence: str,
    runs: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With exit code 2, and without a folder."""
    out = tmp_path / "out"
    assert combine.main([*(str(runs[name]) for name in names.split()), *options, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert re.search(sentence, said), said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_overwritten(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert combine.main([str(runs["a"]), str(runs["b"]), "--out", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
