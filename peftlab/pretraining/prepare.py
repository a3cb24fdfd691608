"""Everything of a pretraining that stands before its first step: text, vocabulary, sequences, model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.data.corpus import Text, find_text, passages
from peftlab.encoders.load import load_tokenizer
from peftlab.encoders.source import EncoderFiles, find_encoder
from peftlab.encoders.trainable import ParameterCounts, count_parameters
from peftlab.errors import EncoderError
from peftlab.pretraining.packing import Packed, is_packed, pack, read_packed
from peftlab.pretraining.vocabulary import learn_vocabulary
from peftlab.recipe.plugins import load_plugin
from peftlab.runs.model_record import TOKENIZER

if TYPE_CHECKING:
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy
    from peftlab.recipe.pretraining import PretrainRecipe

PACKED = "packed"


@dataclass(frozen=True)
class Prepared:
    """Text as sequences, and the tokenizer that made them.

    `files` is the encoder that is continued, `donor` the one whose layers a new one starts from, if any.
    """

    recipe: PretrainRecipe
    text: Text
    tokenizer: Any
    packed: Packed
    files: EncoderFiles | None
    donor: EncoderFiles | None
    teacher: EncoderFiles | None = None


@dataclass(frozen=True)
class Model:
    """A masked language model with what is trained of it."""

    module: nn.Module
    anatomy: Anatomy
    counts: ParameterCounts


def prepare(recipe: PretrainRecipe, folder: Path, say: Callable[[str], None]) -> Prepared:
    """Find the text, learn or load the vocabulary, and pack the text into `folder`; what is there is used again."""
    files = None if recipe.encoder is None else find_encoder(recipe.encoder, beside=recipe.path.parent)
    text = find_text(recipe.corpus, recipe_path=recipe.path)
    say(f"text: {', '.join(text.names)}")
    if files is not None:
        tokenizer = load_tokenizer(files.folder)
    elif (folder / TOKENIZER).is_dir():
        tokenizer = load_tokenizer(folder / TOKENIZER)
    else:
        tokenizer = learn_vocabulary(
            passages(text), recipe.vocabulary, folder / TOKENIZER, max_length=_positions(recipe)
        )
        say(f"vocabulary: {len(tokenizer):,} pieces learnt")
    if is_packed(folder / PACKED):
        packed = read_packed(folder / PACKED, tokenizer)
    else:
        packed = pack(passages(text), tokenizer, recipe.corpus, recipe.masking, folder / PACKED, seed=recipe.train.seed)
    over = f"; {packed.passed_over:,} shorter lines passed over" if packed.passed_over else ""
    say(
        f"{packed.lines:,} lines packed into {len(packed.train[0]):,} training and {len(packed.held_out[0]):,} "
        f"held-out sequences of {packed.length} tokens, {packed.unknown_share:.2%} of them unknown{over}"
    )
    donor = _donor(recipe) if files is None else None
    return Prepared(recipe, text, tokenizer, packed, files, donor, _teacher(recipe, tokenizer))


def _teacher(recipe: PretrainRecipe, tokenizer: Any) -> EncoderFiles | None:
    """Return the teacher's files; EncoderError where it reads other pieces."""
    from peftlab.recipe.records import Encoder

    if recipe.teacher is None:
        return None
    files = find_encoder(Encoder(name=recipe.teacher.name), beside=recipe.path.parent)
    if load_tokenizer(files.folder).get_vocab() != tokenizer.get_vocab():
        raise EncoderError(
            f"teacher.name: {files.used} has another vocabulary than the encoder that it is to teach; give the "
            "encoder the teacher's vocabulary, as by [encoder] with some of its layers"
        )
    return files


def _donor(recipe: PretrainRecipe) -> EncoderFiles | None:
    from peftlab.recipe.records import Encoder

    name = recipe.architecture.start_from
    return None if name is None else find_encoder(Encoder(name=name), beside=recipe.path.parent)


def first_model(prepared: Prepared, say: Callable[[str], None], precision: str) -> Model:
    """Return the model to train on what is `prepared`, with the layers that it starts from.

    `precision` is that of the training forward pass, `bf16`, `fp16` or `fp32`; a teacher's weights are held in it.
    """
    from peftlab.encoders.taken_over import take_over

    recipe, tokenizer, donor = prepared.recipe, prepared.tokenizer, prepared.donor
    model = build(recipe, prepared.files, vocabulary=len(tokenizer), padding=tokenizer.pad_token_id)
    masked: Any = model.module
    if donor is not None:
        known = take_over(masked.model, tokenizer.get_vocab(), donor.folder, recipe.architecture.start_layers)
        say(f"layers and {known:,} of {len(tokenizer):,} embeddings start from {donor.used}")
    if recipe.save.standardise:
        from peftlab.encoders.standardised import check_standardisable

        check_standardisable(masked.config.model_type)
    if prepared.teacher is not None:
        import torch

        from peftlab.encoders.masked import load_body, teach

        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
        teach(model.module, load_body(prepared.teacher.folder, dtype), prepared.teacher.used)
        say(f"hidden states are taught by {prepared.teacher.used}")
    return model


def outline(recipe: PretrainRecipe) -> dict[str, Any]:
    """Return what is known before the text is packed: its files, the model's parameters, tokens of a step."""
    files = None if recipe.encoder is None else find_encoder(recipe.encoder, beside=recipe.path.parent)
    text = find_text(recipe.corpus, recipe_path=recipe.path)
    pieces = recipe.vocabulary.size if files is None else len(load_tokenizer(files.folder))
    counts = build(recipe, files, vocabulary=pieces, padding=0).counts
    return {
        "recipe": recipe.name,
        "text": list(text.names),
        "text_sha256": text.sha256,
        "encoder": "new" if files is None else files.used,
        "vocabulary": pieces,
        "trained_parameters": counts.trainable,
        "parameters": counts.total,
        "tokens_a_step": recipe.train.batch_size * recipe.train.accumulation * recipe.corpus.length,
        "learning_rate": recipe.train.learning_rate,
    }


def build(recipe: PretrainRecipe, files: EncoderFiles | None, *, vocabulary: int, padding: int) -> Model:
    """Return the model to train, drawn from the recipe's seed: a new encoder, or the one in `files` with its method.

    `vocabulary` entries and the id of the `padding` token shape a new one. Raises EncoderError where the sequences are
    longer than the encoder's positions.
    """
    import torch

    from peftlab.encoders.masked import load_masked, new_masked
    from peftlab.encoders.trainable import set_trainable

    torch.manual_seed(recipe.train.seed)
    if files is None:
        masked = new_masked(_config(recipe, vocabulary, padding))
    else:
        masked = load_masked(files.folder, dropout=recipe.masking.dropout)
        room = masked.model.config.max_position_embeddings - 2 * (masked.model.config.model_type in _OFFSET_POSITIONS)
        if recipe.corpus.length > room:
            raise EncoderError(
                f"corpus.length = {recipe.corpus.length} is longer than the {room} positions of {files.used}; "
                "shorten it"
            )
    if recipe.method is None:
        module = set_trainable(masked.model, lambda _: True)
    else:
        method = load_plugin("methods", recipe.method.name)
        module = method.attach(masked.model, recipe.method.config, masked.anatomy)
    return Model(module, masked.anatomy, count_parameters(module, masked.anatomy))


# RoBERTa counts positions from the padding index on, which takes two of them.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert")


def _positions(recipe: PretrainRecipe) -> int:
    return recipe.architecture.max_positions or recipe.corpus.length


def _config(recipe: PretrainRecipe, vocabulary: int, padding: int) -> Any:
    from transformers import BertConfig

    shape = recipe.architecture
    return BertConfig(
        vocab_size=-(-vocabulary // 8) * 8,  # whole multiples of 8 suit 8-bit kernels
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate_size or 4 * shape.hidden_size,
        max_position_embeddings=_positions(recipe),
        hidden_dropout_prob=recipe.masking.dropout,
        attention_probs_dropout_prob=recipe.masking.dropout,
        pad_token_id=padding,
    )
