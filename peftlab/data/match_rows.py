"""Queries with the texts that answer them, and the candidates that they must be found among."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.rows import SplitName
from peftlab.data.tokens import Batch, Tokens, joined, pad, tokenise

Groups = tuple[int, ...]


@dataclass(frozen=True)
class Candidates:
    """The texts that a query is held against. `groups` [candidates]: texts of one group answer the same queries."""

    texts: Sequence[str]
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class MatchSplit:
    """The queries of one split, in file order.

    `pairs` [rows]: a text that answers each, which training brings near; `groups` int64 [rows] are the groups of these
    texts. `relevant` [rows]: every group that is known to answer the query, its own among them.
    """

    name: SplitName
    ids: Sequence[str]
    texts: Sequence[str]
    pairs: Sequence[str]
    groups: NDArray[np.int64]
    relevant: Sequence[Groups]
    candidates: Candidates

    def __len__(self) -> int:
        return len(self.texts)

    def joined(self, other: MatchSplit) -> MatchSplit:
        """Return this split with the rows of `other` behind its own."""
        return MatchSplit(
            self.name,
            [*self.ids, *other.ids],
            [*self.texts, *other.texts],
            [*self.pairs, *other.pairs],
            np.concatenate([self.groups, other.groups]),
            [*self.relevant, *other.relevant],
            self.candidates,
        )


@dataclass(frozen=True)
class MatchSplits:
    """The three splits of one run. `about_candidates` says in words what the candidates are; the rest as in `Splits`.

    `fingerprint`: SHA-256 over ids, texts and pairs of the three splits and over the candidates.
    """

    train: MatchSplit
    validation: MatchSplit
    test: MatchSplit
    about_candidates: str
    source: Mapping[str, Any]
    fingerprint: str
    report: Mapping[str, Any]


@dataclass(frozen=True)
class MatchTokens:
    """Tokens of queries and of the texts that answer them, [rows] each, and of all candidates."""

    queries: Tokens
    pairs: Tokens
    candidates: Tokens

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each query and its pair together."""
        return self.queries.lengths + self.pairs.lengths

    @property
    def width(self) -> int:
        """Tokens of a row of the longest forward pass, in which queries and pairs are padded to one length."""
        return 2 * max(self.queries.width, self.pairs.width)

    def first(self, rows: int) -> MatchTokens:
        """Return the first `rows` queries with their pairs, and at most as many candidates."""
        shown = min(rows, len(self.candidates))
        return MatchTokens(self.queries.first(rows), self.pairs.first(rows), self.candidates.first(shown))


def tokens_of(tokenizer: Any, split: MatchSplit, max_length: int) -> MatchTokens:
    """Tokenise the texts of `split`, each cut to `max_length` tokens."""
    queries, pairs, candidates = (
        tokenise(tokenizer, texts, None, max_length) for texts in (split.texts, split.pairs, split.candidates.texts)
    )
    return MatchTokens(queries, pairs, candidates)


def pair_batches(tokens: MatchTokens, split: MatchSplit) -> Callable[[NDArray[np.int64], int], Batch]:
    """Return a function from rows and epoch to their batch; the epoch makes no difference.

    The inputs of n rows are 2 n texts: the queries, then their pairs in the same order. Targets are the
    `false_negatives`, [n, n].
    """
    import torch

    texts, count = joined([tokens.queries, tokens.pairs]), len(tokens)

    def batch(rows: NDArray[np.int64], epoch: int) -> Batch:  # noqa: ARG001 the loop's contract
        inputs = pad(texts, np.concatenate([rows, rows + count]))
        return Batch(inputs, torch.from_numpy(false_negatives(split, rows)))

    return batch


def false_negatives(split: MatchSplit, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return bool [rows, rows]: whether the pair of another row (column) also answers the query (row)."""
    groups = split.groups[rows]
    mask = np.stack([np.isin(groups, split.relevant[row]) for row in rows])
    np.fill_diagonal(mask, val=False)
    return mask


def relevance(split: MatchSplit, rows: Iterable[int]) -> NDArray[np.bool_]:
    """Return bool [rows, candidates]: which candidates answer each of these queries."""
    return np.stack([np.isin(split.candidates.groups, split.relevant[row]) for row in rows])


def fingerprint(splits: Sequence[MatchSplit], candidates: Candidates) -> str:
    """Return the SHA-256 over ids, texts and pairs of `splits` and over the candidates."""
    digest = hashlib.sha256()
    for split in splits:
        for row in zip(split.ids, split.texts, split.pairs, split.relevant, strict=True):
            digest.update(json.dumps([split.name, *row], ensure_ascii=False).encode("utf-8") + b"\n")
    for text, group in zip(candidates.texts, candidates.groups.tolist(), strict=True):
        digest.update(json.dumps([text, group], ensure_ascii=False).encode("utf-8") + b"\n")
    return digest.hexdigest()
