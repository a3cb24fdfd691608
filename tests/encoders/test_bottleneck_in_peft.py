"""Bottleneck adapters within peft: the equations, several adapters, saving, mixed batches, and what cannot be done."""

from __future__ import annotations

import copy
import gc
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn

from peftlab.encoders.bottleneck import BottleneckConfig, BottleneckLayer, register_bottleneck
from peftlab.encoders.pooled import PooledClassifier
from peftlab.encoders.saved import load_trained
from peftlab.errors import EncoderError, RunError

MODEL_TYPES = ("bert", "roberta", "distilbert", "albert", "electra")
PLACEMENTS = ("houlsby", "pfeiffer", "parallel")
IDS = torch.tensor([[2, 9, 12, 30, 3], [2, 40, 3, 0, 0], [2, 17, 21, 3, 0], [2, 8, 7, 6, 3]])
BATCH = {"input_ids": IDS, "attention_mask": (IDS != 0).long()}

Encoders = Callable[..., Path]


def load(folder: Path, task: str = "SEQ_CLS") -> Any:
    """Load the tiny encoder under a head for three labels, always with the same weights."""
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification

    torch.manual_seed(0)
    if task == "pooled":
        return PooledClassifier(AutoModel.from_pretrained(folder), "mean", 3, 0.0).eval()
    kind = AutoModelForTokenClassification if task == "TOKEN_CLS" else AutoModelForSequenceClassification
    return kind.from_pretrained(folder, num_labels=3).eval()


def config(placement: str, task: str = "SEQ_CLS", **settings: Any) -> BottleneckConfig:
    """Return the settings of an adapter of 4 units."""
    return BottleneckConfig(
        task_type="SEQ_CLS" if task == "pooled" else task,
        size=settings.pop("size", 4),
        placement=cast(Any, placement),
        modules_to_save=["classifier"],
        **settings,
    )


def scatter(model: nn.Module, seed: int) -> None:
    """Give what is trained random values, as if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def adapted(folder: Path, placement: str, task: str = "SEQ_CLS", seed: int = 1, **settings: Any) -> Any:
    """Return an encoder with an adapter that changes its logits."""
    model = get_peft_model(load(folder, task), config(placement, task, **settings))
    scatter(model, seed)
    return model.eval()


def with_two(folder: Path, task: str, first: str, second: str) -> Any:
    """Return an encoder with the adapters `one` and `two`, of these placements, `one` active."""
    model = get_peft_model(load(folder, task), config(first, task), adapter_name="one")
    scatter(model, 1)
    model.add_adapter("two", config(second, task, size=6))
    model.set_adapter("two")
    scatter(model, 2)
    model.set_adapter("one")
    return model.eval()


def logits(model: Any, **options: Any) -> Tensor:
    """Return the logits of the batch."""
    with torch.inference_mode():
        found: Tensor = model(**BATCH, **options).logits
    return found


def layers(model: nn.Module) -> list[BottleneckLayer]:
    """Return the layers that hold adapters."""
    return [module for module in model.modules() if isinstance(module, BottleneckLayer)]


# The equations ---------------------------------------------------------------------------------------------------


def reference(base: Any, model: Any) -> None:
    """Rewrite the plain encoder `base` to compute what the adapters of `model` promise, each architecture its own way.

    A parallel adapter is put where the architecture has the network's input in hand: beside DistilBERT's network and
    ALBERT's function of it, and in BERT's residual connection, which is added to the network's output.
    """
    for name, layer in model.base_model.model.named_modules():
        if not isinstance(layer, BottleneckLayer):
            continue
        settings = layer.settings["default"]
        down, up = layer.bottleneck_down["default"], layer.bottleneck_up["default"]

        def part(x: Tensor, down: Any = down, up: Any = up, scaling: Any = settings.scaling) -> Tensor:
            return cast(Tensor, scaling * up(torch.relu(down(x))))

        target = base.get_submodule(name)
        parent = base.get_submodule(name.rpartition(".")[0])
        if settings.placement != "parallel":
            target.register_forward_hook(lambda _, __, output, part=part: output + part(output))
        elif name.endswith("ffn.lin2"):
            parent.register_forward_hook(lambda _, inputs, output, part=part: output + part(inputs[0]))
        elif name.endswith("ffn_output"):
            parent.ff_chunk = beside(parent.ff_chunk, part)
        else:
            parent.register_forward_pre_hook(lambda _, inputs, part=part: (inputs[0], inputs[1] + part(inputs[1])))


def beside(network: Callable[[Tensor], Tensor], part: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the sum of both; transformers counts the arguments of such a function, so it has one."""
    return lambda x: network(x) + part(x)


def copy_heads(base: Any, model: Any) -> None:
    """Give the plain encoder the heads that `model` has trained."""
    for name, module in model.base_model.model.named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            base.set_submodule(name, copy.deepcopy(module.modules_to_save["default"]))


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_an_adapter_computes_its_equation(model_type: str, placement: str, tiny_encoder: Encoders) -> None:
    model = adapted(tiny_encoder(model_type), placement, scaling=0.5)
    base = load(tiny_encoder(model_type))
    before = logits(base)
    copy_heads(base, model)
    headed = logits(base)
    reference(base, model)

    assert (logits(model) - before).abs().max() > 1e-2
    assert (logits(model) - headed).abs().max() > 1e-3, "the adapter matters, beside the head"
    assert torch.allclose(logits(model), logits(base), atol=1e-5)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_chunks_of_the_feed_forward_network_change_nothing(placement: str, tiny_encoder: Encoders) -> None:
    """A setting of transformers: it runs that network a few tokens at a time."""
    model = adapted(tiny_encoder(), placement)
    whole = logits(model)
    for module in model.modules():
        if hasattr(module, "chunk_size_feed_forward"):
            module.chunk_size_feed_forward = 1

    assert torch.allclose(logits(model), whole, atol=1e-6)


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_gradient_checkpointing_gives_the_same_gradients(model_type: str, tiny_encoder: Encoders) -> None:
    """The network is run a second time in the backward pass, and notes its input again."""
    found = []
    for checkpointing in (False, True):
        model = adapted(tiny_encoder(model_type), "parallel")
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        if checkpointing:
            model.activation_checkpointing_enable()
        runs: list[object] = []
        layers(model)[0].register_forward_hook(lambda *_, runs=runs: runs.append(1))
        model.train()(**BATCH).logits.square().sum().backward()
        assert len(runs) == 1 + checkpointing
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
        assert all(len(layer._noted) == 0 for layer in layers(model))
    plain, checkpointed = found

    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)


# The feed-forward network's input --------------------------------------------------------------------------------


def test_a_network_that_fails_halfway_leaves_nothing_behind(tiny_encoder: Encoders) -> None:
    """Out of memory, say: the loop tries again with less, and a tensor kept alive would stand in its way."""
    model = adapted(tiny_encoder(), "parallel")
    expected = logits(model)

    def fail(*_: object) -> None:
        raise MemoryError

    failing = model.base_model.model.bert.encoder.layer[-1].intermediate.dense.register_forward_hook(fail)
    with pytest.raises(MemoryError):
        logits(model)
    failing.remove()
    gc.collect()

    assert [len(layer._noted) for layer in layers(model)] == [0, 0]
    assert torch.equal(logits(model), expected)


def test_two_threads_that_share_a_model_do_not_read_each_others_input(tiny_encoder: Encoders) -> None:
    """Both have noted their input before either goes on."""
    model = adapted(tiny_encoder(), "parallel")
    rows = [{name: value[row : row + 1] for name, value in BATCH.items()} for row in (0, 3)]
    with torch.inference_mode():
        expected = [model(**row).logits for row in rows]
    both = threading.Barrier(2)
    found: dict[int, Tensor] = {}

    def wait(*_: object) -> None:
        both.wait(timeout=30)

    for layer in model.base_model.model.bert.encoder.layer:
        layer.intermediate.dense.register_forward_hook(wait)

    def run(index: int) -> None:
        with torch.inference_mode():
            found[index] = model(**rows[index]).logits

    threads = [threading.Thread(target=run, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(torch.equal(found[index], expected[index]) for index in (0, 1))


def test_a_copy_has_its_own_adapters(tiny_encoder: Encoders) -> None:
    """Also its hooks are its own: changing the copy does not change the model it was copied from."""
    model = adapted(tiny_encoder(), "parallel")
    expected = logits(model)
    copied = copy.deepcopy(model)
    assert torch.equal(logits(copied), expected)
    scatter(copied, 5)

    assert not torch.allclose(logits(copied), expected, atol=1e-2)
    assert torch.equal(logits(model), expected)
    assert torch.equal(logits(copied), logits(copied))


def test_a_parallel_adapter_exports(tiny_encoder: Encoders) -> None:
    """What cannot be merged is exported as it is; the note between two layers is no state of the graph."""
    model = adapted(tiny_encoder(), "parallel").get_base_model()
    with torch.no_grad():
        program = torch.export.export(model, (), BATCH)
        assert torch.allclose(program.module()(**BATCH).logits, logits(model), atol=1e-6)


def test_the_last_layer_of_the_network_does_not_run_alone(tiny_encoder: Encoders) -> None:
    model = adapted(tiny_encoder(), "parallel")
    with pytest.raises(RuntimeError, match="runs within its feed-forward network"):
        layers(model)[0](torch.zeros(1, 2, 64))


# Several adapters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [("houlsby", "parallel"), ("parallel", "pfeiffer"), ("parallel",) * 2])
@pytest.mark.parametrize(
    ("model_type", "task"),
    [("bert", "SEQ_CLS"), ("distilbert", "TOKEN_CLS"), ("albert", "TOKEN_CLS"), ("bert", "pooled")],
)
def test_two_adapters_with_heads_switch_without_leaking(
    model_type: str, task: str, first: str, second: str, tiny_encoder: Encoders
) -> None:
    """Each alone, back and forth, gives what it gives on an encoder of its own; disabled, the encoder is as it was."""
    folder = tiny_encoder(model_type)
    base = logits(load(folder, task))
    alone = {
        "one": logits(adapted(folder, first, task, seed=1)),
        "two": logits(adapted(folder, second, task, seed=2, size=6)),
    }
    model = with_two(folder, task, first, second)

    assert not torch.allclose(alone["one"], alone["two"], atol=1e-2)
    for name in ("one", "two", "one", "two"):
        model.set_adapter(name)
        assert torch.equal(logits(model), alone[name])
        trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
        assert trained
        assert all(f".{name}." in key for key in trained)
    with model.disable_adapter():
        assert torch.equal(logits(model), base)
    assert torch.equal(logits(model), alone["two"])


def test_several_active_adapters_act_one_after_the_other(tiny_encoder: Encoders) -> None:
    model = with_two(tiny_encoder(), "SEQ_CLS", "pfeiffer", "pfeiffer")
    layer = layers(model)[0]
    x = torch.randn(1, 3, 64)
    with torch.inference_mode():
        found = {}
        for names in (["one"], ["one", "two"], ["two", "one"]):
            layer.set_adapter(names)
            found[tuple(names)] = layer(x)
        first = found["one",]
        second = first + layer.bottleneck_up["two"](torch.relu(layer.bottleneck_down["two"](first)))

    assert torch.allclose(found["one", "two"], second, atol=1e-6)
    assert not torch.allclose(found["two", "one"], second, atol=1e-3)


def test_a_deleted_adapter_leaves_the_other_as_it_was(tiny_encoder: Encoders) -> None:
    """The hook goes with the last adapter that reads through it."""
    model = with_two(tiny_encoder(), "SEQ_CLS", "parallel", "houlsby")
    model.set_adapter("two")
    expected = logits(model)
    model.delete_adapter("one")

    assert torch.equal(logits(model), expected)
    assert not [name for name, _ in model.named_parameters() if ".one." in name]
    assert hooks(model) == 0


def hooks(model: nn.Module) -> int:
    """Return the number of hooks before forward passes."""
    return sum(len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_unloading_gives_the_encoder_back(placement: str, tiny_encoder: Encoders) -> None:
    base = load(tiny_encoder())
    names = [name for name, _ in base.named_modules()]
    expected = logits(base)
    model = adapted(tiny_encoder(), placement).unload()
    with torch.no_grad():
        model.classifier = load(tiny_encoder()).classifier

    assert [name for name, _ in model.named_modules()] == names
    assert hooks(model) == 0
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_merging_is_refused_and_changes_nothing(placement: str, tiny_encoder: Encoders) -> None:
    model = adapted(tiny_encoder(), placement)
    expected = logits(model)
    for merge in (model.merge_and_unload, model.merge_adapter, layers(model)[0].merge):
        with pytest.raises(EncoderError, match=r"cannot be merged into the encoder: it has a non-linearity") as refusal:
            merge()
        assert "\n" not in str(refusal.value)

    assert torch.equal(logits(model), expected)


# Mixed batches ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [("houlsby", "parallel"), ("parallel", "pfeiffer")])
@pytest.mark.parametrize(("model_type", "task"), [("bert", "SEQ_CLS"), ("albert", "TOKEN_CLS"), ("electra", "pooled")])
def test_each_row_of_a_mixed_batch_takes_its_own_adapter_and_head(
    model_type: str, task: str, first: str, second: str, tiny_encoder: Encoders
) -> None:
    model = with_two(tiny_encoder(model_type), task, first, second)
    alone = {"one": logits(model), "__base__": logits(load(tiny_encoder(model_type), task))}
    model.set_adapter("two")
    alone["two"] = logits(model)
    names = ["two", "one", "__base__", "one"]
    expected = torch.stack([alone[name][row] for row, name in enumerate(names)])

    assert torch.allclose(logits(model, adapter_names=names), expected, atol=1e-5)
    assert torch.equal(logits(model), alone["two"]), "the names are of one call"


def test_a_mixed_batch_that_cannot_be_is_refused(tiny_encoder: Encoders) -> None:
    """Most methods of peft ignore `adapter_names` in silence; here it is right or refused."""
    model = with_two(tiny_encoder(), "SEQ_CLS", "houlsby", "parallel")
    with pytest.raises(ValueError, match=r"no adapter is called \['c'\]; there are \['one', 'two'\]"):
        logits(model, adapter_names=["one", "two", "c", "one"])
    with pytest.raises(ValueError, match="expected one name for each of the 4 rows, found 2"):
        logits(model, adapter_names=["one", "two"])
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        model.train()(**BATCH, adapter_names=["one"] * 4)
    roberta = with_two(tiny_encoder("roberta"), "SEQ_CLS", "houlsby", "parallel")
    with pytest.raises(TypeError, match="Mixed batching is only supported"):
        logits(roberta, adapter_names=["one", "two", "one", "two"])


# On disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(("model_type", "task"), [("roberta", "SEQ_CLS"), ("albert", "TOKEN_CLS"), ("bert", "pooled")])
def test_a_saved_adapter_loads_with_plain_peft_beside_another(
    model_type: str, task: str, placement: str, tiny_encoder: Encoders, tmp_path: Path
) -> None:
    """The two files of peft, no adapter name in them, bit-identical logits under another name."""
    folder = tiny_encoder(model_type)
    model = adapted(folder, placement, task, scaling="learned")
    expected = logits(model)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    fresh = get_peft_model(load(folder, task), config("houlsby", task), adapter_name="other")
    fresh.load_adapter(str(tmp_path), adapter_name="loaded", local_files_only=True)
    fresh.set_adapter("loaded")

    assert {path.name for path in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert torch.equal(logits(fresh.eval()), expected)
    settings = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert (settings["peft_type"], settings["placement"], settings["size"]) == ("BOTTLENECK", placement, 4)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_an_adapter_loads_as_peft_loads_without_memory_for_a_first_copy(
    placement: str, tiny_encoder: Encoders, tmp_path: Path
) -> None:
    """`low_cpu_mem_usage`; and again, to be trained further."""
    model = adapted(tiny_encoder(), placement, scaling="learned")
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    lean = PeftModel.from_pretrained(load(tiny_encoder()), str(tmp_path), low_cpu_mem_usage=True).eval()
    further = PeftModel.from_pretrained(load(tiny_encoder()), str(tmp_path), is_trainable=True).eval()

    assert torch.equal(logits(lean), logits(model))
    assert torch.equal(logits(further), logits(model))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in further.named_parameters() if parameter.requires_grad} == trained
    assert not [name for name, parameter in lean.named_parameters() if parameter.requires_grad]


PROGRAM = """
import json, sys
import torch
import peftlab.encoders.bottleneck
from peft import PeftModel, PeftType
from transformers import AutoModelForSequenceClassification
from peftlab.encoders.saved import load_trained

assert "BOTTLENECK" not in PeftType.__members__, "importing registers nothing"
encoder, adapter, inputs = sys.argv[1:]
batch = {name: torch.tensor(value) for name, value in json.loads(inputs).items()}
answers = []
for load in (lambda model: load_trained(model, __import__("pathlib").Path(adapter), None), None):
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=3).eval()
    model = load(model) if load else PeftModel.from_pretrained(model, adapter).eval()
    with torch.inference_mode():
        answers.append(model(**batch).logits.tolist())
print("ANSWERS", json.dumps(answers))
"""


@pytest.mark.slow
def test_a_saved_adapter_loads_in_a_fresh_process(tiny_encoder: Encoders, tmp_path: Path) -> None:
    """Through peftlab's loader, which registers the method, and from then on through plain peft."""
    model = adapted(tiny_encoder(), "parallel")
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    inputs = json.dumps({name: value.tolist() for name, value in BATCH.items()})
    command = [sys.executable, "-c", PROGRAM, str(tiny_encoder()), str(tmp_path), inputs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.partition("ANSWERS ")[2])
    assert answers == [logits(model).tolist()] * 2


@contextmanager
def edited(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the settings in `path`, and write them back."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    yield settings
    path.write_text(json.dumps(settings), encoding="utf-8")


def test_an_adapter_that_does_not_fit_is_refused(tiny_encoder: Encoders, tmp_path: Path) -> None:
    """A misspelt setting, and another size than the weights have."""
    adapted(tiny_encoder(), "pfeiffer").save_pretrained(tmp_path, save_embedding_layers=False)
    with edited(tmp_path / "adapter_config.json") as settings:
        settings["size"] = 5
    with pytest.raises(RunError, match="does not fit the encoder"):
        load_trained(load(tiny_encoder()), tmp_path, lambda model: model)
    with edited(tmp_path / "adapter_config.json") as settings:
        settings.update({"size": 4, "sclaing": 2.0})
    with pytest.raises(RunError, match=r"does not fit the encoder: Unexpected keyword arguments .*sclaing"):
        load_trained(load(tiny_encoder()), tmp_path, lambda model: model)


@pytest.mark.parametrize(("layers_wanted", "expected"), [("all", 24), ([*range(1, 12)], 22), ([0, -1], 4)])
def test_a_deep_encoder_gets_its_adapters_where_asked_also_after_a_reload(
    layers_wanted: Any, expected: int, tmp_path: Path
) -> None:
    """A long list is shortened by peft to endings of names, which must not match a layer without adapters."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    small = BertConfig(
        hidden_size=8, num_hidden_layers=12, num_attention_heads=1, intermediate_size=8, vocab_size=64, num_labels=3
    )
    base = BertForSequenceClassification(small).eval()
    bare = copy.deepcopy(base)
    model = get_peft_model(base, config("houlsby", layers=layers_wanted))
    scatter(model, 1)
    model.eval().save_pretrained(tmp_path, save_embedding_layers=False)
    fresh = PeftModel.from_pretrained(bare, str(tmp_path)).eval()

    assert len(layers(model)) == len(layers(fresh)) == expected
    assert torch.equal(logits(model), logits(fresh))


def test_an_int8_encoder_takes_adapters_of_every_placement(tiny_encoder: Encoders) -> None:
    """What is trained is fp32 and gets a gradient."""
    pytest.importorskip("bitsandbytes", reason="absent: bitsandbytes")
    from peftlab.encoders.load import HeadShape, load_classifier
    from peftlab.encoders.through_peft import attach_through_peft
    from peftlab.recipe.records import Encoder

    encoder = Encoder(name="x", pooling="native", load_in="int8")
    for placement in PLACEMENTS:
        loaded = load_classifier(encoder, tiny_encoder(), HeadShape(3, 0.0), device=torch.device("cpu"))
        model = attach_through_peft(loaded.model, config(placement, init="small"), loaded.anatomy)
        model(**BATCH).logits.sum().backward()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

        assert all(parameter.dtype == torch.float32 and parameter.grad is not None for parameter in trained)
        assert layers(model)[0].weight.dtype == torch.int8


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"placement": "serial"}, "placement: expected one of houlsby, pfeiffer, parallel, found 'serial'"),
        ({"non_linearity": "rleu"}, "non_linearity: expected one of relu, .*, found 'rleu'"),
        ({"init": "one"}, "init: expected one of zero, small, found 'one'"),
        ({"size": 0}, "size: expected at least 1, found 0"),
    ],
)
def test_a_config_that_means_nothing_is_refused(settings: dict[str, Any], sentence: str) -> None:
    """Before a model is changed; also when it was read from a file."""
    with pytest.raises(ValueError, match=sentence):
        BottleneckConfig(**settings)


def test_a_parallel_adapter_at_a_place_of_ones_own_needs_the_input_named(tiny_encoder: Encoders) -> None:
    place = "bert.encoder.layer.0.output.dense"
    with pytest.raises(ValueError, match=f"feed_forward_inputs: no linear layer is named .* at {place} reads"):
        get_peft_model(load(tiny_encoder()), config("parallel", target_modules=[place]))
    named = {place: "bert.encoder.layer.0.intermediate.dense"}
    by_hand = adapted(tiny_encoder(), "parallel", target_modules=[place], feed_forward_inputs=named)

    assert torch.equal(logits(by_hand), logits(adapted(tiny_encoder(), "parallel", layers=[0])))


def test_registering_is_not_needed_before_a_config() -> None:
    """A config registers the method itself, so that only loading needs the call."""
    assert config("houlsby").peft_type is register_bottleneck()
