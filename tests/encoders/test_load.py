"""Loading: pooling and new modules."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from peftlab.encoders.load import HeadShape, choose_pooling, load_classifier, load_tokenizer
from peftlab.encoders.pooled import PooledClassifier
from peftlab.errors import EncoderError
from peftlab.recipe.records import Encoder


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("bert", ("classifier",)),
        ("roberta", ("classifier",)),
        ("distilbert", ("pre_classifier", "classifier")),
        ("electra", ("classifier",)),
        ("albert", ("classifier",)),
    ],
)
def test_new_modules_of_a_native_head(
    model_type: str, expected: tuple[str, ...], tiny_encoder: Callable[..., Path]
) -> None:
    """What the checkpoint lacks is exactly the head; the tiny encoders have their poolers."""
    folder = tiny_encoder(model_type)
    loaded = load_classifier(Encoder(name="x", pooling="native"), folder, HeadShape(4, 0.25))

    assert loaded.anatomy.new_modules == expected
    assert loaded.anatomy.model_type == model_type
    dropouts = [module.p for name, module in loaded.model.named_modules() if name in {"dropout", "classifier.dropout"}]
    assert dropouts == [0.25], "head.dropout reaches the architecture's own head"


def test_pooling_is_read_from_a_sentence_transformers_folder(tiny_encoder: Callable[..., Path], tmp_path: Path) -> None:
    """`auto` takes what the encoder was trained for, else the architecture's own head; a named one wins."""
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder(), folder)

    assert choose_pooling(Encoder(name="x"), folder) == "native"
    (folder / "1_Pooling").mkdir()
    for mode, pooling in (("pooling_mode_mean_tokens", "mean"), ("pooling_mode_cls_token", "cls")):
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({mode: True}), encoding="utf-8")
        assert choose_pooling(Encoder(name="x"), folder) == pooling
    assert choose_pooling(Encoder(name="x", pooling="native"), folder) == "native"


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pooling_does_not_see_padding(pooling: str, tiny_encoder: Callable[..., Path]) -> None:
    """A text has the same logits alone and beside a longer one."""
    folder = tiny_encoder()
    loaded = load_classifier(Encoder.model_validate({"name": "x", "pooling": pooling}), folder, HeadShape(3, 0.0))
    tokenizer = load_tokenizer(folder)
    alone = tokenizer(["refund my card"], return_tensors="pt")
    padded = tokenizer(["refund my card", "where is the parcel it is late why"], return_tensors="pt", padding=True)

    with torch.inference_mode():
        assert torch.allclose(loaded.model(**alone).logits[0], loaded.model(**padded).logits[0], atol=1e-6)


def test_mean_pooling_is_the_mean_over_the_texts_tokens() -> None:
    """Checked by hand on two rows."""

    class Body(torch.nn.Module):
        config = type("Config", (), {"hidden_size": 2, "initializer_range": 0.02})()

    model = PooledClassifier(Body(), "mean", 2, 0.0)
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]], [[5.0, 6.0], [9.0, 9.0], [9.0, 9.0]]])
    pooled = model.pool(hidden, torch.tensor([[1, 1, 0], [1, 0, 0]]))

    assert torch.equal(pooled, torch.tensor([[2.0, 3.0], [5.0, 6.0]]))


def test_a_pooled_model_has_no_pooler_that_nothing_reads(tiny_encoder: Callable[..., Path]) -> None:
    """It would be counted, and reported as new where the checkpoint lacks it."""
    loaded = load_classifier(Encoder(name="x", pooling="mean"), tiny_encoder(), HeadShape(3, 0.1))

    assert not [name for name, _ in loaded.model.named_parameters() if "pooler" in name]
    assert loaded.anatomy.new_modules == ("classifier",)


def test_a_folder_that_is_no_encoder_is_said_in_a_sentence(tmp_path: Path) -> None:
    """Also a broken weights file."""
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(EncoderError, match="cannot be loaded as an encoder"):
        load_classifier(Encoder(name="x", pooling="mean"), tmp_path, HeadShape(3, 0.1))
