"""The sizes of an encoder from which a method's number of trained parameters follows, before any weight is read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from peftlab.encoders.roles import GROUPS


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of a BERT-like encoder.

    `hidden`: width of a layer. `inner`: width of its feed-forward network. `layers`: layers with weights of their own
    (1 for ALBERT). `depth`: layers that a text passes. `embedding`: width of the embedding tables. `tables`: their
    number of parameters. `words`: rows of the table of word embeddings.
    """

    hidden: int
    inner: int
    layers: int
    depth: int
    embedding: int
    tables: int
    words: int

    @property
    def norms(self) -> int:
        """Parameters of the two norms of a layer: a weight and a bias of the hidden width each."""
        return 4 * self.hidden

    @property
    def layer(self) -> int:
        """Parameters of one layer: six linear modules with their biases, and two norms."""
        return sum((d_in + 1) * d_out for d_in, d_out in self._one_layer(("all-linear",))) + self.norms

    @property
    def outside(self) -> int:
        """Parameters between tables and layers: a norm, and a projection where the tables are narrower."""
        projection = (self.embedding + 1) * self.hidden if self.embedding != self.hidden else 0
        return 2 * self.embedding + projection

    def linear(
        self, target_modules: Sequence[str], layers: Sequence[int] | Literal["all"] = "all"
    ) -> list[tuple[int, int]]:
        """Return (d_in, d_out) of each linear module that the roles `target_modules` and `layers` choose.

        Raises KeyError for what is no role or group of roles: endings of names and patterns need the encoder itself.
        """
        count = self.layers if layers == "all" else len({layer % self.layers for layer in layers})
        return self._one_layer(target_modules) * count

    def _one_layer(self, target_modules: Sequence[str]) -> list[tuple[int, int]]:
        square = (self.hidden, self.hidden)
        sizes = {
            "query": square,
            "key": square,
            "value": square,
            "attention_output": square,
            "ffn_in": (self.hidden, self.inner),
            "ffn_out": (self.inner, self.hidden),
        }
        roles = {role for entry in target_modules for role in GROUPS.get(entry, (entry,))}
        return [sizes[role] for role in sorted(roles)]


def inner_width(config: Any) -> int:
    """Return the width of the feed-forward networks that a transformers `config` states, or else the usual one."""
    return int(getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", 4 * config.hidden_size))


def shape_of(config: Any) -> EncoderShape:
    """Return the shape that a transformers `config` of a BERT-like encoder states."""
    embedding = getattr(config, "embedding_size", config.hidden_size)
    rows = config.vocab_size + config.max_position_embeddings + getattr(config, "type_vocab_size", 0)
    return EncoderShape(
        hidden=config.hidden_size,
        inner=getattr(config, "intermediate_size", None) or config.hidden_dim,
        layers=getattr(config, "num_hidden_groups", config.num_hidden_layers),
        depth=config.num_hidden_layers,
        embedding=embedding,
        tables=rows * embedding,
        words=config.vocab_size,
    )


def quarter_width(pairs: Iterable[tuple[int, int]]) -> int:
    """Return a quarter of the largest number that divides every width of `pairs` (d_in, d_out), at least 1."""
    return max(math.gcd(*(width for pair in pairs for width in pair)) // 4, 1)
