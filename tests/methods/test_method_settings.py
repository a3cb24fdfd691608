"""Settings other than the defaults: they choose what they say, count what the closed form says, and reload."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from peftlab.encoders.anatomy import Anatomy
from peftlab.encoders.load import HeadShape, LoadedEncoder, load_classifier
from peftlab.encoders.merging import merge
from peftlab.encoders.roles import word_table
from peftlab.encoders.saved import load_trained, save_trained
from peftlab.encoders.shape import shape_of
from peftlab.encoders.trainable import count_parameters, trained_parameters
from peftlab.errors import EncoderError
from peftlab.methods import full, lora
from peftlab.recipe.plugins import load_plugin
from peftlab.recipe.records import Encoder

LABELS = 3
TARGETS = torch.tensor([0, 1, 2, 0])


def load(folder: Path, *, seed: int = 0, pooling: str = "mean") -> LoadedEncoder:
    """Load the tiny encoder under a fresh head."""
    torch.manual_seed(seed)
    encoder = Encoder.model_validate({"name": str(folder), "pooling": pooling})
    return load_classifier(encoder, folder, HeadShape(LABELS, dropout=0.1))


def batch() -> dict[str, torch.Tensor]:
    """Return a padded batch of four short texts."""
    ids = torch.tensor([[2, 9, 12, 30, 3], [2, 40, 3, 0, 0], [2, 17, 21, 3, 0], [2, 8, 7, 6, 3]])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def train_a_step(model: torch.nn.Module) -> None:
    """Take one optimizer step on a fixed batch."""
    optimizer = torch.optim.AdamW(trained_parameters(model).values(), lr=1e-2)
    model.train()
    torch.nn.functional.cross_entropy(model(**batch()).logits, TARGETS).backward()
    optimizer.step()
    model.eval()


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("lora", {"dora": True}),
    ("lora", {"r": 2, "target_modules": ("query", "value")}),
    ("lora", {"r": 2, "embeddings": True}),
    ("lora", {"r": 2, "target_modules": ("attention",), "layers": (-1,)}),
    ("bitfit", {"which": "query_and_ffn"}),
    ("bitfit", {"which": "query_and_ffn", "layers": (0,)}),
    ("bitfit", {"layers": (-1,)}),
    ("boft", {"block_size": 8, "target_modules": ("ffn",), "dropout": 0.1}),
    ("c3a", {"block_size": 16, "layers": (1,)}),
    ("c3a", {"init": "xavier_uniform", "target_modules": ("ffn_in",)}),
    ("deft", {"decomposition": "qr", "r": 2}),
    ("delora", {"r": 3, "layers": (0,), "strength": 4.0}),
    ("fourierft", {"frequencies": 10, "init": "gaussian"}),
    ("glora", {"r": 2, "target_modules": ("value",)}),
    ("gralora", {"k": 4, "r": 4}),
    ("hira", {"r": 3, "target_modules": ("attention_output",)}),
    ("hra", {"r": 4}),
    ("ia3", {"target_modules": ("all-linear",)}),
    ("ia3", {"target_modules": ("query",), "layers": (-1,)}),
    ("layernorm", {"layers": (-1, 0)}),
    ("loha", {"r": 2, "target_modules": ("ffn",)}),
    ("lokr", {"r": 1}),
    ("lokr", {"r": 2, "target_modules": ("ffn",)}),
    ("miss", {"r": 4, "target_modules": ("key",)}),
    ("oft", {"block_size": 4, "layers": (1,)}),
    ("peanut", {"r": 3, "depth": 2, "non_linearity": "tanh"}),
    ("prefix", {"tokens": 3, "projection": 5}),
    ("prompt", {"tokens": 5, "init": "random"}),
    ("psoft", {"r": 5}),
    ("ptuning", {"tokens": 5, "width": 7}),
    ("pvera", {"r": 5, "target_modules": ("query",)}),
    ("randlora", {"r": 5}),
    ("road", {"variant": "road_2", "group_size": 8}),
    ("road", {"variant": "road_4", "target_modules": ("ffn_out",)}),
    ("shira", {"r": 1, "layers": (0,)}),
    ("supertuning", {"sparsity": 0.9, "select": "smallest", "layers": (0,)}),
    ("tinylora", {"u": 3}),
    ("top_layers", {"k": 2}),
    ("top_layers", {"embeddings": True}),
    ("unilora", {"length": 17}),
    ("vblora", {"length": 4, "vectors": 5, "r": 2}),
    ("vera", {"r": 5, "layers": (-1,), "save_projection": True, "projection_seed": 3}),
    ("waveft", {"coefficients": 9, "wavelet": "sym2"}),
]


@pytest.mark.parametrize(
    ("name", "settings"), SETTINGS, ids=[f"{name}-{index}" for index, (name, _) in enumerate(SETTINGS)]
)
def test_settings_count_as_the_closed_form_and_reload(
    name: str, settings: dict[str, Any], tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """A setting that peft does not get, or that a reload does not know, shows here."""
    method, loaded = load_plugin("methods", name), load(tiny_encoder("bert"))
    config = method.Config(**settings)
    shape = shape_of(loaded.model.config)
    model = method.attach(loaded.model, config, loaded.anatomy)
    counts = count_parameters(model, loaded.anatomy)
    assert counts.trainable == method.trainable_parameters(config, shape) + (shape.hidden + 1) * LABELS

    train_a_step(model)
    save_trained(model, tmp_path / "trained", encoder_name="tiny")
    bare = load(tiny_encoder("bert"), seed=99)
    fresh = load_trained(bare.model, tmp_path / "trained", partial(method.attach, config=config, anatomy=bare.anatomy))
    with torch.inference_mode():
        assert torch.allclose(model(**batch()).logits, fresh(**batch()).logits, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("c3a", {"block_size": 5}, "method.block_size: 5 does not divide the width 32 of a chosen module; write 4,"),
        ("boft", {"block_size": 6}, "method.block_size: 6 does not divide the width 32"),
        ("oft", {"block_size": 48}, "method.block_size: 48 does not divide the width 32"),
        ("road", {"group_size": 6}, "method.group_size: 6 does not divide the width 32"),
        ("gralora", {"r": 4, "k": 3}, "method.k: 3 does not divide method.r = 4; write r = 12"),
        ("gralora", {"r": 3, "k": 3}, "method.k: 3 does not divide the width 32"),
        ("vblora", {"length": 3}, "method.length: 3 does not divide the width 32"),
        ("vblora", {"top_k": 64}, "method.top_k: 64 is not below method.vectors = 64"),
        ("miss", {"r": 33}, r"\[method\]: these settings do not go with this bert encoder: .*32"),
        ("psoft", {"r": 33}, r"\[method\]: these settings do not go with this bert encoder: .*32"),
        ("shira", {"r": 40}, r"\[method\]: these settings do not go with this bert encoder: .*1024"),
        ("fourierft", {"frequencies": 2000}, r"\[method\]: these settings do not go with this bert encoder"),
        ("supertuning", {"sparsity": 0.9999}, r"\[method\]: .*sparsity=0.9999 leaves no trainable entries"),
        ("top_layers", {"k": 3}, "method.k: the encoder has 2 layers; found 3"),
        ("bitfit", {"layers": (2,)}, "method.layers: the encoder has layers 0 to 1"),
        ("layernorm", {"layers": (5,)}, "method.layers: the encoder has layers 0 to 1"),
        ("vera", {"layers": (-3,)}, "method.layers: the encoder has layers 0 to 1"),
        ("ia3", {"target_modules": ("valeu",)}, "'valeu' matches no linear layer .* did you mean 'value'"),
        ("prompt", {"tokens": 64}, "64 virtual tokens and 5 tokens of text do not fit into the 64 positions"),
    ],
)
def test_settings_that_do_not_fit_the_encoder_are_refused_in_a_sentence(
    name: str, settings: dict[str, Any], sentence: str, tiny_encoder: Callable[..., Path]
) -> None:
    """With the key, the width it does not fit, and what would; none is changed in silence."""
    method, loaded = load_plugin("methods", name), load(tiny_encoder("bert"))
    with pytest.raises(EncoderError, match=sentence):
        method.attach(loaded.model, method.Config(**settings), loaded.anatomy)(**batch())


def test_layers_of_an_encoder_that_shares_them_are_refused_by_every_method(tiny_encoder: Callable[..., Path]) -> None:
    """ALBERT has one set of weights for all layers, so that a choice of layers would be none."""
    for name in ("bitfit", "layernorm", "vera", "ia3"):
        method, loaded = load_plugin("methods", name), load(tiny_encoder("albert"))
        with pytest.raises(EncoderError, match="shares one set of weights between its layers"):
            method.attach(loaded.model, method.Config(layers=(0,)), loaded.anatomy)


def test_bitfit_trains_biases_only_and_the_ones_asked_for(tiny_encoder: Callable[..., Path]) -> None:
    """The subset of the paper: queries, and the first layer of the feed-forward network."""
    bitfit = load_plugin("methods", "bitfit")
    loaded = load(tiny_encoder("bert"))
    config = bitfit.Config(which="query_and_ffn", layers=(1,))
    names = set(trained_parameters(bitfit.attach(loaded.model, config, loaded.anatomy)))

    layer = "encoder.encoder.layer.1"
    own = {f"{layer}.attention.self.query.bias", f"{layer}.intermediate.dense.bias"}
    assert names == own | {"classifier.weight", "classifier.bias"}


def test_top_layers_trains_nothing_below_them(tiny_encoder: Callable[..., Path]) -> None:
    """And everything above: the pooler of a native head too."""
    top = load_plugin("methods", "top_layers")
    loaded = load(tiny_encoder("bert"), pooling="native")
    trained = set(trained_parameters(top.attach(loaded.model, top.Config(), loaded.anatomy)))
    above = ("bert.encoder.layer.1.", "bert.pooler.", "classifier.")

    assert trained == {name for name, _ in loaded.model.named_parameters() if name.startswith(above)}


def test_full_fine_tuning_counts_everything_and_can_spare_the_embeddings(tiny_encoder: Callable[..., Path]) -> None:
    """`embeddings = false` freezes the tables and nothing else."""
    loaded = load(tiny_encoder("bert"), pooling="native")
    every = count_parameters(full.attach(loaded.model, full.Config(), loaded.anatomy), loaded.anatomy)
    spared = count_parameters(full.attach(loaded.model, full.Config(embeddings=False), loaded.anatomy), loaded.anatomy)

    assert every.trainable == every.total
    assert spared.trainable == every.total - every.embedding
    assert every.embedding > 0


def test_projections_that_are_not_shipped_are_drawn_again_from_their_seed(
    tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """They are most of VeRA's bytes."""
    vera, sizes = load_plugin("methods", "vera"), []
    for shipped in (True, False):
        loaded = load(tiny_encoder("bert"))
        model = vera.attach(loaded.model, vera.Config(r=64, save_projection=shipped), loaded.anatomy)
        train_a_step(model)
        sizes.append(save_trained(model, tmp_path / f"{shipped}", encoder_name="tiny"))
        bare = load(tiny_encoder("bert"), seed=99)
        fresh = load_trained(bare.model, tmp_path / f"{shipped}", partial(vera.attach, anatomy=bare.anatomy))
        with torch.inference_mode():
            assert torch.equal(model(**batch()).logits, fresh(**batch()).logits)

    # Two matrices of 64 x 64 in fp32.
    assert sizes[0] - sizes[1] > 30_000


@pytest.mark.parametrize("init", ["gaussian", "pissa", "olora", "orthogonal"])
def test_lora_starts_reload_whatever_their_init(init: str, tiny_encoder: Callable[..., Path], tmp_path: Path) -> None:
    """PiSSA and OLoRA change the frozen weight; the reloaded model has the same logits all the same."""
    config = lora.Config.model_validate({"init": init})
    loaded = load(tiny_encoder("bert"), pooling="native")
    model = lora.attach(loaded.model, config, loaded.anatomy)
    for _ in range(3):
        train_a_step(model)
    save_trained(model, tmp_path / "trained", encoder_name="tiny")
    bare = load(tiny_encoder("bert"), seed=99, pooling="native")
    fresh = load_trained(bare.model, tmp_path / "trained", partial(lora.attach, config=config, anatomy=bare.anatomy))

    with torch.inference_mode():
        assert torch.allclose(model(**batch()).logits, fresh(**batch()).logits, atol=1e-6)


@pytest.mark.parametrize("name", ["lora", "layernorm", "ia3", "prefix"])
def test_an_adapter_loads_with_plain_peft(name: str, tiny_encoder: Callable[..., Path], tmp_path: Path) -> None:
    """What is shipped is peft's own format: `PeftModel.from_pretrained` on a plain transformers model."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    method, loaded = load_plugin("methods", name), load(tiny_encoder("bert"), pooling="native")
    model = method.attach(loaded.model, method.Config(), loaded.anatomy)
    train_a_step(model)
    save_trained(model, tmp_path / "trained", encoder_name="tiny")
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_encoder("bert"), num_labels=LABELS)
    fresh = PeftModel.from_pretrained(plain, tmp_path / "trained").eval()

    with torch.inference_mode():
        assert torch.equal(model(**batch()).logits, fresh(**batch()).logits)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "albert"])
def test_lora_on_embeddings_starts_at_the_encoder_moves_seen_tokens_and_merges(
    architecture: str, tiny_encoder: Callable[..., Path]
) -> None:
    """A token that no training row has keeps its embedding; the table's B starts as wide as embeddings are."""
    loaded = load(tiny_encoder(architecture))
    seen = batch()["input_ids"][batch()["attention_mask"] == 1]
    with torch.inference_mode():
        before = loaded.model(**batch()).logits
    model = lora.attach(loaded.model, lora.Config(dropout=0.0, embeddings=True), loaded.anatomy)
    named = {name: parameter for name, parameter in model.named_parameters() if ".lora_embedding_" in name}
    columns = next(parameter for name, parameter in named.items() if "_A." in name)
    directions = next(parameter for name, parameter in named.items() if "_B." in name)
    with torch.inference_mode():
        assert torch.equal(model(**batch()).logits, before)
    assert float(directions.detach().std()) == pytest.approx(len(directions) ** -0.5, rel=0.2)

    for _ in range(2):
        train_a_step(model)
    moved = columns.abs().sum(0) > 0
    assert set(moved.nonzero().flatten().tolist()) == set(seen.unique().tolist())
    with torch.inference_mode():
        trained = model(**batch()).logits
        assert not torch.allclose(trained, before)
        assert torch.allclose(merge(model)(**batch()).logits, trained, atol=1e-5)


@pytest.mark.parametrize("other", [{"dora": True}, {"init": "pissa"}])
def test_lora_on_embeddings_refuses_what_it_does_not_go_with(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="without dora; remove it, or these"):
        lora.Config.model_validate({**other, "embeddings": True})


def test_lora_on_embeddings_that_are_an_output_layer_too_is_refused() -> None:
    anatomy = Anatomy("bert", "encoder", ("encoder.embeddings.word_embeddings",), (), (), decoder="decoder")
    with pytest.raises(EncoderError, match=r"method\.embeddings: the embeddings are the decoder's output layer too"):
        word_table(anatomy)
