"""The sizes that closed forms are computed from are those of the encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from peftlab.encoders.load import HeadShape, load_classifier
from peftlab.encoders.roles import find_targets, in_a_layer
from peftlab.encoders.shape import quarter_width, shape_of
from peftlab.recipe.records import Encoder


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "albert", "electra"])
def test_the_parts_sum_to_the_encoder(model_type: str, tiny_encoder: Callable[..., Path]) -> None:
    """Tables, what stands between them and the layers, and the layers themselves."""
    loaded = load_classifier(Encoder(name="x", pooling="cls"), tiny_encoder(model_type), HeadShape(2, 0.1))
    shape = shape_of(loaded.model.config)
    sizes = {name: parameter.numel() for name, parameter in loaded.model.encoder.named_parameters()}
    tables = tuple(name.removeprefix("encoder.") for name in loaded.anatomy.embeddings)

    assert shape.tables == sum(size for name, size in sizes.items() if name.startswith(tables))
    assert shape.layers * shape.layer == sum(size for name, size in sizes.items() if in_a_layer(name))
    assert shape.tables + shape.outside + shape.layers * shape.layer == sum(sizes.values())
    assert shape.depth == 2


@pytest.mark.parametrize("roles", [("query",), ("ffn",), ("attention", "ffn_out"), ("all-linear",)])
def test_linear_modules_are_those_that_the_roles_find(
    roles: tuple[str, ...], tiny_encoder: Callable[..., Path]
) -> None:
    loaded = load_classifier(Encoder(name="x", pooling="cls"), tiny_encoder(), HeadShape(2, 0.1))
    modules = [loaded.model.get_submodule(name) for name in find_targets(loaded.model, loaded.anatomy, roles, (-1,))]
    shape = shape_of(loaded.model.config)

    assert sorted(shape.linear(roles, (-1,))) == sorted((module.in_features, module.out_features) for module in modules)  # type: ignore[misc]
    assert shape.linear(roles, (0, -2)) == shape.linear(roles, (0,)), "one layer named from both ends is one layer"
    with pytest.raises(KeyError):
        shape.linear(("self.query",))


def test_a_quarter_of_the_widths_divides_all_of_them() -> None:
    assert quarter_width([(384, 384), (384, 1536)]) == 96
    assert quarter_width([(32, 64)]) == 8
    assert quarter_width([(6, 9)]) == 1, "never 0"
