"""Several trained parts on one encoder: each computes what it computes alone, and none leaves a trace."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch

from peftlab.encoders.load import HeadShape, LoadedEncoder, Pooling, around, load_classifier
from peftlab.encoders.mixed import MIXING, can_mix, mixed_logits
from peftlab.encoders.saved import load_trained, save_trained
from peftlab.encoders.several import SharedEncoder
from peftlab.encoders.trainable import trained_parameters
from peftlab.errors import EncoderError, RunError
from peftlab.methods import full, head, lora
from peftlab.recipe.plugins import load_plugin, plugin_names
from peftlab.recipe.records import Encoder, Record

# Every method that attaches to an encoder and leaves its weights alone; found by itself.
SHARING = tuple(
    name
    for name in plugin_names("methods")
    if load_plugin("methods", name).NEEDS_ENCODER and not load_plugin("methods", name).TRAINS_ENCODER
)


@dataclass(frozen=True)
class Trained:
    """A trained part on disk, how to attach it, and the logits that it gives alone."""

    folder: Path
    head: HeadShape
    pooling: Pooling
    attach: Callable[..., torch.nn.Module]
    logits: torch.Tensor


def settings(pooling: str, load_in: str = "full", dtype: str = "fp32") -> Encoder:
    """Return an [encoder] section."""
    return Encoder.model_validate({"name": "x", "pooling": pooling, "load_in": load_in, "dtype": dtype})


def load(folder: Path, encoder: Encoder, labels: int, seed: int = 0) -> LoadedEncoder:
    """Load the encoder under a fresh head."""
    torch.manual_seed(seed)
    return load_classifier(encoder, folder, HeadShape(labels, 0.1), device=torch.device("cpu"))


def logits(model: torch.nn.Module) -> torch.Tensor:
    """Return the logits of a padded batch of two texts."""
    ids = torch.tensor([[2, 9, 12, 30, 3], [2, 40, 3, 0, 0]])
    model.eval()
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=(ids != 0).long()).logits.clone()  # type: ignore[no-any-return]


def trained(
    encoder_folder: Path, encoder: Encoder, method: ModuleType, labels: int, folder: Path, config: Record | None = None
) -> Trained:
    """Attach a method, give what it trains other values, save it, and load it alone."""
    chosen = config if config is not None else method.Config()

    def attach(model: torch.nn.Module, anatomy: object) -> torch.nn.Module:
        attached: torch.nn.Module = method.attach(model, chosen, anatomy)
        return attached

    loaded = load(encoder_folder, encoder, labels, seed=labels)
    model = attach(loaded.model, loaded.anatomy)
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    save_trained(model, folder, encoder_name="tiny")
    bare = load(encoder_folder, encoder, labels, seed=99)
    alone = load_trained(bare.model, folder, lambda given: attach(given, bare.anatomy))
    return Trained(folder, HeadShape(labels, 0.1), bare.pooling, attach, logits(alone))


def shared(folder: Path, encoder: Encoder) -> SharedEncoder:
    """Return the encoder without any trained part."""
    return SharedEncoder(load(folder, encoder, 2, seed=7), encoder)


def add(to: SharedEncoder, name: str, part: Trained) -> None:
    """Add a trained part."""
    to.add(name, part.folder, lambda own, kind: around(own, kind, part.head, part.pooling), part.attach)


def body_state(to: SharedEncoder) -> dict[str, torch.Tensor]:
    """Return the weights of the bare encoder."""
    return {name: value.clone() for name, value in to.use(None).state_dict().items()}


@pytest.mark.parametrize("method", SHARING)
@pytest.mark.parametrize(("model_type", "pooling"), [("bert", "mean"), ("roberta", "cls")])
def test_two_parts_of_a_method_with_other_label_counts_switch_without_a_trace(
    method: str, model_type: str, pooling: str, tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Back and forth, to the same bits as alone; the bare encoder in between is the bare encoder."""
    plugin, encoder, folder = load_plugin("methods", method), settings(pooling), tiny_encoder(model_type)
    parts = {str(labels): trained(folder, encoder, plugin, labels, tmp_path / str(labels)) for labels in (3, 5)}
    one = shared(folder, encoder)
    bare, modules = body_state(one), [id(module) for module in one.use(None).modules()]
    for name, part in parts.items():
        add(one, name, part)

    for name in ("3", "5", "3", "3", "5"):
        assert torch.equal(logits(one.use(name)), parts[name].logits), name
    after = body_state(one)
    assert after.keys() == bare.keys()
    assert all(torch.equal(value, after[name]) for name, value in bare.items())
    assert [id(module) for module in one.use(None).modules()] == modules


@pytest.mark.parametrize("load_in", ["full", "int8", "nf4"])
def test_parts_of_different_methods_share_an_encoder(
    load_in: str, tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """LoRA of two ranks, DoRA and a head, in mean and first-token pooling, also on quantised weights."""
    if load_in != "full":
        pytest.importorskip("bitsandbytes", reason="absent: bitsandbytes")
    folder, mean, cls = tiny_encoder(), settings("mean", load_in), settings("cls", load_in)
    parts = {
        "r8": trained(folder, mean, lora, 3, tmp_path / "r8"),
        "r2": trained(folder, cls, lora, 4, tmp_path / "r2", lora.Config(r=2, target_modules=("query",))),
        "dora": trained(folder, mean, lora, 2, tmp_path / "dora", lora.Config(dora=True)),
        "head": trained(folder, mean, head, 7, tmp_path / "head"),
    }
    one = shared(folder, mean)
    for name, part in parts.items():
        add(one, name, part)

    for name in ("head", "dora", "r8", "r2", "head", "r2", "dora"):
        assert torch.equal(logits(one.use(name)), parts[name].logits), name


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "albert", "electra"])
def test_an_architectures_own_head_is_each_parts_own(
    model_type: str, tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """With its pre-classifier or dense layer, whatever the number of labels."""
    folder, encoder = tiny_encoder(model_type), settings("native")
    parts = {
        str(labels): trained(folder, encoder, method, labels, tmp_path / str(labels))
        for labels, method in ((3, lora), (5, lora), (4, head))
    }
    one = shared(folder, encoder)
    for name, part in parts.items():
        add(one, name, part)

    for name in ("4", "3", "5", "4", "5"):
        assert torch.equal(logits(one.use(name)), parts[name].logits), name


# For each method that may be mixed: parts of different ranks, scalings, target modules and label counts.
MIXED = {
    "LORA": [
        (3, lora.Config()),
        (5, lora.Config(r=2, alpha=8.0, target_modules=("query", "ffn_out"))),
        (2, lora.Config(r=4, rslora=True, layers=(-1,))),
    ]
}


@pytest.mark.parametrize("method", MIXING)
@pytest.mark.parametrize("load_in", ["full", "int8", "nf4"])
def test_rows_of_several_parts_in_one_forward_pass_have_the_logits_of_their_own_part(
    load_in: str, method: str, tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Every entry of the list of methods that may be mixed, in both poolings, to 1e-5."""
    if load_in != "full":
        pytest.importorskip("bitsandbytes", reason="absent: bitsandbytes")
    folder, one = tiny_encoder(), shared(tiny_encoder(), settings("mean", load_in))
    parts = {}
    for (labels, config), pooling in zip(MIXED[method], ("mean", "cls", "mean"), strict=True):
        parts[str(labels)] = trained(folder, settings(pooling, load_in), lora, labels, tmp_path / str(labels), config)
        add(one, str(labels), parts[str(labels)])
    names = ("5", "3", "2")
    order = [2, 0, 1, 1, 0, 2]
    ids = torch.tensor([[2, 9, 12, 30, 3], [2, 40, 3, 0, 0]]).repeat_interleave(3, dim=0)
    batch = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    assert all(can_mix(one.part(name)) for name in names)
    with torch.inference_mode():
        given = mixed_logits(one.mixed(names), [one.part(name) for name in names], order, batch)

    for place, (number, values) in enumerate(zip(order, given, strict=True)):
        assert torch.allclose(values, parts[names[number]].logits[place // 3], rtol=0, atol=1e-5)
    assert torch.equal(logits(one.use("5")), parts["5"].logits)
    with torch.inference_mode():
        again = mixed_logits(one.mixed(("3", "5")), [one.part("3"), one.part("5")], [0, 1, 0, 1, 1, 0], batch)
    assert torch.allclose(again[4], parts["5"].logits[1], rtol=0, atol=1e-5)
    one.remove("3")
    with pytest.raises(RunError, match="there is no adapter named '3'"):
        one.mixed(("3", "5"))


def test_only_plain_lora_under_a_pooled_head_is_mixed(tiny_encoder: Callable[..., Path], tmp_path: Path) -> None:
    """DoRA, other methods and an architecture's own head go one part at a time."""
    folder = tiny_encoder()
    for pooling, method, config in (
        ("mean", lora, lora.Config(dora=True)),
        ("mean", head, head.Config()),
        ("native", lora, lora.Config()),
    ):
        one, encoder = shared(folder, settings(pooling)), settings(pooling)
        path = tmp_path / f"{pooling}-{method.__name__}"
        shutil.rmtree(path, ignore_errors=True)
        add(one, "part", trained(folder, encoder, method, 3, path, config))
        assert not can_mix(one.part("part"))


def test_a_pooler_that_the_checkpoint_lacks_is_each_parts_own(
    tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """It stands inside the encoder, and every part has trained it."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "encoder"
    folder.mkdir()
    for path in tiny_encoder().iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = {name: value for name, value in load_file(folder / "model.safetensors").items() if "pooler" not in name}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    encoder = settings("native", dtype="bf16")
    parts = {
        name: trained(folder, encoder, method, labels, tmp_path / name)
        for name, method, labels in (("a", lora, 3), ("b", head, 4), ("c", head, 3))
    }
    one = shared(folder, encoder)
    for name, part in parts.items():
        add(one, name, part)

    for name in ("a", "b", "c", "b", "a"):
        assert torch.equal(logits(one.use(name)), parts[name].logits), name


def test_parts_come_and_go_and_the_encoder_is_in_memory_once(tiny_encoder: Callable[..., Path], tmp_path: Path) -> None:
    """Added after others were used, removed while in use, added again under the same name."""
    folder, encoder = tiny_encoder(), settings("mean")
    first, second = (trained(folder, encoder, lora, labels, tmp_path / str(labels)) for labels in (3, 5))
    one = shared(folder, encoder)
    add(one, "a", first)
    assert torch.equal(logits(one.use("a")), first.logits)
    add(one, "b", second)
    assert torch.equal(logits(one.use("b")), second.logits)
    one.remove("b")
    assert one.names == ("a",)
    assert torch.equal(logits(one.use("a")), first.logits)
    add(one, "b", first)
    assert torch.equal(logits(one.use("b")), first.logits)

    def frozen(name: str) -> set[int]:
        model = one.use(name)
        return {
            parameter.data_ptr()
            for path, parameter in model.named_parameters()
            if "lora_" not in path and "classifier" not in path
        }

    assert frozen("a") == frozen("b")
    assert len(frozen("a")) == len(list(one.use(None).parameters()))


def test_what_cannot_be_shared_is_refused_and_leaves_no_trace(
    tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Full fine-tuning, starts that change the frozen weights, another head, a taken or unknown name."""
    folder, encoder = tiny_encoder(), settings("mean")
    good = trained(folder, encoder, lora, 3, tmp_path / "good")
    one = shared(folder, encoder)
    bare = body_state(one)
    add(one, "good", good)
    with pytest.raises(RunError, match="holds 100% of the encoder's parameters"):
        add(one, "full", trained(folder, encoder, full, 3, tmp_path / "full"))
    for init in ("pissa", "olora"):
        part = trained(folder, encoder, lora, 3, tmp_path / init, lora.Config.model_validate({"init": init}))
        with pytest.raises(RunError, match="changes 12 of the encoder's own weights"):
            add(one, init, part)
    with pytest.raises(EncoderError, match="'native' shares an encoder only with 'native'"):
        add(one, "native", trained(folder, settings("native"), lora, 3, tmp_path / "native"))
    with pytest.raises(RunError, match="there is an adapter named 'good' already"):
        add(one, "good", good)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="holds no trained part"):
        one.add("empty", tmp_path / "empty", lambda own, kind: around(own, kind, good.head, good.pooling), good.attach)
    for ask in (one.use, one.remove):
        with pytest.raises(RunError, match="there is no adapter named 'gone'; there are: 'good'"):
            ask("gone")

    assert one.names == ("good",)
    after = body_state(one)
    assert all(torch.equal(value, after[name]) for name, value in bare.items())
    assert torch.equal(logits(one.use("good")), good.logits)


def test_peft_alone_would_load_a_head_of_the_wrong_size_untrained(
    tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Why this module exists: with a later peft that can, it may go."""
    from peft import PeftModel

    folder, encoder = tiny_encoder(), settings("mean")
    first, second = (trained(folder, encoder, lora, labels, tmp_path / str(labels)) for labels in (3, 5))
    model = PeftModel.from_pretrained(load(folder, encoder, 3).model, str(first.folder), adapter_name="a")

    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_adapter(str(second.folder), adapter_name="b")
