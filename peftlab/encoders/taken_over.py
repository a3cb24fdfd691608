"""Start a new encoder from the layers of an existing one that reads another vocabulary.

A Transformer's layers carry over to a language whose embeddings are learnt anew (Artetxe et al. 2020, arXiv 1910.11856;
de Vries and Nissim 2021, arXiv 2012.05628), which spares the steps that layers from random weights need to learn to
look at their neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from peftlab.encoders.load import load_tokenizer, quiet_loading, sentences_for
from peftlab.errors import EncoderError


def take_over(model: nn.Module, vocabulary: dict[str, int], folder: Path, layers: Sequence[int] | None) -> int:
    """Put layers, positions and norms of the BERT encoder in `folder` into `model`; return how many pieces it knew.

    `model`: a transformers BERT with or without a head. `vocabulary`: its pieces. `layers`: which of the layers in
    `folder` it gets, from the bottom up; None: the first ones. A piece of both vocabularies keeps its embedding; every
    other one is drawn from the mean and deviation of the embeddings in `folder`, a dimension at a time, from torch's
    generator. Raises EncoderError where the shapes differ.
    """
    from transformers import AutoModel

    body: Any = getattr(model, str(getattr(model, "base_model_prefix", "")), model)
    with sentences_for(folder), quiet_loading():
        given: Any = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    taken = tuple(range(body.config.num_hidden_layers)) if layers is None else tuple(layers)
    _check(body.config, given.config, taken, folder)
    known = load_tokenizer(folder).get_vocab()
    with torch.no_grad():
        for place, layer in enumerate(taken):
            body.encoder.layer[place].load_state_dict(given.encoder.layer[layer].state_dict())
        ours, theirs = body.embeddings, given.embeddings
        ours.LayerNorm.load_state_dict(theirs.LayerNorm.state_dict())
        ours.token_type_embeddings.load_state_dict(theirs.token_type_embeddings.state_dict())
        positions = min(len(ours.position_embeddings.weight), len(theirs.position_embeddings.weight))
        ours.position_embeddings.weight[:positions] = theirs.position_embeddings.weight[:positions]
        words, old = ours.word_embeddings.weight, theirs.word_embeddings.weight
        words.copy_(old.mean(0) + old.std(0) * torch.randn(words.shape))
        shared = [piece for piece in vocabulary if piece in known]
        words[[vocabulary[piece] for piece in shared]] = old[[known[piece] for piece in shared]]
    return len(shared)


def _check(ours: Any, theirs: Any, layers: tuple[int, ...], folder: Path) -> None:
    if theirs.model_type != "bert":
        raise EncoderError(
            f"architecture.start_from: {folder} holds a {theirs.model_type} encoder; expected a BERT one"
        )
    for field, key in (
        ("hidden_size", "hidden_size"),
        ("num_attention_heads", "heads"),
        ("intermediate_size", "intermediate_size"),
    ):
        if getattr(ours, field) != getattr(theirs, field):
            raise EncoderError(
                f"architecture.{key} = {getattr(ours, field)} is not the {getattr(theirs, field)} of the encoder "
                f"{folder} that architecture.start_from names; write {key} = {getattr(theirs, field)}"
            )
    if len(layers) != ours.num_hidden_layers or not all(0 <= layer < theirs.num_hidden_layers for layer in layers):
        raise EncoderError(
            f"architecture.start_layers = {list(layers)} cannot fill {ours.num_hidden_layers} layers from "
            f"the {theirs.num_hidden_layers} of {folder}; expected {ours.num_hidden_layers} numbers from 0 to "
            f"{theirs.num_hidden_layers - 1}"
        )
