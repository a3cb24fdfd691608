"""The table of encoders: its counts are those of the models, its costs follow from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from peftlab import plan
from peftlab.encoders.families import (
    FAMILIES,
    YARDSTICK,
    Family,
    by_cost,
    known_family,
    multiply_adds,
    next_dearer,
    parameters_of,
    step_cost,
)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda one: one.name)
def test_the_parameters_are_those_of_the_model_that_transformers_builds(family: Family) -> None:
    """On the meta device, where a model of any size takes no memory; the pooler is left out."""
    import torch
    from transformers import AutoConfig, AutoModel

    size = {"num_hidden_layers": family.layers, "hidden_size": family.hidden, "num_attention_heads": family.heads}
    size |= {"intermediate_size": family.inner, "vocab_size": family.vocabulary}
    size |= {"max_position_embeddings": family.positions, "type_vocab_size": family.types}
    if family.model_type == "distilbert":
        size = {"n_layers": family.layers, "dim": family.hidden, "n_heads": family.heads, "hidden_dim": family.inner}
        size |= {"vocab_size": family.vocabulary, "max_position_embeddings": family.positions}
    if family.embedding is not None or family.model_type == "electra":
        size["embedding_size"] = family.embedding or family.hidden
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model(family.model_type, **size))
    counted = sum(one.numel() for name, one in model.named_parameters() if not name.startswith("pooler"))
    assert parameters_of(family.shape) == counted


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("hfl/rbt3", 38),
        ("hfl/rbt4", 46),
        ("hfl/rbt6", 60),
        ("hfl/rbtl3", 61),
        ("google-bert/bert-base-uncased", 110),
        ("distilbert/distilbert-base-uncased", 66),
        ("albert/albert-base-v2", 12),
        ("FacebookAI/roberta-large", 355),
    ],
)
def test_published_counts_are_met_to_a_million_or_a_hundredth(name: str, millions: int) -> None:
    """As the encoders' own papers and pages round them, with their poolers."""
    family = known_family(name)
    assert family is not None
    pooler = family.hidden * (family.hidden + 1) if family.model_type != "distilbert" else 0
    assert (parameters_of(family.shape) + pooler) / 1e6 == pytest.approx(millions, rel=0.01, abs=1)


def test_names_stand_once_and_have_a_source() -> None:
    assert len({one.name for one in FAMILIES}) == len(FAMILIES)
    assert all("arXiv" in one.source for one in FAMILIES)


def test_the_unit_is_bert_base_and_layers_count_in_proportion() -> None:
    assert step_cost(YARDSTICK) == 1
    base, rbt3 = known_family("bert-base-uncased"), known_family("hfl/rbt3")
    assert base is not None
    assert rbt3 is not None
    assert base.shape == YARDSTICK
    assert step_cost(rbt3.shape) == pytest.approx(3 / 12)
    assert multiply_adds(rbt3.shape, 64) == 3 * (4 * 768**2 + 2 * 768 * 3072 + 2 * 64 * 768)


def test_sharing_weights_saves_parameters_and_no_step() -> None:
    albert = known_family("albert-base-v2")
    assert albert is not None
    assert parameters_of(albert.shape) < 0.12 * parameters_of(YARDSTICK)
    assert step_cost(albert.shape) == pytest.approx(1, rel=0.01)


def test_the_order_is_by_cost_and_the_next_is_the_next_of_it() -> None:
    chinese = by_cost("zh")
    assert [one.name for one in chinese if one.language == "zh"][:5] == [
        "bundled:mini-zh",
        "hfl/rbt3",
        "hfl/rbt4",
        "hfl/rbtl3",
        "hfl/rbt6",
    ]
    assert "en" not in {one.language for one in chinese}
    following = next_dearer(chinese[0].shape, chinese)
    assert following is not None
    assert step_cost(following.shape) > step_cost(chinese[0].shape)
    assert next_dearer(chinese[-1].shape, chinese) is None


def test_the_program_prints_the_table_and_the_next_encoder(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(["--encoder", "hfl/rbt3"]) == 0
    said = capsys.readouterr().out
    assert "the next dearer encoder after hfl/rbt3: hfl/rbt4" in said
    assert plan.main(["--language", "en", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    costs = [line["step_cost"] for line in told["encoders"]]
    assert costs == sorted(costs)
    assert told["next"] is None


def test_a_local_folder_is_measured_by_its_own_configuration(
    tiny_encoder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan.main(["--encoder", str(tiny_encoder()), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["next"] == "google/bert_uncased_L-2_H-128_A-2"
    assert plan.main(["--encoder", "nowhere/nothing"]) == 2
    assert "is no folder with a config.json and not in the table of" in capsys.readouterr().err
    assert plan.main(["--tokens", "0"]) == 2
