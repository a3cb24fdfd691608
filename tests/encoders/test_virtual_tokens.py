"""Virtual tokens: only the text is pooled, and text and virtual tokens fit into the encoder's positions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from peftlab.encoders.load import HeadShape, LoadedEncoder, load_classifier
from peftlab.encoders.virtual_tokens import check_room, virtual_tokens
from peftlab.errors import EncoderError
from peftlab.methods import lora, prefix, prompt
from peftlab.recipe.records import Encoder


def load(folder: Path, pooling: str = "mean") -> LoadedEncoder:
    """Load the tiny encoder under a fresh head."""
    torch.manual_seed(0)
    encoder = Encoder.model_validate({"name": "x", "pooling": pooling})
    return load_classifier(encoder, folder, HeadShape(3, dropout=0.0))


def logits_of(model: torch.nn.Module, rows: list[list[int]]) -> torch.Tensor:
    """Return the logits of token ids, 0 being padding."""
    ids = torch.tensor(rows)
    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(input_ids=ids, attention_mask=(ids != 0).long()).logits
    return logits


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("method", [prompt, prefix], ids=["prompt", "prefix"])
def test_only_the_text_is_pooled(method: ModuleType, pooling: str, tiny_encoder: Callable[..., Path]) -> None:
    """The pooled vector is that of the text's own positions, padding and virtual tokens left out."""
    loaded = load(tiny_encoder(), pooling)
    seen: list[torch.Tensor] = []
    loaded.model.encoder.register_forward_hook(lambda *call: seen.append(call[2].last_hidden_state))
    model = method.attach(loaded.model, method.Config(tokens=4), loaded.anatomy)
    logits = logits_of(model, [[2, 9, 12, 3, 0, 0]])
    hidden = seen[-1][0, -6:-2]
    pooled = hidden.mean(0) if pooling == "mean" else hidden[0]
    with torch.inference_mode():
        expected = loaded.model.classifier(pooled)

    assert seen[-1].shape[1] == (6 if method is prefix else 10), "a prefix has keys and values, and no hidden states"
    assert torch.allclose(logits[0], expected, atol=1e-6)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra"])
def test_padding_changes_no_logit(model_type: str, tiny_encoder: Callable[..., Path]) -> None:
    """With virtual tokens the mask is longer than the text; each row's answer is its own all the same."""
    for method in (prompt, prefix):
        loaded = load(tiny_encoder(model_type))
        model = method.attach(loaded.model, method.Config(tokens=3), loaded.anatomy)
        alone = logits_of(model, [[2, 9, 12, 3]])
        padded = logits_of(model, [[2, 9, 12, 3, 0, 0, 0], [2, 9, 12, 30, 7, 8, 3]])

        assert torch.allclose(alone[0], padded[0], atol=1e-5)


@pytest.mark.parametrize(("model_type", "positions"), [("bert", 64), ("roberta", 64), ("distilbert", 64)])
def test_text_and_virtual_tokens_must_fit(model_type: str, positions: int, tiny_encoder: Callable[..., Path]) -> None:
    """RoBERTa's table has 66 rows, two of which stand at and below the padding index."""
    loaded = load(tiny_encoder(model_type))
    model = prompt.attach(loaded.model, prompt.Config(tokens=60), loaded.anatomy)

    check_room(model, positions - 60)
    logits_of(model, [[5] * (positions - 60)])
    for break_it in (lambda: check_room(model, positions - 59), lambda: logits_of(model, [[5] * (positions - 59)])):
        with pytest.raises(EncoderError, match=r"60 virtual tokens and 5 tokens .* 64 positions .*max_length to 4 or"):
            break_it()


def test_other_methods_have_none_and_take_any_length(tiny_encoder: Callable[..., Path]) -> None:
    """The check is about virtual tokens; texts are cut to `encoder.max_length` elsewhere."""
    loaded = load(tiny_encoder())
    check_room(loaded.model, 10_000)
    model = lora.attach(loaded.model, lora.Config(), loaded.anatomy)

    assert virtual_tokens(model) == 0
    check_room(model, 10_000)


def test_a_run_without_room_stops_before_its_first_step(
    tiny_recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The sentence names what to set; exit code 2."""
    from peftlab.cli import main

    recipe = tiny_recipe(method="prompt")
    assert main(["train", str(recipe), "method.tokens=60", f"run.dir={tmp_path / 'run'}"]) == 2
    assert "set encoder.max_length to 4 or less, or use fewer virtual tokens" in capsys.readouterr().err
