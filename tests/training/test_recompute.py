"""Gradient checkpointing: the same training to the bit, with less kept for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from peftlab.encoders.load import HeadShape, load_classifier
from peftlab.errors import UserError
from peftlab.methods import full, lora, prefix
from peftlab.recipe.records import Encoder
from peftlab.training.cpu_steps import cheaper_steps
from peftlab.training.first_token import first_token_only
from peftlab.training.recompute import layers_recomputed

CPU = torch.device("cpu")
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {"full": (full, {}), "lora": (lora, {"dropout": 0.2})}
Encoders = Callable[..., Path]


def _model(folder: Path, method: str) -> Any:
    torch.manual_seed(0)
    loaded = load_classifier(Encoder(name=str(folder), pooling="cls"), folder, HeadShape(3, 0.1))
    plugin, settings = METHODS[method]
    return plugin.attach(loaded.model, plugin.Config(**settings), loaded.anatomy).train()


def _gradients(model: Any, *, recompute: bool, half: bool) -> tuple[dict[str, Tensor], int]:
    """Return the gradients of one step in peftlab's own way, and the bytes that were kept for it."""
    kept = 0

    def count(value: Tensor) -> Tensor:
        nonlocal kept
        kept += value.numel() * value.element_size()
        return value

    torch.manual_seed(3)
    model.zero_grad()
    ids = torch.randint(5, 40, (6, 12))
    with (
        first_token_only(model),
        cheaper_steps(model, CPU) as masks,
        layers_recomputed(model, masks) if recompute else nullcontext(),
        torch.autograd.graph.saved_tensors_hooks(count, lambda value: value),
    ):
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        logits.float().square().sum().backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}, kept


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "albert"])
def test_gradients_are_the_same_bits_under_the_same_dropout(
    family: str, method: str, half: bool, tiny_encoder: Encoders
) -> None:
    """Less than half is kept; a layer that is run again draws the masks of its first run."""
    model = _model(tiny_encoder(family), method)
    expected, whole = _gradients(model, recompute=False, half=half)
    found, kept = _gradients(model, recompute=True, half=half)
    assert kept < whole / 2
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name
    again, after = _gradients(model, recompute=False, half=half)
    assert after == whole
    assert all(torch.equal(again[name], gradient) for name, gradient in expected.items())


def test_a_run_trains_the_same_model(tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    """The weights that two runs ship are equal to the bit; the record says which one recomputed."""
    from safetensors.torch import load_file

    from peftlab import train

    recipe = str(tiny_recipe("lora"))
    plain, less = tmp_path / "plain", tmp_path / "less"
    for folder, words in ((plain, []), (less, ["train.gradient_checkpointing=true"])):
        assert train.main([recipe, f"run.dir={folder}", *words]) == 0
    first, second = (load_file(next(folder.rglob("adapter_model.safetensors"))) for folder in (plain, less))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert "gradient_checkpointing = true" in (less / "recipe.toml").read_text("utf-8")


def test_prefixes_are_refused(tiny_encoder: Encoders) -> None:
    """Their keys and values would be handed over twice."""
    folder = tiny_encoder("bert")
    loaded = load_classifier(Encoder(name=str(folder), pooling="cls"), folder, HeadShape(3, 0.1))
    model = prefix.attach(loaded.model, prefix.Config(), loaded.anatomy)
    with pytest.raises(UserError, match=r"train\.gradient_checkpointing: prefix"), layers_recomputed(model, None):
        pass


def test_an_encoder_without_known_layers_is_refused() -> None:
    """What is recomputed must be known."""
    with pytest.raises(UserError, match="not known"), layers_recomputed(torch.nn.Linear(2, 2), None):
        pass
