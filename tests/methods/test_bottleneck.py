"""What bottleneck adapters promise beyond the contract of every method: counts, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from peftlab.encoders.load import HeadShape, LoadedEncoder, load_classifier
from peftlab.encoders.saved import load_trained, save_trained
from peftlab.encoders.trainable import count_parameters, trained_parameters
from peftlab.errors import EncoderError, RecipeError
from peftlab.methods.bottleneck import Config, attach
from peftlab.recipe.load import read_recipe
from peftlab.recipe.records import Encoder

LABELS, HIDDEN = 3, 32
HEAD = (HIDDEN + 1) * LABELS


def load(folder: Path, dtype: str = "fp32") -> LoadedEncoder:
    """Load the tiny encoder, in `dtype` or `int8`, under a linear head on pooled embeddings."""
    torch.manual_seed(0)
    stored = {"load_in": "int8"} if dtype == "int8" else {"dtype": dtype}
    encoder = Encoder.model_validate({"name": "x", "pooling": "mean", **stored})
    return load_classifier(encoder, folder, HeadShape(LABELS, dropout=0.0), device=torch.device("cpu"))


def adapter(size: int, *, bias: bool = True, learned: bool = False) -> int:
    """Return the parameters of one adapter, by the closed form of the docstring."""
    return 2 * HIDDEN * size + (HIDDEN + size if bias else 0) + learned


@pytest.mark.parametrize(
    ("settings", "each", "adapters"),
    [
        ({}, adapter(HIDDEN // 8), 2),
        ({"size": 5}, adapter(5), 2),
        ({"reduction_factor": 2.5}, adapter(12), 2),
        ({"size": 5, "bias": False}, adapter(5, bias=False), 2),
        ({"size": 5, "scaling": "learned"}, adapter(5, learned=True), 2),
        ({"size": 5, "placement": "houlsby"}, adapter(5), 4),
        ({"size": 5, "placement": "houlsby", "layers": (-1,), "scaling": "learned"}, adapter(5, learned=True), 2),
        ({"size": 5, "placement": "parallel"}, adapter(5), 2),
        ({"size": 5, "placement": "parallel", "layers": (0,), "bias": False}, adapter(5, bias=False), 1),
    ],
)
@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "electra"])
def test_parameter_counts_are_the_closed_form(
    model_type: str, settings: dict[str, object], each: int, adapters: int, tiny_encoder: Callable[..., Path]
) -> None:
    loaded = load(tiny_encoder(model_type))
    before = sum(parameter.numel() for parameter in loaded.model.parameters())
    counts = count_parameters(attach(loaded.model, Config.model_validate(settings), loaded.anatomy), loaded.anatomy)

    assert counts.trainable == adapters * each + HEAD
    assert counts.total == before + adapters * each


@pytest.mark.parametrize(("placement", "adapters"), [("houlsby", 2), ("pfeiffer", 1), ("parallel", 1)])
def test_shared_layers_share_their_adapters(placement: str, adapters: int, tiny_encoder: Callable[..., Path]) -> None:
    """ALBERT runs one layer twice, and the adapter with it."""
    loaded = load(tiny_encoder("albert"))
    config = Config.model_validate({"size": 5, "placement": placement})
    counts = count_parameters(attach(loaded.model, config, loaded.anatomy), loaded.anatomy)

    assert counts.trainable == adapters * adapter(5) + HEAD


@pytest.mark.parametrize(
    ("placement", "scaling", "expected"),
    [("pfeiffer", "auto", 1.0), ("parallel", "auto", 4.0), ("parallel", 2.0, 2.0), ("houlsby", "auto", 1.0)],
)
def test_the_automatic_scaling_is_that_of_the_papers(
    placement: str, scaling: object, expected: float, tiny_encoder: Callable[..., Path]
) -> None:
    loaded = load(tiny_encoder())
    config = Config.model_validate({"placement": placement, "scaling": scaling})
    model = attach(loaded.model, config, loaded.anatomy)

    assert model.peft_config["default"].scaling == expected  # type: ignore[union-attr,index]


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "parallel"])
def test_training_starts_from_the_frozen_encoder_to_the_bit_or_near_it(
    placement: str, tiny_encoder: Callable[..., Path]
) -> None:
    """`zero` changes no bit; `small` changes the logits, by little."""
    batch = {"input_ids": torch.tensor([[2, 9, 12, 30, 3]]), "attention_mask": torch.ones(1, 5)}
    with torch.inference_mode():
        base = load(tiny_encoder()).model(**batch).logits
        started = {}
        for init in ("zero", "small"):
            loaded = load(tiny_encoder())
            config = Config.model_validate({"placement": placement, "init": init})
            started[init] = attach(loaded.model, config, loaded.anatomy).eval()(**batch).logits

    assert torch.equal(started["zero"], base)
    assert 0 < (started["small"] - base).abs().max() < 1e-2


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "parallel"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_trained_number_gets_a_gradient_in_fp32(
    placement: str, dtype: str, tiny_encoder: Callable[..., Path]
) -> None:
    """Also a learned scaling, and on a frozen bf16 encoder."""
    loaded = load(tiny_encoder(), dtype)
    config = Config.model_validate({"placement": placement, "init": "small", "scaling": "learned", "dropout": 0.1})
    model = attach(loaded.model, config, loaded.anatomy).train()
    logits = model(input_ids=torch.tensor([[2, 9, 12, 30, 3]]), attention_mask=torch.ones(1, 5)).logits
    torch.nn.functional.cross_entropy(logits.float(), torch.tensor([1])).backward()

    for name, parameter in trained_parameters(model).items():
        assert parameter.dtype == torch.float32, name
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("settings", [{"placement": "houlsby"}, {"placement": "parallel", "scaling": "learned"}])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_every_placement_reloads_to_the_same_bits(
    dtype: str, settings: dict[str, object], tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """The contract of all methods tries the default placement; the files hold what was trained and no more."""
    if dtype == "int8":
        pytest.importorskip("bitsandbytes", reason="absent: bitsandbytes")
    config = Config.model_validate({"init": "small", **settings})
    loaded = load(tiny_encoder(), dtype)
    model = attach(loaded.model, config, loaded.anatomy)
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    save_trained(model, tmp_path / "trained", encoder_name="tiny")
    bare = load(tiny_encoder(), dtype)
    fresh = load_trained(bare.model, tmp_path / "trained", lambda model: model)
    batch = {"input_ids": torch.tensor([[2, 9, 12, 30, 3]]), "attention_mask": torch.ones(1, 5)}

    with torch.inference_mode():
        assert torch.equal(model.eval()(**batch).logits, fresh(**batch).logits)
    with safe_open(tmp_path / "trained" / "adapter_model.safetensors", "pt") as file:
        stored = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118 not a dict
    assert stored == sum(parameter.numel() for parameter in trained_parameters(model).values())


@pytest.mark.parametrize("non_linearity", ["relu", "gelu", "tanh", "silu", "swish"])
def test_the_non_linearity_is_the_one_asked_for(non_linearity: str, tiny_encoder: Callable[..., Path]) -> None:
    """Checked on one adapter alone, against torch's own modules."""
    modules = {"relu": torch.nn.ReLU, "gelu": torch.nn.GELU, "tanh": torch.nn.Tanh}
    loaded = load(tiny_encoder())
    config = Config.model_validate({"non_linearity": non_linearity, "scaling": 0.5, "init": "small"})
    model = attach(loaded.model, config, loaded.anatomy).eval()
    layer = model.get_submodule("base_model.model.encoder.encoder.layer.0.output.dense")
    x = torch.randn(1, 4, 64)
    with torch.inference_mode():
        before = layer.base_layer(x)  # type: ignore[operator]
        down, up = layer.bottleneck_down["default"], layer.bottleneck_up["default"]  # type: ignore[index]
        expected = before + 0.5 * up(modules.get(non_linearity, torch.nn.SiLU)()(down(before)))
        assert torch.allclose(layer(x), expected, atol=1e-6)


def recipe(tiny_recipe: Callable[..., Path], settings: str) -> Path:
    """Write a recipe whose `[method]` has `settings` behind its name."""
    path = tiny_recipe("bottleneck")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('name = "bottleneck"\n', f'name = "bottleneck"\n{settings}\n'), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("settings", "key", "reason"),
    [
        ("size = 8\nreduction_factor = 16", "method.reduction_factor", "give one of the two"),
        ("size = 0", "method.size", "expected a whole number above 0"),
        ("reduction_factor = 1.0", "method.reduction_factor", "expected a number above 1"),
        ('placement = "serial"', "method.placement", 'expected one of "houlsby", "pfeiffer", "parallel"'),
        ('non_linearity = "rleu"', "method.non_linearity", 'did you mean "relu"?'),
        ("scaling = 0.0", "method.scaling", "above 0"),
        ("dropout = 1.0", "method.dropout", "below 1"),
        ("layers = [0.5]", "method.layers", "whole number"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_its_place(
    settings: str, key: str, reason: str, tiny_recipe: Callable[..., Path]
) -> None:
    path = recipe(tiny_recipe, settings)
    with pytest.raises(RecipeError) as refusal:
        read_recipe(path)
    (mistake,) = refusal.value.mistakes

    assert mistake.line is not None
    assert path.read_text(encoding="utf-8").splitlines()[mistake.line - 1].startswith(key.removeprefix("method."))
    assert mistake.key.startswith(key)
    assert reason in str(mistake)


def test_size_or_reduction_factor_alone_is_taken(tiny_recipe: Callable[..., Path]) -> None:
    for settings in ("size = 8", "reduction_factor = 16", 'size = 8\nreduction_factor = "none"'):
        read_recipe(recipe(tiny_recipe, settings))


@pytest.mark.parametrize(
    ("model_type", "settings", "sentence"),
    [
        ("bert", {"layers": (2,)}, r"method.layers: the encoder has layers 0 to 1; \[2\] is none of them"),
        ("bert", {"layers": ()}, "method.layers: .* an empty list"),
        ("albert", {"layers": (0,)}, "method.layers: this architecture shares one set of weights"),
        ("bert", {"reduction_factor": 33.0}, "method.reduction_factor: 33 leaves .* hidden size 32; expected at most"),
    ],
)
def test_what_does_not_fit_the_encoder_is_refused(
    model_type: str, settings: dict[str, object], sentence: str, tiny_encoder: Callable[..., Path]
) -> None:
    loaded = load(tiny_encoder(model_type))
    with pytest.raises(EncoderError, match=sentence):
        attach(loaded.model, Config.model_validate(settings), loaded.anatomy)


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "parallel"])
def test_an_unknown_architecture_is_refused_by_name(placement: str, tiny_encoder: Callable[..., Path]) -> None:
    """The places of an adapter are named for each architecture; guessing them would train something else."""
    loaded = load(tiny_encoder())
    anatomy = replace(loaded.anatomy, model_type="funnel")
    with pytest.raises(EncoderError, match=f"method.placement: where a {placement} adapter sits in a funnel encoder"):
        attach(loaded.model, Config.model_validate({"placement": placement}), anatomy)
