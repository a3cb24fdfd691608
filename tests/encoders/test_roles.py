"""Linear layers by role, on every supported architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from peftlab.encoders.anatomy import Anatomy
from peftlab.encoders.load import HeadShape, LoadedEncoder, load_classifier
from peftlab.encoders.roles import GROUPS, ROLES, find_norms, find_targets, keep_layers, layer_and_module
from peftlab.errors import EncoderError
from peftlab.recipe.records import Encoder

MODEL_TYPES = ("bert", "roberta", "distilbert", "albert", "electra")


def load(folder: Path) -> LoadedEncoder:
    """Load the tiny encoder with the architecture's own head."""
    return load_classifier(Encoder(name=str(folder), pooling="native"), folder, HeadShape(2, 0.1))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_roles_part_the_linear_layers_between_them(model_type: str, tiny_encoder: Callable[..., Path]) -> None:
    """Each linear layer of the encoder has exactly one role, and the head none."""
    loaded = load(tiny_encoder(model_type))
    by_role = {role: find_targets(loaded.model, loaded.anatomy, [role]) for role in ROLES[model_type]}
    everything = [name for names in by_role.values() for name in names]

    assert len(everything) == len(set(everything))
    assert set(everything) == set(find_targets(loaded.model, loaded.anatomy, ["all-linear"]))
    assert {len(names) for names in by_role.values()} == {1 if model_type == "albert" else 2}
    assert not any(name.startswith(loaded.anatomy.head) for name in everything)


def test_groups_are_their_roles(tiny_encoder: Callable[..., Path]) -> None:
    """`attention` and `ffn` together are `all-linear`."""
    loaded = load(tiny_encoder())
    parts = {group: set(find_targets(loaded.model, loaded.anatomy, [group])) for group in GROUPS}

    assert parts["attention"] | parts["ffn"] == parts["all-linear"]
    assert not parts["attention"] & parts["ffn"]


def test_module_names_and_patterns_are_taken_too(tiny_encoder: Callable[..., Path]) -> None:
    """The ending of a module's name, or a regular expression over the whole of it."""
    loaded = load(tiny_encoder())
    by_ending = find_targets(loaded.model, loaded.anatomy, ["self.query"])

    assert by_ending == find_targets(loaded.model, loaded.anatomy, ["query"])
    assert find_targets(loaded.model, loaded.anatomy, [r"regex:.*layer\.1\.attention\.self\.(query|value)"]) == (
        "bert.encoder.layer.1.attention.self.query",
        "bert.encoder.layer.1.attention.self.value",
    )


def test_layers_count_from_either_end(tiny_encoder: Callable[..., Path]) -> None:
    """-1 is the top layer."""
    loaded = load(tiny_encoder())
    top = find_targets(loaded.model, loaded.anatomy, ["query"], (-1,))

    assert top == find_targets(loaded.model, loaded.anatomy, ["query"], (1,))
    assert top == ("bert.encoder.layer.1.attention.self.query",)


@pytest.mark.parametrize(
    ("wanted", "layers", "sentence"),
    [
        (["qurey"], "all", "'qurey' matches no linear layer of this bert encoder; did you mean 'query'"),
        (["query", "nothing"], "all", "'nothing' matches no linear layer"),
        (["regex:("], "all", "is not a regular expression"),
        (["query"], (2,), "the encoder has layers 0 to 1"),
        (["query"], (), "an empty list"),
    ],
)
def test_what_matches_nothing_is_refused(
    wanted: list[str], layers: tuple[int, ...] | str, sentence: str, tiny_encoder: Callable[..., Path]
) -> None:
    """Also when another entry matches: peft would go on in silence (peft issue 1959)."""
    loaded = load(tiny_encoder())
    with pytest.raises(EncoderError, match=sentence.replace("(", r"\(")):
        find_targets(loaded.model, loaded.anatomy, wanted, layers)  # type: ignore[arg-type]


def test_layers_of_an_encoder_that_shares_them_are_refused(tiny_encoder: Callable[..., Path]) -> None:
    """ALBERT has one set of weights for all layers."""
    loaded = load(tiny_encoder("albert"))
    with pytest.raises(EncoderError, match="shares one set of weights"):
        find_targets(loaded.model, loaded.anatomy, ["query"], (0,))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("bert.encoder.layer.11.attention.self.query", (11, "attention.self.query")),
        ("encoder.transformer.layer.0.ffn.lin1", (0, "ffn.lin1")),
        ("albert.encoder.albert_layer_groups.0.albert_layers.0.attention.query", (None, "attention.query")),
        ("pooler.dense", (None, "pooler.dense")),
    ],
)
def test_a_module_name_is_split_into_layer_and_the_name_in_there(name: str, place: tuple[int | None, str]) -> None:
    """Layers that share their weights have no number."""
    assert layer_and_module(name) == place


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_norms_are_found_in_every_architecture(model_type: str, tiny_encoder: Callable[..., Path]) -> None:
    """Two in each layer and one behind the embeddings; none outside the encoder."""
    loaded = load(tiny_encoder(model_type))
    norms = find_norms(loaded.model, loaded.anatomy)

    assert len(norms) == (3 if model_type == "albert" else 5)
    assert all(name.startswith(f"{loaded.anatomy.encoder}.") for name in norms)
    assert "LayerNorm" in norms[0] or "layer_norm" in norms[0]


def test_norms_of_a_layer_leave_that_of_the_embeddings_out(tiny_encoder: Callable[..., Path]) -> None:
    loaded = load(tiny_encoder())

    assert find_norms(loaded.model, loaded.anatomy, (-1,)) == (
        "bert.encoder.layer.1.attention.output.LayerNorm",
        "bert.encoder.layer.1.output.LayerNorm",
    )


def test_an_encoder_without_norms_is_refused() -> None:
    """Some architectures have RMSNorm, which has no bias; their norms are no LayerNorm modules."""
    anatomy = Anatomy("other", "encoder", (), ("classifier",), ("classifier",))
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "classifier": torch.nn.Linear(2, 2)})
    with pytest.raises(EncoderError, match="this other encoder has no LayerNorm modules"):
        find_norms(model, anatomy)


def test_parameters_are_kept_by_layer_too() -> None:
    """Names outside the layers are kept only where every layer is."""
    names = ("bert.embeddings.LayerNorm.bias", "bert.encoder.layer.0.output.bias", "bert.encoder.layer.1.output.bias")

    assert keep_layers(names, "all") == names
    assert keep_layers(names, (0,)) == names[1:2]
    with pytest.raises(EncoderError, match=r"the encoder has layers 0 to 1; \[2\] is none of them"):
        keep_layers(names, (2,))
