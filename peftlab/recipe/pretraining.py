"""What a pretraining recipe may say: masked-language-model training on unlabelled text, marked by its [corpus]."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from peftlab.recipe.records import Choice, Encoder, Fraction, Optimizer, Positive, Record, Run, Train


class Corpus(Record):
    """Unlabelled text, and how it is packed. Lines of one document stand together; a line is never padded."""

    files: tuple[str, ...] = ()
    """Files, or patterns such as `text/*.txt.xz`: plain text with one passage a line, or .jsonl; also .gz and .xz.
    Beside the recipe, else in the current folder. Files win over `source`."""
    source: str | None = None
    """`builtin:tickets-zh` or `builtin:tickets-en`: training texts of the built-in tickets, without their labels."""
    text: str = "text"
    """Key of the text in .jsonl files."""
    length: Annotated[int, Field(ge=16, le=512)] = 256
    """Tokens of one training sequence, special tokens included; passages are laid end to end to fill it."""
    held_out: Annotated[float, Field(gt=0, lt=0.5)] = 0.005
    """Share of the text that is kept for the held-out perplexity, in blocks of neighbouring lines."""
    least_characters: Positive = 4
    """Shorter lines are passed over, and counted."""


class Architecture(Record):
    """A BERT encoder from random weights (Devlin et al. 2019), used where the recipe has no [encoder]."""

    layers: Positive = 3
    """Transformer layers."""
    hidden_size: Positive = 384
    """Width; a multiple of `heads`."""
    heads: Positive = 6
    """Attention heads."""
    intermediate_size: Positive | None = None
    """Width of the feed-forward network; unset: four times `hidden_size`."""
    max_positions: Positive | None = None
    """Longest text that the encoder can read; unset: `corpus.length`."""
    dropout: Fraction = 0.1
    """Dropout that the encoder states for fine-tuning; pretraining itself uses `masking.dropout`."""
    start_from: str | None = None
    """A BERT encoder of the same width, by hub id, folder or `bundled:NAME`, whose layers the new one starts from; its
    vocabulary is learnt anew (Artetxe et al. 2020). Unset: random weights."""
    start_layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Layers of it that are taken, counted from 0, bottom first; unset: the first ones."""


class Vocabulary(Record):
    """A WordPiece vocabulary, learnt from the corpus where the recipe has no [encoder]."""

    size: Annotated[int, Field(ge=64)] = 8192
    """Entries, special tokens included. Every Chinese character is a piece of its own."""
    lowercase: bool = True
    """Fold case and strip accents."""
    least_count: Positive = 2
    """A piece must occur this often."""


class Masking(Record):
    """Which tokens are predicted. Drawn anew in every epoch (Liu et al. 2019, section 4.1)."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens that are predicted."""
    whole_words: Literal["jieba", "spaces", "off"] = "jieba"
    """Mask whole words (Cui et al. 2021): `jieba` also segments Chinese (package rjieba), `spaces` keeps the pieces of
    a written word together, `off` draws single tokens."""
    keep: Fraction = 0.1
    """Share of the predicted tokens that stay as they are."""
    random: Fraction = 0.1
    """Share of the predicted tokens that another token replaces; all others become the mask token."""
    dropout: Fraction = 0.0
    """Dropout while pretraining; a small encoder on more text than it can learn needs none."""


class Teacher(Record):
    """A larger encoder of the same vocabulary and width whose last hidden states the trained one learns to give (Sanh
    et al. 2019; Jiao et al. 2020): the teacher reads the whole text, the other one the text with its masks.
    """

    name: Annotated[str, Field(min_length=1)]
    """Hub id, a local folder, or `bundled:NAME`."""
    weight: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of the loss: (1 - weight) * cross-entropy of the masked tokens + weight * unexplained variance of the
    teacher's states, which is 1 for a constant guess and 0 for the states themselves."""


class HeldOut(Record):
    """Held-out perplexity during pretraining."""

    every: Positive | Literal["epoch"] = "epoch"
    """Measure after each epoch, or after this many optimizer steps."""
    patience: Positive | None = None
    """Stop after this many measurements without a lower perplexity."""
    batch_size: Positive = 32
    """Sequences of one forward pass."""
    sequences: Positive = 256
    """Most held-out sequences that are measured."""


class Save(Record):
    """How the encoder is written."""

    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Type of the saved weights; half precision halves the folder."""
    pooling: Literal["mean", "cls", "native"] = "mean"
    """Pooling that `encoder.pooling = "auto"` will take. An encoder trained on masks alone has no use for its first
    token, so `mean` suits it; `native` states none."""
    standardise: bool = False
    """Give each dimension of the last hidden states mean 0 and variance 1 over the held-out text, by the weights of the
    last layer norm: heads and adapters learn faster on such states. What the language-model head says stays the same.
    """


class PretrainRecipe(BaseModel):
    """One pretraining. `name` is the file's stem; `path` is the file it was read from."""

    model_config = ConfigDict(frozen=True)

    name: str
    path: Path
    corpus: Corpus
    encoder: Encoder | None = None
    architecture: Architecture = Architecture()
    vocabulary: Vocabulary = Vocabulary()
    masking: Masking = Masking()
    teacher: Teacher | None = None
    method: Choice[Record] | None = None
    train: Train = Train()
    optimizer: Optimizer = Optimizer()
    evaluation: HeldOut = HeldOut()
    save: Save = Save()
    run: Run = Run()
