"""Sizes of encoders that users of small machines choose between, and what a step costs on each; no weights are needed.

The sizes are facts of each encoder's published `config.json`; `source` names the paper or project that publishes it.
Counts and costs are computed from them, and nothing here says how good an encoder is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from peftlab.encoders.shape import EncoderShape

Language = Literal["zh", "en", "many"]
TOKENS = 64
"""Tokens of a text for which costs are compared, where nothing else is asked."""
YARDSTICK = EncoderShape(
    hidden=768, inner=3072, layers=12, depth=12, embedding=768, tables=(30522 + 512 + 2) * 768, words=30522
)
"""BERT base: its step is the unit of step costs."""


@dataclass(frozen=True)
class Family:
    """One encoder by its sizes.

    `inner`: width of the feed-forward network. `embedding`: width of the tables, None where it is `hidden`. `positions`
    and `types`: rows of the position and segment tables. `shared`: one layer's weights serve all of them.
    """

    name: str
    language: Language
    model_type: str
    layers: int
    hidden: int
    inner: int
    heads: int
    vocabulary: int
    source: str
    positions: int = 512
    types: int = 2
    embedding: int | None = None
    shared: bool = False

    @property
    def shape(self) -> EncoderShape:
        """The sizes from which parameters follow."""
        embedding = self.embedding or self.hidden
        rows = self.vocabulary + self.positions + self.types
        return EncoderShape(
            hidden=self.hidden,
            inner=self.inner,
            layers=1 if self.shared else self.layers,
            depth=self.layers,
            embedding=embedding,
            tables=rows * embedding,
            words=self.vocabulary,
        )


_BERT = "Devlin et al. 2019, arXiv 1810.04805"
_SMALL = "Turc et al. 2019, arXiv 1908.08962"
_WWM = "Cui et al. 2021, arXiv 1906.08101, and github.com/ymcui/Chinese-BERT-wwm"
_MAC = "Cui et al. 2020, arXiv 2004.13922"
_MINILM = "Wang et al. 2020, arXiv 2002.10957"
_SBERT = "Reimers and Gurevych 2020, arXiv 2004.09813, and sbert.net"
_ROBERTA = "Liu et al. 2019, arXiv 1907.11692"
_XLMR = "Conneau et al. 2020, arXiv 1911.02116"
_ELECTRA = "Clark et al. 2020, arXiv 2003.10555"
_ALBERT = "Lan et al. 2020, arXiv 1909.11942"
_DISTIL = "Sanh et al. 2019, arXiv 1910.01108"
_OURS = "comes with peftlab; taught by multilingual-e5-small, Wang et al. 2024, arXiv 2402.05672"

FAMILIES: tuple[Family, ...] = (
    Family("bundled:mini-zh", "zh", "bert", 5, 384, 1536, 12, 16384, _OURS),
    Family("hfl/rbt3", "zh", "bert", 3, 768, 3072, 12, 21128, _WWM),
    Family("hfl/rbt4", "zh", "bert", 4, 768, 3072, 12, 21128, _WWM),
    Family("hfl/rbt6", "zh", "bert", 6, 768, 3072, 12, 21128, _WWM),
    Family("hfl/rbtl3", "zh", "bert", 3, 1024, 4096, 16, 21128, _WWM),
    Family("hfl/chinese-bert-wwm-ext", "zh", "bert", 12, 768, 3072, 12, 21128, _WWM),
    Family("hfl/chinese-macbert-base", "zh", "bert", 12, 768, 3072, 12, 21128, _MAC),
    Family("hfl/chinese-roberta-wwm-ext-large", "zh", "bert", 24, 1024, 4096, 16, 21128, _WWM),
    Family("google/bert_uncased_L-2_H-128_A-2", "en", "bert", 2, 128, 512, 2, 30522, _SMALL),
    Family("google/bert_uncased_L-4_H-256_A-4", "en", "bert", 4, 256, 1024, 4, 30522, _SMALL),
    Family("google/bert_uncased_L-4_H-512_A-8", "en", "bert", 4, 512, 2048, 8, 30522, _SMALL),
    Family("sentence-transformers/all-MiniLM-L6-v2", "en", "bert", 6, 384, 1536, 12, 30522, _MINILM),
    Family("microsoft/MiniLM-L12-H384-uncased", "en", "bert", 12, 384, 1536, 12, 30522, _MINILM),
    Family("google/electra-small-discriminator", "en", "electra", 12, 256, 1024, 4, 30522, _ELECTRA, embedding=128),
    Family("distilbert/distilbert-base-uncased", "en", "distilbert", 6, 768, 3072, 12, 30522, _DISTIL, types=0),
    Family("albert/albert-base-v2", "en", "albert", 12, 768, 3072, 12, 30000, _ALBERT, embedding=128, shared=True),
    Family("google-bert/bert-base-uncased", "en", "bert", 12, 768, 3072, 12, 30522, _BERT),
    Family("google/electra-base-discriminator", "en", "electra", 12, 768, 3072, 12, 30522, _ELECTRA),
    Family("FacebookAI/roberta-base", "en", "roberta", 12, 768, 3072, 12, 50265, _ROBERTA, positions=514, types=1),
    Family("google-bert/bert-large-uncased", "en", "bert", 24, 1024, 4096, 16, 30522, _BERT),
    Family("FacebookAI/roberta-large", "en", "roberta", 24, 1024, 4096, 16, 50265, _ROBERTA, positions=514, types=1),
    Family(
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        "many",
        "bert",
        12,
        384,
        1536,
        12,
        250037,
        _SBERT,
    ),
    Family("FacebookAI/xlm-roberta-base", "many", "xlm-roberta", 12, 768, 3072, 12, 250002, _XLMR, 514, 1),
    Family("FacebookAI/xlm-roberta-large", "many", "xlm-roberta", 24, 1024, 4096, 16, 250002, _XLMR, 514, 1),
)


def parameters_of(shape: EncoderShape) -> int:
    """Return the parameters of an encoder, its pooler left out."""
    return shape.tables + shape.outside + shape.layers * shape.layer


def multiply_adds(shape: EncoderShape, tokens: int) -> int:
    """Return the multiply-adds of a token of a text of `tokens` in one forward pass through the layers.

    Per layer: the six linear modules, and the two products of attention with every other token (Kaplan et al. 2020,
    arXiv 2001.08361, table 1). Looking up an embedding costs nothing beside them.
    """
    linear = sum(d_in * d_out for d_in, d_out in shape.linear(("all-linear",), [0]))
    projection = shape.embedding * shape.hidden if shape.embedding != shape.hidden else 0
    return projection + shape.depth * (linear + 2 * tokens * shape.hidden)


def step_cost(shape: EncoderShape, tokens: int = TOKENS) -> float:
    """Return the arithmetic of a training step on texts of `tokens`, relative to BERT base.

    Forward and backward grow alike with the encoder, so the ratio holds for full fine-tuning and for adapters in all
    layers. It is a ratio of arithmetic, not of measured time.
    """
    return multiply_adds(shape, tokens) / multiply_adds(YARDSTICK, tokens)


def by_cost(language: Language | None = None, tokens: int = TOKENS) -> list[Family]:
    """Return the encoders of a language, multilingual ones among them, from the cheapest step to the dearest."""
    fitting = [one for one in FAMILIES if language is None or one.language in (language, "many")]
    return sorted(fitting, key=lambda one: (step_cost(one.shape, tokens), parameters_of(one.shape), one.name))


def next_dearer(shape: EncoderShape, families: Sequence[Family], tokens: int = TOKENS) -> Family | None:
    """Return the cheapest of `families` whose step costs more than on an encoder of `shape`; None where there is none.

    Of encoders that cost a twentieth more at most, which differ by rounding and pooling only, none counts as dearer.
    """
    cost = 1.05 * step_cost(shape, tokens)
    dearer = [one for one in families if step_cost(one.shape, tokens) > cost]
    return min(dearer, key=lambda one: (step_cost(one.shape, tokens), parameters_of(one.shape)), default=None)


def known_family(name: str) -> Family | None:
    """Return the encoder of this hub id, also where its owner is left out; None where the table lacks it."""
    return next((one for one in FAMILIES if name in (one.name, one.name.partition("/")[2])), None)
