"""What every method that attaches to an encoder promises; each file in peftlab/methods/ is found by itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

from peftlab.encoders.load import HeadShape, LoadedEncoder, load_classifier
from peftlab.encoders.saved import load_trained, save_trained
from peftlab.encoders.trainable import count_parameters, trained_parameters
from peftlab.recipe.plugins import load_plugin, plugin_names
from peftlab.recipe.records import Encoder

MODEL_TYPES = ("bert", "roberta", "distilbert", "albert", "electra")
ATTACHING = tuple(name for name in plugin_names("methods") if load_plugin("methods", name).NEEDS_ENCODER)
LABELS, HIDDEN, INNER, LAYERS = 3, 32, 64, 2


def test_the_methods_are_found() -> None:
    """The matrix below is not empty, and names what the package is known to have."""
    assert {"lora", "full", "head", "probe"} <= set(ATTACHING)
    assert "tfidf" in plugin_names("methods")


def load(folder: Path, *, seed: int = 0, pooling: str = "native", dtype: str = "fp32") -> LoadedEncoder:
    """Load the tiny encoder under a fresh head."""
    torch.manual_seed(seed)
    encoder = Encoder.model_validate({"name": str(folder), "pooling": pooling, "dtype": dtype})
    return load_classifier(encoder, folder, HeadShape(LABELS, dropout=0.1))


def batch() -> dict[str, torch.Tensor]:
    """Return a padded batch of four short texts."""
    ids = torch.tensor([[2, 9, 12, 30, 3], [2, 40, 3, 0, 0], [2, 17, 21, 3, 0], [2, 8, 7, 6, 3]])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def train_three_steps(model: torch.nn.Module) -> None:
    """Take three optimizer steps on a fixed batch."""
    optimizer = torch.optim.AdamW(trained_parameters(model).values(), lr=1e-2)
    model.train()
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model(**batch()).logits.float(), torch.tensor([0, 1, 2, 0]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def plain_name(name: str) -> str:
    """Return a parameter's name without what peft puts around it."""
    for inserted in ("base_model.model.", "modules_to_save.default.", "original_module.", "base_layer."):
        name = name.replace(inserted, "")
    return name


@pytest.fixture(params=ATTACHING)
def method(request: pytest.FixtureRequest) -> ModuleType:
    """Return each method in turn."""
    return load_plugin("methods", request.param)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_only_the_methods_own_parameters_and_new_modules_are_trained(
    method: ModuleType, model_type: str, tiny_encoder: Callable[..., Path]
) -> None:
    """Weights of the checkpoint are bit-identical after training unless the method trains the encoder."""
    loaded = load(tiny_encoder(model_type))
    before = {name: parameter.detach().clone() for name, parameter in loaded.model.named_parameters()}
    model = method.attach(loaded.model, method.Config(), loaded.anatomy)
    started = {name: parameter.detach().clone() for name, parameter in trained_parameters(model).items()}
    train_three_steps(model)
    frozen = {name: parameter for name, parameter in model.named_parameters() if not parameter.requires_grad}

    assert all(parameter.dtype == torch.float32 for parameter in trained_parameters(model).values())
    for name, parameter in frozen.items():
        if plain_name(name) in before and ".original_module." not in name:
            assert torch.equal(parameter, before[plain_name(name)]), name
    moved = {name for name, parameter in trained_parameters(model).items() if not torch.equal(parameter, started[name])}
    assert moved, "something must move within three steps"
    untouched = {plain_name(name) for name in started.keys() - moved}
    assert not {name for name in untouched if loaded.anatomy.is_new(name)}, "every new module learns"
    if method.TRAINS_ENCODER:
        assert any(name.startswith(f"{loaded.anatomy.encoder}.") for name in moved)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_what_is_saved_reloads_to_the_same_logits(
    method: ModuleType, model_type: str, tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """A fresh encoder, drawn from another seed, gives bit-identical logits once the trained part is loaded."""
    loaded = load(tiny_encoder(model_type))
    model = method.attach(loaded.model, method.Config(), loaded.anatomy)
    train_three_steps(model)
    size = save_trained(model, tmp_path / "trained", encoder_name="tiny")
    bare = load(tiny_encoder(model_type), seed=99)
    attach = partial(method.attach, config=method.Config(), anatomy=bare.anatomy)
    fresh = load_trained(bare.model, tmp_path / "trained", attach)

    with torch.inference_mode():
        assert torch.equal(model(**batch()).logits, fresh(**batch()).logits)
    assert size == sum(path.stat().st_size for path in (tmp_path / "trained").iterdir())
    assert all(path.suffix in {".safetensors", ".json"} for path in (tmp_path / "trained").iterdir())


@pytest.mark.parametrize("pooling", ["native", "mean", "cls"])
def test_a_bf16_encoder_keeps_what_is_trained_in_fp32_and_reloads_exactly(
    method: ModuleType, pooling: str, tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """The head takes bf16 activations, trains in fp32, and is not rounded on the way to disk and back."""
    loaded = load(tiny_encoder("bert"), pooling=pooling, dtype="bf16")
    model = method.attach(loaded.model, method.Config(), loaded.anatomy)
    train_three_steps(model)
    save_trained(model, tmp_path / "trained", encoder_name="tiny")
    bare = load(tiny_encoder("bert"), seed=99, pooling=pooling, dtype="bf16")
    attach = partial(method.attach, config=method.Config(), anatomy=bare.anatomy)
    fresh = load_trained(bare.model, tmp_path / "trained", attach)

    assert {parameter.dtype for parameter in trained_parameters(model).values()} == {torch.float32}
    with torch.inference_mode():
        assert torch.equal(model(**batch()).logits, fresh(**batch()).logits)


def test_training_starts_from_the_frozen_encoder(method: ModuleType, tiny_encoder: Callable[..., Path]) -> None:
    """Attaching changes no logit."""
    loaded = load(tiny_encoder("bert"))
    with torch.inference_mode():
        before = loaded.model(**batch()).logits.clone()
        after = method.attach(loaded.model, method.Config(), loaded.anatomy).eval()(**batch()).logits

    assert torch.allclose(before, after, atol=1e-6)


@pytest.mark.parametrize("pooling", ["native", "mean"])
def test_a_pooler_that_the_checkpoint_lacks_is_trained_and_saved(
    method: ModuleType, pooling: str, tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Left alone it would be random again after a reload, and the predictions with it (peft issue 2171)."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "encoder"
    folder.mkdir()
    for path in tiny_encoder("bert").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = {name: value for name, value in load_file(folder / "model.safetensors").items() if "pooler" not in name}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = load(folder, pooling=pooling)
    model = method.attach(loaded.model, method.Config(), loaded.anatomy)
    train_three_steps(model)
    save_trained(model, tmp_path / "trained", encoder_name="tiny")
    bare = load(folder, seed=99, pooling=pooling)
    attach = partial(method.attach, config=method.Config(), anatomy=bare.anatomy)
    fresh = load_trained(bare.model, tmp_path / "trained", attach)

    assert ("bert.pooler.dense" in loaded.anatomy.new_modules) == (pooling == "native")
    with torch.inference_mode():
        assert torch.equal(model(**batch()).logits, fresh(**batch()).logits)


HEAD = (HIDDEN + 1) * LABELS
# 4 attention matrices of H x H and 2 of the feed-forward network in each layer.
LORA = LAYERS * 8 * (4 * (HIDDEN + HIDDEN) + 2 * (HIDDEN + INNER))
DORA = LAYERS * (4 * HIDDEN + INNER + HIDDEN)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("head", {}, HEAD),
        ("probe", {}, HEAD),
        ("lora", {}, LORA + HEAD),
        ("lora", {"dora": True}, LORA + DORA + HEAD),
        ("lora", {"r": 2, "target_modules": ("query", "value")}, LAYERS * 2 * 2 * (HIDDEN + HIDDEN) + HEAD),
        ("lora", {"r": 2, "target_modules": ("attention",), "layers": (-1,)}, 2 * 4 * (HIDDEN + HIDDEN) + HEAD),
    ],
)
def test_parameter_counts_are_the_closed_form(
    name: str, settings: dict[str, object], expected: int, tiny_encoder: Callable[..., Path]
) -> None:
    """The count of the docstring, for a linear head on pooled embeddings."""
    method = load_plugin("methods", name)
    loaded = load(tiny_encoder("bert"), pooling="mean")
    encoder = sum(parameter.numel() for parameter in loaded.model.encoder.parameters())
    counts = count_parameters(method.attach(loaded.model, method.Config(**settings), loaded.anatomy), loaded.anatomy)

    assert counts.trainable == expected
    assert counts.total == encoder + expected


def test_full_fine_tuning_counts_everything_and_can_spare_the_embeddings(tiny_encoder: Callable[..., Path]) -> None:
    """`embeddings = false` freezes the tables and nothing else."""
    full = load_plugin("methods", "full")
    loaded = load(tiny_encoder("bert"))
    every = count_parameters(full.attach(loaded.model, full.Config(), loaded.anatomy), loaded.anatomy)
    spared = count_parameters(full.attach(loaded.model, full.Config(embeddings=False), loaded.anatomy), loaded.anatomy)

    assert every.trainable == every.total
    assert spared.trainable == every.total - every.embedding
    assert every.embedding > 0


@pytest.mark.parametrize("init", ["gaussian", "pissa", "olora", "orthogonal"])
def test_lora_starts_reload_whatever_their_init(init: str, tiny_encoder: Callable[..., Path], tmp_path: Path) -> None:
    """PiSSA and OLoRA change the frozen weight; the reloaded model has the same logits all the same."""
    lora = load_plugin("methods", "lora")
    config = lora.Config(init=init)
    loaded = load(tiny_encoder("bert"))
    model = lora.attach(loaded.model, config, loaded.anatomy)
    train_three_steps(model)
    save_trained(model, tmp_path / "trained", encoder_name="tiny")
    bare = load(tiny_encoder("bert"), seed=99)
    fresh = load_trained(bare.model, tmp_path / "trained", partial(lora.attach, config=config, anatomy=bare.anatomy))

    with torch.inference_mode():
        assert torch.allclose(model(**batch()).logits, fresh(**batch()).logits, atol=1e-6)


def test_an_adapter_loads_with_plain_peft(tiny_encoder: Callable[..., Path], tmp_path: Path) -> None:
    """What is shipped is peft's own format: `PeftModel.from_pretrained` on a plain transformers model."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    lora = load_plugin("methods", "lora")
    loaded = load(tiny_encoder("bert"))
    model = lora.attach(loaded.model, lora.Config(), loaded.anatomy)
    train_three_steps(model)
    save_trained(model, tmp_path / "trained", encoder_name="tiny")
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_encoder("bert"), num_labels=LABELS)
    fresh = PeftModel.from_pretrained(plain, tmp_path / "trained").eval()

    with torch.inference_mode():
        assert torch.equal(model(**batch()).logits, fresh(**batch()).logits)
