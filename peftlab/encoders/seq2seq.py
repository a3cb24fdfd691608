"""Encoder-decoder models: one as it is in its folder, or one made of an encoder for both sides."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.encoders.anatomy import Anatomy
from peftlab.encoders.load import LoadedEncoder, load_tokenizer, settled, stored_dtype
from peftlab.encoders.roles import in_a_layer
from peftlab.errors import EncoderError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from peftlab.recipe.records import Encoder

_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")


def load_seq2seq(
    encoder: Encoder,
    folder: Path,
    *,
    decoder_layers: int | None = None,
    target_language: str | None = None,
    most_tokens: int | None = None,
    device: torch.device | None = None,
) -> LoadedEncoder:
    """Load the weights in `folder` as an encoder-decoder with a language model on top, in evaluation mode.

    An encoder-decoder (T5, mT5, BART, mBART, Marian, or a saved warm-started one) is taken as it is. An encoder is used
    for both sides (Rothe et al. 2020, arXiv 1907.12461): the decoder starts from its weights, with a causal mask, and
    gets cross-attention, which is new, as is a language-model head that the checkpoint lacks. One table of embeddings
    serves source, target and output layer (Press and Wolf 2017). What is new is drawn from torch's global generator.

    `decoder_layers`: take only this many layers of the encoder, from the bottom, for the decoder. `target_language`: a
    code of the tokenizer's (mBART, NLLB), with which the output begins. `most_tokens`: of an output.
    Raises EncoderError where the folder cannot be used, or where settings do not go with it.
    """
    from transformers import AutoConfig

    if encoder.load_in != "full":
        raise EncoderError('encoder.load_in: an encoder-decoder is trained on full weights here; write "full"')

    def load() -> LoadedEncoder:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.is_encoder_decoder:
            if decoder_layers is not None:
                raise EncoderError("task.decoder_layers: this encoder-decoder has a decoder of its own; remove the key")
            return _own(encoder, folder)
        return _warm_started(encoder, folder, config, decoder_layers)

    loaded = settled(encoder, folder, device, load)
    model: Any = loaded.model
    positions = getattr(model.config, "max_position_embeddings", None)
    if most_tokens is not None and positions is not None and max(most_tokens, encoder.max_length) > positions:
        raise EncoderError(
            f"task.max_target_length = {most_tokens}, encoder.max_length = {encoder.max_length}: decoder and encoder "
            f"have {positions} positions; lower the larger one"
        )
    if target_language is not None:
        model.generation_config.forced_bos_token_id = _language(folder, target_language)
    return loaded


def start_of(model: Any) -> int:
    """Return the id of the token that the decoder of `model` starts from."""
    found = model.config.decoder_start_token_id
    if found is None:
        found = model.generation_config.decoder_start_token_id
    if found is None:
        raise EncoderError("the encoder-decoder does not say which token its decoder starts from")
    return int(found)


def _own(encoder: Encoder, folder: Path) -> LoadedEncoder:
    """Load an encoder-decoder of `folder`, in which nothing is new but what its checkpoint lacks."""
    from transformers import AutoModelForSeq2SeqLM

    model, info = AutoModelForSeq2SeqLM.from_pretrained(
        folder, output_loading_info=True, local_files_only=True, dtype=stored_dtype(encoder)
    )
    return LoadedEncoder(model, _anatomy(model, info["missing_keys"]), "native")


def _warm_started(encoder: Encoder, folder: Path, config: Any, decoder_layers: int | None) -> LoadedEncoder:
    import copy

    from transformers import AutoModel, AutoModelForCausalLM, EncoderDecoderModel, GenerationConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING

    if encoder.stored_as != "fp32":
        raise EncoderError(
            f'encoder.dtype: "{encoder.stored_as}" does not go with a decoder whose new parts are in fp32; remove the '
            "key, and set train.precision for faster arithmetic"
        )
    architecture: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if architecture is None or "encoder_hidden_states" not in inspect.signature(architecture.forward).parameters:
        raise EncoderError(
            f"encoder.name: a {config.model_type} encoder cannot be made a decoder, as it has no cross-attention; use "
            "one of the types bert, roberta, electra or camembert, or an encoder-decoder"
        )
    settings = copy.deepcopy(config)
    settings.is_decoder, settings.add_cross_attention = True, True
    if decoder_layers is not None:
        if decoder_layers > config.num_hidden_layers:
            raise EncoderError(
                f"task.decoder_layers: the encoder has {config.num_hidden_layers} layers; found {decoder_layers}"
            )
        settings.num_hidden_layers = decoder_layers
    given = {"local_files_only": True, "dtype": stored_dtype(encoder)}
    body: Any = MODEL_MAPPING[type(config)]
    spared = {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(body).parameters else {}
    source = AutoModel.from_pretrained(folder, config=config, **spared, **given)
    causal: Any = AutoModelForCausalLM
    target, info = causal.from_pretrained(folder, config=settings, output_loading_info=True, **given)
    source.set_input_embeddings(target.get_input_embeddings())
    model: Any = EncoderDecoderModel(encoder=source, decoder=target)
    tokenizer = load_tokenizer(folder)
    start = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    end = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    ids = {"decoder_start_token_id": start, "eos_token_id": end, "pad_token_id": tokenizer.pad_token_id}
    if None in ids.values():
        raise EncoderError(f"the tokenizer in {folder} has no token with which a text starts or ends")
    for name, value in ids.items():
        setattr(model.config, name, value)
    # Methods, and what estimates memory, ask a model for its sizes, which stand in the parts of this one.
    for name in _SIZES:
        setattr(model.config, name, getattr(config, name))
    model.generation_config = GenerationConfig(**ids)
    return LoadedEncoder(model, _anatomy(model, {f"decoder.{key}" for key in info["missing_keys"]}), "native")


def _anatomy(model: Any, missing: Iterable[str]) -> Anatomy:
    import torch

    parts = {name for name, _ in model.named_children()}
    beside = {"encoder", "decoder"} <= parts
    tables = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Embedding) and not in_a_layer(name)
    ]
    named = getattr(model.config, "encoder", model.config)
    return Anatomy(
        model_type=named.model_type,
        encoder="encoder" if beside else model.base_model_prefix,
        decoder="decoder" if beside else None,
        embeddings=tuple(tables),
        head=(),
        new_modules=_wholly_new(model, set(missing)),
        peft_task="SEQ_2_SEQ_LM",
    )


def _wholly_new(model: nn.Module, missing: set[str]) -> tuple[str, ...]:
    """Return the outermost modules of which every parameter is `missing` from the checkpoint, in model order.

    A bias that stands alone, that of an output layer tied to the embeddings, starts at zero and is not trained.
    """
    new: list[str] = []
    for name, module in model.named_modules():
        own = [f"{name}.{key}" for key, _ in module.named_parameters()]
        if own and set(own) <= missing and not name.startswith(tuple(f"{outer}." for outer in new)):
            new.append(name)
    return tuple(new)


def _language(folder: Path, code: str) -> int:
    tokenizer = load_tokenizer(folder)
    found = tokenizer.convert_tokens_to_ids(code)
    if found is None or found == tokenizer.unk_token_id:
        raise EncoderError(
            f'task.target_language: the tokenizer knows no language "{code}"; see its `all_special_tokens`'
        )
    return int(found)
