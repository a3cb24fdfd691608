"""Tokenised texts, kept flat, and the batches made of them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.kept import Numbers

if TYPE_CHECKING:
    import torch

_CHUNK = 4096  # texts given to the tokenizer at a time, so that its Python lists stay small


@dataclass(frozen=True)
class Tokens:
    """Token ids of many texts in one array: text i is ``ids[starts[i]:starts[i + 1]]``; of many texts, it is a file.

    `segments` holds the token type ids in the same layout, where the tokenizer gives them.
    """

    ids: NDArray[np.int32]
    segments: NDArray[np.int8] | None
    starts: NDArray[np.int64]
    pad_id: int
    pad_left: bool

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, special tokens included."""
        return np.diff(self.starts)

    @property
    def width(self) -> int:
        """Tokens of the longest text."""
        return int(self.lengths.max(initial=0))

    def first(self, rows: int) -> Tokens:
        """Return the first `rows` texts."""
        starts = self.starts[: rows + 1]
        end = int(starts[-1])
        segments = self.segments[:end] if self.segments is not None else None
        return Tokens(self.ids[:end], segments, np.asarray(starts), self.pad_id, self.pad_left)


@dataclass(frozen=True)
class Batch:
    """What one forward pass takes: the model's inputs by name, and the targets of its rows."""

    inputs: Mapping[str, torch.Tensor]
    targets: torch.Tensor


@dataclass(frozen=True)
class Objective:
    """What the loop trains by: the batches of a task's rows, and the loss of each row.

    `batch(rows, epoch)` gives the model's inputs and the targets of these rows; `row_losses(logits, targets)` their
    losses, [rows], in fp32; `row_weights` [all rows] what each row counts in the mean. `rows_together`: the loss of a
    row depends on which others share its forward pass, so that smaller passes are another training.
    """

    batch: Callable[[NDArray[np.int64], int], Batch]
    row_losses: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    row_weights: NDArray[np.float32]
    rows_together: bool = False


def labelled_batches(tokens: Tokens, targets: torch.Tensor) -> Callable[[NDArray[np.int64], int], Batch]:
    """Return a function from rows and epoch to their batch: padded texts with `targets` [rows, ...] of the same rows.

    The epoch makes no difference here.
    """

    def batch(rows: NDArray[np.int64], epoch: int) -> Batch:  # noqa: ARG001 the loop's contract
        return Batch(pad(tokens, rows), targets[rows])

    return batch


def tokenise(
    tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int, *, target: bool = False
) -> Tokens:
    """Tokenise `texts` (with `pairs` behind them), each cut to `max_length` tokens.

    `target`: as texts that a decoder says, for tokenizers that read these otherwise.
    """
    ids, segments = Numbers(np.int32), Numbers(np.int8)
    with_segments = False
    lengths = array("i")
    for start in range(0, len(texts), _CHUNK):
        batch = list(texts[start : start + _CHUNK])
        seconds = list(pairs[start : start + _CHUNK]) if pairs is not None else None
        asked = {"truncation": True, "max_length": max_length, "return_attention_mask": False}
        encoded = tokenizer(text_target=batch, **asked) if target else tokenizer(batch, seconds, **asked)
        lengths.extend(len(row) for row in encoded["input_ids"])
        ids.extend(np.fromiter(chain.from_iterable(encoded["input_ids"]), np.int32))
        if "token_type_ids" in encoded:
            with_segments = True
            segments.extend(np.fromiter(chain.from_iterable(encoded["token_type_ids"]), np.int8))
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return Tokens(
        ids=ids.array(),
        segments=segments.array() if with_segments else None,
        starts=starts,
        pad_id=int(tokenizer.pad_token_id),
        pad_left=tokenizer.padding_side == "left",
    )


def full_lengths(
    tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None, *, target: bool = False
) -> Sequence[int]:
    """Return the number of tokens of each text before any cut; `target` as in `tokenise`."""
    lengths = array("i")
    for start in range(0, len(texts), _CHUNK):
        seconds = list(pairs[start : start + _CHUNK]) if pairs is not None else None
        batch = list(texts[start : start + _CHUNK])
        asked = {"truncation": False, "verbose": False}
        encoded = tokenizer(text_target=batch, **asked) if target else tokenizer(batch, seconds, **asked)
        lengths.extend(len(row) for row in encoded["input_ids"])
    return lengths


def lower_case_only(tokenizer: Any) -> bool:
    """Say whether `tokenizer` reads capitals as small letters."""
    encoded = tokenizer(["Ab", "ab"])["input_ids"]
    return bool(encoded[0] == encoded[1])


def pad(tokens: Tokens, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, torch.Tensor]:
    """Return `input_ids`, `attention_mask` and `token_type_ids` of `rows`, int64, [rows, longest of them]."""
    import torch

    places = np.asarray(rows, np.int64)
    lengths = tokens.starts[places + 1] - tokens.starts[places]
    width = int(lengths.max())
    ids = np.full((len(rows), width), tokens.pad_id, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    types = np.zeros((len(rows), width), np.int64)
    for place, row in enumerate(rows):
        span = slice(tokens.starts[row], tokens.starts[row + 1])
        columns = slice(width - lengths[place], width) if tokens.pad_left else slice(0, lengths[place])
        ids[place, columns] = tokens.ids[span]
        mask[place, columns] = 1
        if tokens.segments is not None:
            types[place, columns] = tokens.segments[span]
    batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    return batch if tokens.segments is None else {**batch, "token_type_ids": torch.from_numpy(types)}


def epoch_groups(lengths: NDArray[np.int64], size: int, *, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Return the rows of one epoch in groups of `size`, one group an optimizer step; the short group holds the rest.

    Rows are shuffled, then sorted by length within pools of 50 groups, so that the rows of a group are of like length
    and little is padded; the order of the groups is shuffled again. Depends on nothing but the arguments.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    pools = [order[start : start + 50 * size] for start in range(0, len(order), 50 * size)]
    ordered = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    groups = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return [groups[place] for place in generator.permutation(len(groups))]


def batches_by_length(lengths: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Yield all rows once in batches of `size`, longest first: running out of memory shows at once."""
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]


def joined(parts: Sequence[Tokens]) -> Tokens:
    """Return the texts of all `parts`, one or more, of one tokenizer, in their order."""
    segments = [part.segments for part in parts if part.segments is not None]
    return Tokens(
        ids=np.concatenate([part.ids for part in parts]),
        segments=np.concatenate(segments) if len(segments) == len(parts) else None,
        starts=np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in parts]))]).astype(np.int64),
        pad_id=parts[0].pad_id,
        pad_left=parts[0].pad_left,
    )
