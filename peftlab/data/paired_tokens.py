"""Tokens of sources and targets, and what teacher forcing makes of a target: what the decoder reads, and must say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.paired import PairedSplit
from peftlab.data.rows import SplitName
from peftlab.data.tokens import Batch, Tokens, pad, tokenise

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""Stands in the targets of a batch where there is no token."""


@dataclass(frozen=True)
class PairedTokens:
    """Tokens of the sources and targets of one split, [rows] each, and the tokenizer that reads outputs back."""

    name: SplitName
    sources: Tokens
    targets: Tokens
    tokenizer: Any

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of source and target of each row together."""
        return self.sources.lengths + self.targets.lengths

    @property
    def width(self) -> int:
        """Tokens of a row of the longest forward pass."""
        return self.sources.width + self.targets.width

    def first(self, rows: int) -> PairedTokens:
        """Return the first `rows` rows."""
        return replace(self, sources=self.sources.first(rows), targets=self.targets.first(rows))


@dataclass(frozen=True)
class Forced:
    """Targets under teacher forcing, of the same lengths: the decoder reads `inputs` and must say `labels`."""

    inputs: Tokens
    labels: Tokens


def paired_tokens(tokenizer: Any, split: PairedSplit, prefix: str, most: tuple[int, int]) -> PairedTokens:
    """Tokenise `split`, `prefix` before each source; `most`: tokens that sources and targets are cut to."""
    sources = tokenise(tokenizer, [f"{prefix}{text}" for text in split.sources], None, most[0])
    targets = tokenise(tokenizer, split.targets, None, most[1], target=True)
    # A source is one segment, and a decoder has none; architectures without segments would refuse them.
    return PairedTokens(
        split.name, replace(sources, segments=None), replace(targets, segments=None, pad_left=False), tokenizer
    )


def forced(targets: Tokens, start: int) -> Forced:
    """Return `targets` as the decoder reads and says them, which starts from the token `start`.

    Tokenizers that put `start` itself before a text, as those of BERT do with [CLS], have it taken off: the decoder
    never says it.
    """
    first = targets.starts[:-1]
    leads = (targets.lengths > 1) & (targets.ids[np.minimum(first, len(targets.ids) - 1)] == start)
    kept = np.ones(len(targets.ids), bool)
    kept[first[leads]] = False
    lengths = targets.lengths - leads
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    labels = targets.ids[kept]
    inputs = np.concatenate([[start], labels[:-1]]).astype(np.int32)
    inputs[starts[:-1]] = start
    return Forced(replace(targets, ids=inputs, starts=starts), replace(targets, ids=labels, starts=starts))


def forced_batches(tokens: PairedTokens, start: int) -> Callable[[NDArray[np.int64], int], Batch]:
    """Return a function from rows and epoch to their batch; the epoch makes no difference.

    Targets are token ids int64 [rows, longest target], IGNORED where there is none.
    """
    made = forced(tokens.targets, start)

    def batch(rows: NDArray[np.int64], epoch: int) -> Batch:  # noqa: ARG001 the loop's contract
        inputs, labels = forced_inputs(tokens.sources, made, rows)
        return Batch(inputs, labels)

    return batch


def forced_inputs(
    sources: Tokens, made: Forced, rows: NDArray[np.int64]
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return what an encoder-decoder takes for `rows`, and the token ids that it must say."""
    read, said = pad(made.inputs, rows), pad(made.labels, rows)
    inputs = pad(sources, rows) | {f"decoder_{name}": tensor for name, tensor in read.items()}
    return inputs, said["input_ids"].masked_fill(said["attention_mask"] == 0, IGNORED)
