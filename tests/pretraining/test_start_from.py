"""`architecture.start_from`: a new encoder with its own vocabulary starts from another one's layers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from peftlab.encoders.load import load_tokenizer
from peftlab.pretrain import main
from peftlab.pretraining.prepare import first_model, prepare
from peftlab.recipe.load import read_pretraining
from peftlab.recipe.resolve import resolved_pretraining
from peftlab.runs.pretraining_result import read_pretraining_result

FITTING = ("architecture.intermediate_size=64", "architecture.heads=2")


def test_layers_and_known_pieces_are_the_givers_and_other_pieces_are_drawn_from_its_spread(
    pretrain_recipe: Callable[..., Path], tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    donor = tiny_encoder()
    words = [f"architecture.start_from={donor}", "architecture.layers=2", "architecture.start_layers=[1, 0]", *FITTING]
    recipe = resolved_pretraining(read_pretraining(pretrain_recipe(), words))
    said: list[str] = []
    prepared = prepare(recipe, tmp_path / "run", said.append)
    ours = first_model(prepared, said.append, "fp32").module.model.bert
    theirs = AutoModel.from_pretrained(donor)

    for place, layer in enumerate((1, 0)):
        given = theirs.encoder.layer[layer].state_dict()
        assert all(torch.equal(value, given[name]) for name, value in ours.encoder.layer[place].state_dict().items())
    known, pieces = load_tokenizer(donor).get_vocab(), prepared.tokenizer.get_vocab()
    shared = sorted(set(known) & set(pieces))
    assert len(shared) > 20
    embedding, given = ours.embeddings.word_embeddings.weight, theirs.embeddings.word_embeddings.weight
    assert torch.equal(embedding[[pieces[one] for one in shared]], given[[known[one] for one in shared]])
    new = embedding[[pieces[one] for one in sorted(set(pieces) - set(known))]]
    assert 0.8 < float(new.detach().std() / given.detach().std()) < 1.2
    assert f"layers and {len(shared)} of {len(pieces)} embeddings start from {donor}" in said


def test_a_run_says_in_result_and_card_where_its_layers_come_from(
    pretrain_recipe: Callable[..., Path], tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    run, donor = tmp_path / "run", tiny_encoder()
    words = [f"architecture.start_from={donor}", *FITTING, f"run.dir={run}", "--steps", "3"]
    assert main([str(pretrain_recipe()), *words]) == 0

    assert read_pretraining_result(run).started_from == str(donor)
    card = (run / "encoder" / "README.md").read_text(encoding="utf-8")
    assert f"Its layers started from those of `{donor}`, its vocabulary is its own." in card
    assert json.loads((run / "encoder" / "config.json").read_text())["vocab_size"] <= 128


@pytest.mark.parametrize(
    ("model_type", "words", "said"),
    [
        ("bert", ("architecture.heads=4", "architecture.intermediate_size=64"), "heads = 4 is not the 2 of"),
        ("bert", (*FITTING, "architecture.start_layers=[0, 2]"), "start_layers = [0, 2] cannot fill 2 layers"),
        ("bert", (*FITTING, "architecture.layers=3"), "cannot fill 3 layers from the 2 of"),
        ("roberta", FITTING, "holds a roberta encoder; expected a BERT one"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused_in_a_sentence(
    model_type: str,
    words: tuple[str, ...],
    said: str,
    pretrain_recipe: Callable[..., Path],
    tiny_encoder: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = (f"architecture.start_from={tiny_encoder(model_type)}", *words, f"run.dir={tmp_path / 'run'}")
    assert main([str(pretrain_recipe()), *given, "--steps", "1"]) == 2
    error = capsys.readouterr().err
    assert said in " ".join(error.split())
    assert "Traceback" not in error
