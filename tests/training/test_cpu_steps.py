"""Cheaper training steps on a CPU: the same values, gradients and distributions as torch's and peft's own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from peftlab.encoders.load import HeadShape, load_classifier
from peftlab.methods import adalora, lora
from peftlab.recipe.records import Encoder
from peftlab.training.attention import Biases, attention
from peftlab.training.cpu_steps import cheaper_steps
from peftlab.training.lora_product import low_rank
from peftlab.training.masks import MaskSource, dropout, masked

CPU = torch.device("cpu")


def test_masks_drop_with_the_asked_probability_and_independently() -> None:
    """At p = 0.1 the share over 8 million values is within 4 deviations, and so are counts by column and neighbours."""
    torch.manual_seed(0)
    source, rows, columns, p = MaskSource(), 8_000, 1_000, 0.1
    kept = source.kept(torch.Size((rows, columns)), p).numpy()
    deviation = (p * (1 - p) / kept.size) ** 0.5
    assert abs((~kept).mean() - p) < 4 * deviation
    by_column = (~kept).sum(0)
    expected = rows * p * (1 - p)
    assert by_column.var() / expected == pytest.approx(1.0, abs=4 * (2 / columns) ** 0.5)
    both = (~kept[:, 1:] & ~kept[:, :-1]).mean()
    assert abs(both - p * p) < 5 * (p * p / kept.size) ** 0.5


@pytest.mark.parametrize("p", [0.003, 0.25, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_gives_the_gradient_the_same_mask(p: float) -> None:
    """Values are 0 or x / (1 - p); the gradient of a sum is the same factor."""
    torch.manual_seed(1)
    values = torch.ones(1_000, 517, requires_grad=True)
    dropped = dropout(values, p, MaskSource())
    dropped.sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert torch.equal(dropped.detach(), values.grad)
    assert set(dropped.detach().unique().tolist()) == {0.0, float(torch.tensor(1.0).mul(1 / (1 - p)))}
    assert float(dropped.detach().mean()) == pytest.approx(1.0, abs=5 * (p / (1 - p) / values.numel()) ** 0.5)


def test_masks_on_bf16_are_masks_on_fp32() -> None:
    """The bits of kept values stay, and dropped ones are 0."""
    torch.manual_seed(0)
    values, kept = torch.randn(70, 30).to(torch.bfloat16), torch.rand(70, 30) > 0.4
    assert torch.equal(masked(values, kept), values * kept)
    assert torch.equal(masked(values.t(), kept.t().contiguous()), (values * kept).t())


def test_masks_follow_from_torch_s_generator_alone() -> None:
    """The same state of torch's generator gives the same masks, however many were drawn before."""
    source = MaskSource()
    torch.manual_seed(3)
    source.restart()
    first = source.kept(torch.Size((40, 50)), 0.2)
    source.kept(torch.Size((7,)), 0.2)
    torch.manual_seed(3)
    source.restart()
    assert torch.equal(source.kept(torch.Size((40, 50)), 0.2), first)
    source.restart()
    assert not torch.equal(source.kept(torch.Size((40, 50)), 0.2), first)


def _model(folder: Path, p: float, method: ModuleType = lora, **settings: Any) -> nn.Module:
    """Return a LoRA on the tiny encoder in training mode, B drawn at random, with dropout `p` in LoRA only.

    `method`: LoRA or AdaLoRA; the singular values of the latter are drawn too.
    """
    torch.manual_seed(0)
    loaded = load_classifier(Encoder(name=str(folder), pooling="mean"), folder, HeadShape(labels=3, dropout=0.0))
    for module in loaded.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model: nn.Module = method.attach(loaded.model, method.Config(dropout=p, **settings), loaded.anatomy)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "lora_E" in name:
                parameter.normal_(std=0.1)
    return model.train()


def _gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    ids = torch.arange(5, 47).view(3, 14)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    model.zero_grad()
    model(input_ids=ids, attention_mask=mask).logits.square().sum().backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (lora, {}),
        (lora, {"target_modules": ("query", "value"), "r": 3}),
        (lora, {"layers": (-1,), "rslora": True}),
        (lora, {"dora": True}),
        (adalora, {"initial_r": 5, "r": 2}),
    ],
    ids=["all linear", "query and value", "top layer", "DoRA", "AdaLoRA"],
)
@pytest.mark.parametrize("p", [1e-12, 0.0])
def test_lora_has_peft_s_values_and_gradients(
    tiny_encoder: Callable[..., Path], p: float, method: ModuleType, settings: dict[str, Any]
) -> None:
    """Where dropout drops nothing, gradients are peft's to 1e-5 of the largest, also where its forward is kept."""
    model = _model(tiny_encoder(), p, method, **settings)
    expected = _gradients(model)
    with cheaper_steps(model, CPU):
        found = _gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert float((found[name] - gradient).abs().max()) <= 1e-5 * float(gradient.abs().max()), name


@pytest.mark.parametrize(
    ("method", "settings", "updates"), [(lora, {}, 12), (adalora, {}, 12), (lora, {"dora": True}, 0)]
)
def test_updates_that_are_one_product_are_known(
    tiny_encoder: Callable[..., Path], method: ModuleType, settings: dict[str, Any], updates: int
) -> None:
    """All linear layers of LoRA and AdaLoRA, while they are trained; none of DoRA, whose norms are no product."""
    model = _model(tiny_encoder(), 0.3, method, **settings)
    assert sum(low_rank(module) is not None for module in model.modules()) == updates
    model.requires_grad_(requires_grad=False)
    assert not any(low_rank(module) for module in model.modules())


@pytest.mark.parametrize(("method", "trained"), [(lora, 6), (adalora, 8)])
def test_lora_with_dropout_has_the_gradients_of_peft_under_the_same_masks(
    tiny_encoder: Callable[..., Path], method: ModuleType, trained: int
) -> None:
    """The layer of peft, given the masks that were drawn, computes the same."""
    model = _model(tiny_encoder(), 0.3, method, target_modules=("ffn_out",))
    torch.manual_seed(5)
    with cheaper_steps(model, CPU):
        found = _gradients(model)
    torch.manual_seed(5)
    source = MaskSource()
    source.restart()
    for module in model.modules():
        if isinstance(module, nn.Dropout) and module.p > 0:
            module.forward = _given(source, module.p)  # type: ignore[method-assign]
    expected = _gradients(model)
    assert len(expected) == trained
    for name, gradient in expected.items():
        assert float((found[name] - gradient).abs().max()) <= 1e-5 * float(gradient.abs().max()), name


def _given(source: MaskSource, p: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x * source.kept(x.view(-1, x.shape[-1]).shape, p).view(x.shape) / (1 - p)

    return forward


@pytest.mark.parametrize("dropped", [True, False])
def test_lora_gradients_are_those_of_finite_differences(dropped: bool) -> None:
    """The custom backward pass agrees with differences in double precision, with a mask and without."""
    from peftlab.training import lora_product

    torch.manual_seed(0)
    x, a, b = (torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in ((6, 5), (2, 5), (4, 2)))
    weight, bias = torch.randn(4, 5, dtype=torch.double), torch.randn(4, dtype=torch.double)
    kept = torch.rand(6, 5) > 0.3 if dropped else None

    def layer(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = lora_product._LoraLinear.apply(x, weight, bias, a, b, kept, 1.7)
        return result

    assert torch.autograd.gradcheck(layer, (x, a, b))


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch, tiny_encoder: Callable[..., Path]) -> None:
    """A block of a few rows gives what one block gives."""
    from peftlab.training import lora_product

    model = _model(tiny_encoder(), 0.2)
    torch.manual_seed(2)
    with cheaper_steps(model, CPU):
        whole = _gradients(model)
    monkeypatch.setattr(lora_product, "_BLOCK_VALUES", 100)
    torch.manual_seed(2)
    with cheaper_steps(model, CPU):
        parts = _gradients(model)
    for name, gradient in whole.items():
        assert float((parts[name] - gradient).abs().max()) <= 1e-5 * float(gradient.abs().max()), name


def _in_half(model: nn.Module, *, cheaper: bool, seed: int = 5) -> dict[str, torch.Tensor]:
    """Return the gradients of a forward pass with bf16 products."""
    torch.manual_seed(seed)
    with cheaper_steps(model, CPU) if cheaper else nullcontext(), torch.autocast("cpu", torch.bfloat16):
        return _gradients(model)


@pytest.mark.parametrize(
    ("method", "settings"),
    [(lora, {}), (lora, {"target_modules": ("query", "value"), "r": 3}), (lora, {"layers": (-1,)}), (adalora, {})],
)
@pytest.mark.parametrize("p", [1e-12, 0.0])
def test_lora_in_bf16_is_as_near_to_fp32_as_peft_s(
    tiny_encoder: Callable[..., Path], p: float, method: ModuleType, settings: dict[str, Any]
) -> None:
    """Without dropped values, gradients differ from those in fp32 by at most half as much again as autocast's."""
    model = _model(tiny_encoder(), p, method, **settings)
    exact, usual, found = _gradients(model), _in_half(model, cheaper=False), _in_half(model, cheaper=True)
    assert found.keys() == exact.keys()
    distances = {
        kind: sum(float((gradients[name] - value).norm() ** 2) for name, value in exact.items()) ** 0.5
        for kind, gradients in (("usual", usual), ("found", found))
    }
    assert 0 < distances["found"] < 1.5 * distances["usual"]


def test_lora_in_bf16_has_the_gradients_of_fp32_under_the_same_masks(tiny_encoder: Callable[..., Path]) -> None:
    """A third of the values is dropped: other masks would be far off."""
    model = _model(tiny_encoder(), 0.3)
    torch.manual_seed(5)
    with cheaper_steps(model, CPU):
        exact = _gradients(model)
    found, other = _in_half(model, cheaper=True), _in_half(model, cheaper=True, seed=6)
    size = sum(float(value.norm() ** 2) for value in exact.values()) ** 0.5

    def distance(gradients: dict[str, torch.Tensor]) -> float:
        return float(sum(float((gradients[name] - value).norm() ** 2) for name, value in exact.items()) ** 0.5) / size

    assert distance(found) < 0.03
    assert distance(other) > 0.06


def test_a_frozen_layer_in_bf16_has_autocast_s_values_and_gradient() -> None:
    """To the bit, for states that several layers read too."""
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(16, 8), nn.Linear(16, 8, bias=False)]).requires_grad_(requires_grad=False).train()
    x = torch.randn(3, 5, 16, requires_grad=True)

    def both() -> tuple[torch.Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16):
            inner = x * 1.0  # autocast keeps what it made of a leaf, which sums gradients in bf16
            first, second = (layer(inner) for layer in model)
        (gradient,) = torch.autograd.grad((first.float() * 0.5 + second.float()).square().sum(), x)
        return first, second, gradient

    expected = both()
    with cheaper_steps(model, CPU):
        found = both()
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_states_changed_in_place_are_converted_again() -> None:
    """What was converted last is used again for the same values only."""
    from peftlab.training.half_product import HalfStates

    states, x = HalfStates(), torch.randn(4, 6)
    first = states.of(x)
    assert states.of(x) is first
    x.add_(1)
    assert torch.equal(states.of(x), x.to(torch.bfloat16))
    assert torch.equal(states.of(torch.zeros(4, 6)), torch.zeros(4, 6, dtype=torch.bfloat16))


@pytest.mark.parametrize("masked", [True, False])
def test_attention_is_torch_s_where_dropout_is_nearly_nothing(masked: bool) -> None:
    """At p = 1e-12 no value is dropped, and the output is that of torch's own attention."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 2, 7, 8) for _ in range(3))
    mask = torch.ones(3, 1, 1, 7, dtype=torch.bool)
    mask[0, :, :, 4:] = False
    given = Biases().of(mask) if masked else None
    found = attention(query, key, value, given, p=1e-12, scale=0.3, source=MaskSource())
    expected = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=given, scale=0.3)
    assert torch.allclose(found, expected.transpose(1, 2), atol=1e-6)


def test_the_model_is_as_it_was_afterwards(tiny_encoder: Callable[..., Path]) -> None:
    """In evaluation mode nothing differs while it lasts; afterwards no module has a forward of its own."""
    model: Any = _model(tiny_encoder(), 0.3).eval()
    inputs = {"input_ids": torch.arange(5, 25).view(2, 10)}
    expected = model(**inputs).logits
    with cheaper_steps(model, CPU):
        assert any("forward" in vars(module) for module in model.modules())
        assert torch.equal(model(**inputs).logits, expected)
    assert not any("forward" in vars(module) for module in model.modules())
    assert model.config._attn_implementation == "sdpa"
    assert np.isfinite(expected.detach().numpy()).all()


def test_a_decoder_sees_nothing_of_what_comes_later(tiny_encoder: Callable[..., Path]) -> None:
    """Without padding there is no mask, so that attention itself must leave later tokens out."""
    from peftlab.encoders.seq2seq import load_seq2seq

    folder = tiny_encoder()
    model: Any = load_seq2seq(Encoder(name=str(folder)), folder).model
    model.train()
    ids = torch.randint(5, 100, (3, 6), generator=torch.Generator().manual_seed(0))
    read = model.decoder.get_input_embeddings()(ids).detach().requires_grad_()
    with cheaper_steps(model, CPU):
        logits = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            decoder_inputs_embeds=read,
            decoder_attention_mask=torch.ones_like(ids),
        ).logits
    logits[:, 2].pow(2).sum().backward()
    assert read.grad is not None
    assert float(read.grad[:, :3].abs().sum()) > 0
    assert float(read.grad[:, 3:].abs().max()) == 0.0
