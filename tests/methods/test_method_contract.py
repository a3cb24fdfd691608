"""What every method that attaches to an encoder promises; each file in peftlab/methods/ is found by itself.

The matrix is every method on every encoder type. Where a method cannot work, it must refuse, and what it refuses stands
in `REFUSED`: nothing is left out in silence.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from peftlab.encoders.load import HeadShape, LoadedEncoder, load_classifier
from peftlab.encoders.merging import CannotMerge, merge
from peftlab.encoders.saved import load_trained, save_trained
from peftlab.encoders.shape import shape_of
from peftlab.encoders.trainable import count_parameters, trained_parameters, without_adapters
from peftlab.errors import EncoderError, RecipeError
from peftlab.recipe.load import read_recipe
from peftlab.recipe.plugins import load_plugin, plugin_names
from peftlab.recipe.records import Encoder

MODEL_TYPES = ("bert", "roberta", "distilbert", "albert", "electra")
ATTACHING = tuple(name for name in plugin_names("methods") if load_plugin("methods", name).NEEDS_ENCODER)
LABELS = 3

# Everything that is refused: (method, what of the encoder) and a part of the sentence.
REFUSED = {
    ("prefix", "distilbert"): "takes no keys and values from outside",
    ("prefix", "albert"): "takes no keys and values from outside",
    ("top_layers", "albert"): "shares one set of weights between its layers",
    ("prompt", "native"): "puts virtual tokens in front of the text, where bert's own head reads",
    ("ptuning", "native"): "puts virtual tokens in front of the text, where bert's own head reads",
    ("bitfit", "bf16"): "bitfit needs an encoder in fp32",
    ("layernorm", "bf16"): "layernorm needs an encoder in fp32",
}
# A reload of these repeats the arithmetic of a small network in another shape of batch, so that last bits may differ.
NOT_TO_THE_BIT = {"ptuning": 1e-6}


def test_the_methods_are_found() -> None:
    """The matrix below is not empty, and names what the package is known to have."""
    assert {"lora", "full", "head", "probe", "bitfit", "prefix", "vera"} <= set(ATTACHING)
    assert "tfidf" in plugin_names("methods")


def test_what_is_refused_names_methods_that_exist() -> None:
    """A row of the table that no test reads would hide a gap."""
    assert {name for name, _ in REFUSED} <= set(ATTACHING)
    assert {what for _, what in REFUSED} <= {*MODEL_TYPES, "native", "bf16"}


def load(folder: Path, *, seed: int = 0, pooling: str = "mean", dtype: str = "fp32") -> LoadedEncoder:
    """Load the tiny encoder under a fresh head."""
    torch.manual_seed(seed)
    encoder = Encoder.model_validate({"name": str(folder), "pooling": pooling, "dtype": dtype})
    return load_classifier(encoder, folder, HeadShape(LABELS, dropout=0.1))


def batch(padding: int = 0) -> dict[str, torch.Tensor]:
    """Return a padded batch of four short texts; `padding` is the encoder's padding token."""
    ids = torch.tensor([[2, 9, 12, 30, 3], [2, 40, 3, 0, 0], [2, 17, 21, 3, 0], [2, 8, 7, 6, 3]])
    mask = (ids != 0).long()
    return {"input_ids": ids.masked_fill(mask == 0, padding), "attention_mask": mask}


TARGETS = torch.tensor([0, 1, 2, 0])


def logits_of(model: torch.nn.Module) -> torch.Tensor:
    """Return the logits of the batch, without dropout."""
    model.eval()
    with torch.inference_mode():
        logits: torch.Tensor = model(**batch()).logits
    return logits


def train_three_steps(model: torch.nn.Module) -> None:
    """Take three optimizer steps on a fixed batch."""
    optimizer = torch.optim.AdamW(trained_parameters(model).values(), lr=1e-2)
    model.train()
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model(**batch()).logits.float(), TARGETS)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def plain_name(name: str) -> str:
    """Return a parameter's name without what peft puts around it."""
    for inserted in ("base_model.model.", "modules_to_save.default.", "original_module.", "base_layer."):
        name = name.replace(inserted, "")
    return name.removeprefix("base_model.")  # peft wraps nothing inside a model with virtual tokens


@dataclass(frozen=True)
class Case:
    """One method, trained for three steps on one encoder. `before` and `started`: parameters by name, by then."""

    name: str
    method: ModuleType
    fresh: Callable[[int], LoadedEncoder]
    loaded: LoadedEncoder
    model: torch.nn.Module
    before: dict[str, torch.Tensor]
    started: dict[str, torch.Tensor]
    bare_logits: torch.Tensor
    first_logits: torch.Tensor
    logits: torch.Tensor
    folder: Path

    def attach(self, encoder: LoadedEncoder) -> Callable[[torch.nn.Module], torch.nn.Module]:
        """Return the method with its default settings."""
        return partial(self.method.attach, config=self.method.Config(), anatomy=encoder.anatomy)

    def reloaded(self, seed: int = 99) -> torch.nn.Module:
        """Return what was saved, in a fresh encoder whose head is drawn from another seed."""
        bare = self.fresh(seed)
        return load_trained(bare.model, self.folder, self.attach(bare))


def copies(tiny_encoder: Callable[..., Path]) -> Callable[..., LoadedEncoder]:
    """Return a loader that reads each encoder once and gives copies of it."""
    kept: dict[tuple[Any, ...], LoadedEncoder] = {}

    def fresh(model_type: str, seed: int = 0, **options: str) -> LoadedEncoder:
        key = (model_type, seed, *options.items())
        if key not in kept:
            kept[key] = load(tiny_encoder(model_type), seed=seed, **options)
        return copy.deepcopy(kept[key])

    return fresh


@pytest.fixture(scope="module")
def encoders(tiny_encoder: Callable[..., Path]) -> Callable[..., LoadedEncoder]:
    """Return `make(model_type, seed, pooling, dtype)`: a copy of a tiny encoder under a fresh head."""
    return copies(tiny_encoder)


WORKING = [(name, kind) for name in ATTACHING for kind in MODEL_TYPES if (name, kind) not in REFUSED]


@pytest.fixture(scope="module", params=WORKING, ids=["-".join(pair) for pair in WORKING])
def case(
    request: pytest.FixtureRequest,
    encoders: Callable[..., LoadedEncoder],
    tmp_path_factory: pytest.TempPathFactory,
) -> Case:
    """Give each method on each encoder it works on, trained and saved once for all the tests that look at it."""
    name, model_type = request.param
    pooling = "mean" if (name, "native") in REFUSED else "native"
    method = load_plugin("methods", name)
    loaded = encoders(model_type, pooling=pooling)
    before = {key: parameter.detach().clone() for key, parameter in loaded.model.named_parameters()}
    bare_logits = logits_of(loaded.model)
    torch.manual_seed(1)
    model = method.attach(loaded.model, method.Config(), loaded.anatomy)
    started = {key: parameter.detach().clone() for key, parameter in trained_parameters(model).items()}
    first_logits = logits_of(model)
    train_three_steps(model)
    folder = tmp_path_factory.mktemp("case") / "trained"
    save_trained(model, folder, encoder_name="tiny")
    return Case(
        name=name,
        method=method,
        fresh=partial(encoders, model_type, pooling=pooling),
        loaded=loaded,
        model=model,
        before=before,
        started=started,
        bare_logits=bare_logits,
        first_logits=first_logits,
        logits=logits_of(model),
        folder=folder,
    )


def test_only_the_methods_own_parameters_and_new_modules_are_trained(case: Case) -> None:
    """Weights of the checkpoint are bit-identical after training unless the method trains the encoder."""
    model, anatomy = case.model, case.loaded.anatomy
    trained = trained_parameters(model)
    frozen = {name: parameter for name, parameter in model.named_parameters() if not parameter.requires_grad}
    kept = {name for name in frozen if plain_name(name) in case.before and ".original_module." not in name}

    assert all(parameter.dtype == torch.float32 for parameter in trained.values())
    for name in kept:
        assert torch.equal(frozen[name], case.before[plain_name(name)]), name
    if not case.method.TRAINS_ENCODER:
        own = {name for name in case.before if not anatomy.is_new(name)}
        assert own <= {plain_name(name) for name in kept}, "every weight of the checkpoint is still there, and frozen"
    moved = {name for name, parameter in trained.items() if not torch.equal(parameter, case.started[name])}
    untouched = {plain_name(name) for name in case.started.keys() - moved}
    assert not {name for name in untouched if anatomy.is_new(name)}, "every new module learns"
    if case.method.TRAINS_ENCODER:
        assert any(name.startswith(f"{anatomy.encoder}.") for name in moved)
    elif len(case.started) > sum(anatomy.is_new(plain_name(name)) for name in case.started):
        assert any(not anatomy.is_new(plain_name(name)) for name in moved), "what the method adds learns"


def test_training_starts_where_the_method_says(case: Case) -> None:
    """Attaching changes no logit, or the method says that it does."""
    if case.method.STARTS_AT_ENCODER:
        assert torch.allclose(case.bare_logits, case.first_logits, atol=1e-6)
    else:
        assert not torch.equal(case.bare_logits, case.first_logits)


def test_what_is_saved_reloads_to_the_same_logits(case: Case) -> None:
    """A fresh encoder, its head drawn from another seed, gives bit-identical logits once the trained part is loaded."""
    difference = (case.logits - logits_of(case.reloaded())).abs().max()

    assert difference <= NOT_TO_THE_BIT.get(case.name, 0.0)
    assert all(path.suffix in {".safetensors", ".json"} for path in case.folder.iterdir())


def test_merging_keeps_the_logits_or_is_refused(case: Case) -> None:
    """A merged model is the plain architecture, without peft, and predicts the same."""
    from peft import PeftModel

    if not case.method.MERGES:
        with pytest.raises(CannotMerge, match=r"\w+ \w+"):
            merge(case.model)
        return
    merged = merge(case.model)

    assert not isinstance(merged, PeftModel)
    assert {plain_name(name) for name, _ in merged.named_parameters()} == set(case.before)
    assert torch.allclose(case.logits, logits_of(merged), atol=1e-5)


def test_two_trained_parts_switch_on_one_encoder_without_leaking(case: Case, tmp_path: Path) -> None:
    """Each gives its own logits whatever was active before; peft's own parts keep both, others are loaded in turn."""
    from peft import PeftModel

    second = copy.deepcopy(case.model)
    train_three_steps(second)
    save_trained(second, tmp_path / "second", encoder_name="tiny")
    expected = {"first": case.logits, "second": logits_of(second)}
    assert not torch.equal(expected["first"], expected["second"])
    model: Any = case.reloaded()
    if isinstance(model, PeftModel):
        model.load_adapter(str(tmp_path / "second"), "second")

    for name in ("second", "first", "second"):
        if isinstance(model, PeftModel):
            model.set_adapter("default" if name == "first" else name)
        else:
            folder = case.folder if name == "first" else tmp_path / "second"
            model = load_trained(model, folder, case.attach(case.loaded))
        difference = (logits_of(model) - expected[name]).abs().max()
        assert difference <= NOT_TO_THE_BIT.get(case.name, 0.0), name


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("name", ATTACHING)
def test_parameter_counts_are_the_closed_form(
    name: str, model_type: str, encoders: Callable[..., LoadedEncoder]
) -> None:
    """Under a linear head on pooled embeddings; or the method refuses this encoder with its sentence."""
    method, loaded = load_plugin("methods", name), encoders(model_type)
    if sentence := REFUSED.get((name, model_type)):
        with pytest.raises(EncoderError, match=sentence):
            method.attach(loaded.model, method.Config(), loaded.anatomy)
        return
    shape = shape_of(loaded.model.config)
    bare = sum(parameter.numel() for parameter in loaded.model.parameters())
    head = (shape.hidden + 1) * LABELS
    expected = method.trainable_parameters(method.Config(), shape)
    counts = count_parameters(method.attach(loaded.model, method.Config(), loaded.anatomy), loaded.anatomy)

    assert counts.trainable == expected + head
    assert counts.total == bare + (0 if method.TRAINS_ENCODER else expected)
    assert counts.embedding == shape.tables


@pytest.mark.parametrize("pooling", ["native", "mean", "cls"])
@pytest.mark.parametrize("name", ATTACHING)
def test_a_bf16_encoder_keeps_what_is_trained_in_fp32_and_reloads_exactly(
    name: str, pooling: str, encoders: Callable[..., LoadedEncoder], tmp_path: Path
) -> None:
    """What is trained takes bf16 activations, trains in fp32, and is not rounded on the way to disk and back."""
    method, loaded = load_plugin("methods", name), encoders("bert", pooling=pooling, dtype="bf16")
    if sentence := REFUSED.get((name, "bf16")) or REFUSED.get((name, pooling)):
        with pytest.raises(EncoderError, match=sentence):
            method.attach(loaded.model, method.Config(), loaded.anatomy)
        return
    model = method.attach(loaded.model, method.Config(), loaded.anatomy)
    train_three_steps(model)
    save_trained(model, tmp_path / "trained", encoder_name="tiny")
    bare = encoders("bert", 99, pooling=pooling, dtype="bf16")
    attach = partial(method.attach, config=method.Config(), anatomy=bare.anatomy)
    fresh = load_trained(bare.model, tmp_path / "trained", attach)

    assert {parameter.dtype for parameter in trained_parameters(model).values()} == {torch.float32}
    assert (logits_of(model) - logits_of(fresh)).abs().max() <= NOT_TO_THE_BIT.get(name, 0.0)


@pytest.mark.parametrize("name", ATTACHING)
def test_gradients_of_two_forward_passes_are_those_of_one(name: str, encoders: Callable[..., LoadedEncoder]) -> None:
    """So that accumulation trains as a large batch does: nothing in the method keeps state from pass to pass."""
    method, loaded = load_plugin("methods", name), encoders("bert")
    model = method.attach(loaded.model, method.Config(), loaded.anatomy).eval()

    def gradients(parts: list[slice]) -> list[torch.Tensor]:
        model.zero_grad()
        for part in parts:
            rows = {key: tensor[part] for key, tensor in batch().items()}
            torch.nn.functional.cross_entropy(model(**rows).logits, TARGETS[part], reduction="sum").backward()
        return [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
            for parameter in trained_parameters(model).values()
        ]

    for one, two in zip(gradients([slice(0, 4)]), gradients([slice(0, 2), slice(2, 4)]), strict=True):
        assert torch.allclose(one, two, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ATTACHING)
def test_every_setting_of_the_wrong_kind_is_refused_with_its_key(name: str, tmp_path: Path) -> None:
    """All at once, and a key that does not exist too; the place is the line in the recipe."""
    keys = (*load_plugin("methods", name).Config.model_fields, "no_such_setting")
    wrong = "".join(f"{key} = {{ wrong = 1 }}\n" for key in keys)
    path = tmp_path / "wrong.toml"
    path.write_text(
        '[encoder]\nname = "x"\n[task]\nname = "classification"\n[data]\nsource = "builtin:tickets-en"\n'
        f'[method]\nname = "{name}"\n{wrong}',
        encoding="utf-8",
    )
    with pytest.raises(RecipeError) as refused:
        read_recipe(path)

    assert [mistake.key for mistake in refused.value.mistakes] == [f"method.{key}" for key in keys]
    assert [mistake.line for mistake in refused.value.mistakes] == list(range(9, 9 + len(keys)))
    assert all("expected" in str(mistake) for mistake in refused.value.mistakes[:-1])


@pytest.mark.parametrize("pooling", ["native", "mean"])
@pytest.mark.parametrize("name", ATTACHING)
def test_a_pooler_that_the_checkpoint_lacks_is_trained_and_saved(
    name: str, pooling: str, poolerless: Callable[..., LoadedEncoder], tmp_path: Path
) -> None:
    """Left alone it would be random again after a reload, and the predictions with it (peft issue 2171)."""
    method, loaded = load_plugin("methods", name), poolerless("bert", pooling=pooling)
    assert ("bert.pooler.dense" in loaded.anatomy.new_modules) == (pooling == "native")
    if (name, pooling) in REFUSED:
        return  # tested above
    model = method.attach(loaded.model, method.Config(), loaded.anatomy)
    train_three_steps(model)
    save_trained(model, tmp_path / "trained", encoder_name="tiny")
    bare = poolerless("bert", 99, pooling=pooling)
    attach = partial(method.attach, config=method.Config(), anatomy=bare.anatomy)
    fresh = load_trained(bare.model, tmp_path / "trained", attach)

    assert (logits_of(model) - logits_of(fresh)).abs().max() <= NOT_TO_THE_BIT.get(name, 0.0)


@pytest.fixture(scope="module")
def poolerless(
    tiny_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., LoadedEncoder]:
    """Return `encoders` for a checkpoint whose pooler is missing."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("poolerless")
    for path in tiny_encoder("bert").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = {name: value for name, value in load_file(folder / "model.safetensors").items() if "pooler" not in name}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return copies(lambda _: folder)


@pytest.mark.parametrize("name", ATTACHING)
def test_a_pass_without_the_adapters_is_the_frozen_encoders_and_leaves_them_as_they_were(
    name: str, encoders: Callable[..., LoadedEncoder]
) -> None:
    """The start of a head from a probe rests on it: the same for every method, and no gradient switched on by it."""
    loaded, method = encoders("bert"), load_plugin("methods", name)
    states = bare_states(loaded.model)
    model = method.attach(loaded.model, method.Config(), loaded.anatomy)
    before, trained = logits_of(model), [parameter.requires_grad for parameter in model.parameters()]

    with without_adapters(model):
        wrapped: Any = model
        assert torch.equal(
            bare_states(wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else model), states
        )

    assert [parameter.requires_grad for parameter in model.parameters()] == trained
    assert torch.equal(logits_of(model), before)


def bare_states(model: Any) -> torch.Tensor:
    """Return what the encoder of a pooled classifier gives for the batch."""
    model.eval()
    with torch.inference_mode():
        states: torch.Tensor = model.encoder(**batch()).last_hidden_state
    return states
