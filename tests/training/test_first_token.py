"""The last layer for the first token alone: the same logits and gradients, for those who read no other token."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from peftlab.encoders.load import HeadShape, load_classifier
from peftlab.methods import bottleneck, full, lora
from peftlab.recipe.records import Encoder
from peftlab.training.cpu_steps import cheaper_steps
from peftlab.training.first_token import first_token_only

CPU = torch.device("cpu")
FAMILIES = ("bert", "roberta", "distilbert", "electra")
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "full": (full, {}),
    "lora": (lora, {"dropout": 0.0}),
    "bottleneck": (bottleneck, {}),
}
Encoders = Callable[..., Path]


def _model(folder: Path, pooling: str, method: str = "lora") -> Any:
    encoder = Encoder(name=str(folder), pooling=pooling)  # type: ignore[arg-type] # pydantic checks it
    torch.manual_seed(0)
    loaded = load_classifier(encoder, folder, HeadShape(3, 0.0))
    plugin, settings = METHODS[method]
    model = plugin.attach(loaded.model, plugin.Config(**settings), loaded.anatomy)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "up." in name:
            nn.init.normal_(parameter, std=0.2)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def _inputs() -> dict[str, Tensor]:
    torch.manual_seed(1)
    mask = torch.ones(5, 9, dtype=torch.long)
    mask[1, 4:] = 0
    return {"input_ids": torch.randint(5, 40, (5, 9)), "attention_mask": mask}


def _logits_and_gradients(model: Any) -> dict[str, Tensor]:
    model.zero_grad()
    logits = model(**_inputs()).logits
    logits.square().sum().backward()
    return {"": logits.detach()} | {
        name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None
    }


def _tokens_of_feed_forward(model: Any) -> list[int]:
    """Return the tokens that the last layer's feed-forward part sees in one forward pass."""
    seen: list[int] = []
    layers = next(one for one in model.modules() if isinstance(one, nn.ModuleList) and len(one) > 1)
    last: Any = layers[-1]
    part = last.ffn.lin1 if hasattr(last, "ffn") else last.intermediate
    hook = part.register_forward_hook(lambda *given: seen.append(int(given[-1].shape[1])))
    model(**_inputs())
    hook.remove()
    return seen


@pytest.mark.parametrize("cheaper", [False, True], ids=["torch's attention", "ours"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pooling", ["cls", "native"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_those_of_the_whole_layer(
    family: str, pooling: str, method: str, cheaper: bool, tiny_encoder: Encoders
) -> None:
    """In training mode, to 1e-5 of the largest value of each; what a family has in its own head, too."""
    model = _model(tiny_encoder(family), pooling, method).train()
    expected = _logits_and_gradients(model)
    with first_token_only(model), cheaper_steps(model, CPU) if cheaper else nullcontext():
        assert _tokens_of_feed_forward(model) == [1]
        found = _logits_and_gradients(model)
    assert _tokens_of_feed_forward(model) == [9]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float((found[name] - value).abs().max()) <= 1e-5 * max(float(value.abs().max()), 1e-3), name


def test_evaluation_and_other_poolings_run_the_whole_layer(tiny_encoder: Encoders) -> None:
    """In evaluation mode nothing changes to the bit; a mean reads every token."""
    model = _model(tiny_encoder("bert"), "cls").eval()
    with torch.no_grad():
        plain = model(**_inputs()).logits
        with first_token_only(model):
            assert _tokens_of_feed_forward(model) == [9]
            assert torch.equal(model(**_inputs()).logits, plain)
    mean = _model(tiny_encoder("bert"), "mean").train()
    with first_token_only(mean):
        assert _tokens_of_feed_forward(mean) == [9]


def test_virtual_tokens_stand_before_the_first_one(tiny_encoder: Encoders) -> None:
    """A prompt's first state is no text's: the layer stays whole."""
    from peftlab.methods import prompt

    folder = tiny_encoder("bert")
    encoder = Encoder(name=str(folder), pooling="cls")
    loaded = load_classifier(encoder, folder, HeadShape(3, 0.0))
    model: Any = prompt.attach(loaded.model, prompt.Config(), loaded.anatomy).train()
    with first_token_only(model):
        assert min(_tokens_of_feed_forward(model)) > 9


def test_an_encoder_built_otherwise_is_left_alone(tiny_encoder: Encoders) -> None:
    """ALBERT shares one layer between all its places."""
    model = _model(tiny_encoder("albert"), "cls", "full").train()
    expected = _logits_and_gradients(model)
    with first_token_only(model):
        found = _logits_and_gradients(model)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
