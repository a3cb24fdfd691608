"""Questions with their passages as tokens, a long passage in overlapping windows, and where answers stand in these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.questioned import Answer, QuestionSplit
from peftlab.data.tokens import Batch, Tokens, pad

_CHUNK = 512  # questions given to the tokenizer at a time


@dataclass(frozen=True)
class QuestionWindows:
    """Questions in windows: question i is the windows `rows[i]` to `rows[i + 1]` of `windows`.

    `spans` [tokens, 2]: characters of the passage that each token stands for, -1 where it is none of the passage's.
    `targets` [windows, 2]: first and last token of the answer, both 0, the first token of all, where the window does
    not hold it whole.
    """

    windows: Tokens
    rows: NDArray[np.int64]
    spans: NDArray[np.int32]
    targets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each question, over all its windows."""
        return np.diff(self.windows.starts[self.rows])

    @property
    def width(self) -> int:
        """Tokens of the longest window."""
        return self.windows.width

    @property
    def shared(self) -> int:
        """Questions whose passage is read in more than one window."""
        return int((np.diff(self.rows) > 1).sum())

    def first(self, rows: int) -> QuestionWindows:
        """Return the first `rows` questions."""
        kept = self.rows[: rows + 1]
        windows = self.windows.first(int(kept[-1]))
        return QuestionWindows(windows, kept, self.spans[: int(windows.starts[-1])], self.targets[: int(kept[-1])])

    def span_of(self, window: int) -> NDArray[np.int32]:
        """Return the `spans` of one window, [its tokens, 2]."""
        return self.spans[self.windows.starts[window] : self.windows.starts[window + 1]]


def most_question_tokens(max_length: int) -> int:
    """Return how many tokens a question may have, special tokens included: half a window."""
    return max_length // 2


def question_windows(tokenizer: Any, split: QuestionSplit, max_length: int, overlap: float) -> QuestionWindows:
    """Tokenise `split` in windows of `max_length` tokens: the question, then as much of the passage as fits.

    `overlap`: share of the least room of a passage that a window has in common with the one before it. A question is
    cut to half a window.
    """
    least = max_length - most_question_tokens(max_length) - 2
    stride = max(0, min(int(overlap * least), least - 1))
    ids: list[int] = []
    types: list[int] = []
    spans: list[tuple[int, int]] = []
    lengths: list[int] = []
    counts: list[int] = []
    targets: list[tuple[int, int]] = []
    for start in range(0, len(split), _CHUNK):
        rows = range(start, min(start + _CHUNK, len(split)))
        encoded = tokenizer(
            [_short(tokenizer, split.questions[row], max_length) for row in rows],
            [split.contexts[row] for row in rows],
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        owners = encoded["overflow_to_sample_mapping"]
        counts += np.bincount(owners, minlength=len(rows)).tolist()
        for window, owner in enumerate(owners):
            sides, offsets = encoded.sequence_ids(window), encoded["offset_mapping"][window]
            own = [pair if side == 1 else (-1, -1) for side, pair in zip(sides, offsets, strict=True)]
            ids += encoded["input_ids"][window]
            types += encoded["token_type_ids"][window] if "token_type_ids" in encoded else []
            spans += own
            lengths.append(len(own))
            targets.append(_target(own, split.answers[rows[owner]]))
    return QuestionWindows(
        windows=Tokens(
            ids=np.asarray(ids, np.int32),
            segments=np.asarray(types, np.int8) if types else None,
            starts=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
            pad_id=int(tokenizer.pad_token_id),
            pad_left=False,
        ),
        rows=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
        spans=np.asarray(spans, np.int32).reshape(-1, 2),
        targets=np.asarray(targets, np.int64).reshape(-1, 2),
    )


def window_batches(encoded: QuestionWindows) -> Callable[[NDArray[np.int64], int], Batch]:
    """Return a function from rows and epoch to their batch; the epoch makes no difference.

    The inputs are all windows of the rows. Targets, int64 [windows, 3]: first and last token of the answer, and the
    place of the row in the batch.
    """
    import torch

    def batch(rows: NDArray[np.int64], epoch: int) -> Batch:  # noqa: ARG001 the loop's contract
        windows = np.concatenate([np.arange(encoded.rows[row], encoded.rows[row + 1]) for row in rows])
        owners = np.repeat(np.arange(len(rows)), np.diff(encoded.rows)[rows])
        targets = np.concatenate([encoded.targets[windows], owners[:, None]], axis=1)
        return Batch(pad(encoded.windows, windows), torch.from_numpy(targets))

    return batch


def _short(tokenizer: Any, question: str, max_length: int) -> str:
    """Return `question`, cut where it would leave no room for a passage; training refuses such rows before."""
    most = most_question_tokens(max_length) - 2
    # A token has at least a character in most tokenizers, so that few questions are tokenised here.
    if len(question) <= most:
        return question
    offsets = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return question if len(offsets) <= most else question[: offsets[most - 1][1]]


def _target(spans: Sequence[tuple[int, int]], answers: Sequence[Answer]) -> tuple[int, int]:
    """Return the first and the last token of the first answer, (0, 0) where the window does not hold it whole."""
    inside = [place for place, (start, end) in enumerate(spans) if end > start >= 0]
    if not answers or not inside:
        return 0, 0
    answer = answers[0]
    # White space at the ends of an answer has no token.
    start = answer.start + len(answer.text) - len(answer.text.lstrip())
    end = answer.start + len(answer.text.rstrip())
    if spans[inside[0]][0] > start or spans[inside[-1]][1] < end:
        return 0, 0
    first = next((place for place in inside if spans[place][1] > start), 0)
    last = next((place for place in reversed(inside) if spans[place][0] < end), 0)
    return (first, last) if 0 < first <= last else (0, 0)
