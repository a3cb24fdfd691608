"""Answers found in passages: the best span of each question, whether it is given, and how right it is.

Exact match and F1 are those of SQuAD (Rajpurkar et al. 2016, section 6.1): case, punctuation, English articles and
white space do not count; F1 is over words, over characters in Chinese; of several right answers the nearest counts. A
question without an answer is right where none is given (Rajpurkar et al. 2018).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.question_windows import QuestionWindows
from peftlab.data.questioned import QuestionSplit
from peftlab.evaluation.intervals import Interval, bootstrap_weighted, percentiles

METRICS = ("exact_match", "f1")
PARTS = ("answerable_exact_match", "answerable_f1", "unanswerable_right")
RESAMPLES = 1000
ALWAYS = -1e9
"""Threshold at which every question is answered."""
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation + "，。！？；：、“”‘’（）《》【】…—")
_UNIT = re.compile(r"[\u4e00-\u9fff]|[^\s\u4e00-\u9fff]+")


@dataclass(frozen=True)
class Found:
    """The best span of each question, [rows]: characters of its passage, and by how much it beats no answer at all.

    A question is answered where `margins` is above `threshold`.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    margins: NDArray[np.float64]
    threshold: float

    def texts(self, contexts: Sequence[str], *, always: bool = False) -> list[str]:
        """Return the answers to questions on `contexts`, empty where none is given; `always`: the best span anyhow."""
        given = self.margins > self.threshold
        rows = zip(contexts, self.starts.tolist(), self.ends.tolist(), given.tolist(), strict=True)
        return [context[start:end] if always or answers else "" for context, start, end, answers in rows]


@dataclass(frozen=True)
class AnswerScores:
    """Metrics of one split with their 95 % intervals, and what they depend on."""

    metrics: Mapping[str, Interval]
    facts: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: `metrics` and `facts` as in result.json."""
        return {
            "metrics": {name: interval.to_dict() for name, interval in self.metrics.items()},
            "facts": dict(self.facts),
        }


def best_spans(logits: NDArray[np.float32], encoded: QuestionWindows, most: int, threshold: float) -> Found:
    """Return the best span of each question, of at most `most` tokens, over all its windows.

    `logits` [windows, tokens, 2]: scores of being an answer's first and last token. A span has the sum of both; no
    answer has that of the first token of all, in the window where it is least (Devlin et al. 2019, section 4.3).
    """
    rows = len(encoded)
    starts, ends = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    best, none = np.full(rows, -np.inf), np.full(rows, np.inf)
    for row in range(rows):
        for window in range(int(encoded.rows[row]), int(encoded.rows[row + 1])):
            spans = encoded.span_of(window)
            own = logits[window, : len(spans)].astype(np.float64)
            none[row] = min(none[row], own[0].sum())
            inside = np.flatnonzero(spans[:, 1] > spans[:, 0])
            if not len(inside):
                continue
            first, last = inside[0], inside[-1] + 1
            sums = own[first:last, 0][:, None] + own[first:last, 1][None, :]
            allowed = np.triu(np.ones_like(sums, bool)) & ~np.triu(np.ones_like(sums, bool), most)
            flat = int(np.where(allowed, sums, -np.inf).argmax())
            begin, end = divmod(flat, sums.shape[1])
            if sums[begin, end] > best[row]:
                best[row] = sums[begin, end]
                starts[row], ends[row] = spans[first + begin, 0], spans[first + end, 1]
    # A passage without a token has no answer, whatever the threshold.
    return Found(starts, ends, np.where(np.isfinite(best), best - none, 2 * ALWAYS), threshold)


def fitted_threshold(found: Found, split: QuestionSplit) -> float:
    """Return the threshold at which the F1 of `split` is highest; ALWAYS where every question has an answer."""
    if all(split.answers):
        return ALWAYS
    answered = right_rows(found.texts(split.contexts, always=True), split)[:, 1]
    silent = np.asarray([float(not answers) for answers in split.answers])
    order = np.argsort(-found.margins, kind="stable")
    # The first k questions in order of their margins are answered, for each k; between equal margins there is no k.
    totals = silent.sum() + np.concatenate([[0.0], np.cumsum((answered - silent)[order])])
    margins = found.margins[order]
    between = np.concatenate([[True], margins[1:] < margins[:-1], [True]])
    count = int(np.where(between, totals, -np.inf).argmax())
    if count == 0:
        return float(margins[0])
    return float(margins[-1]) - 1.0 if count == len(margins) else float(margins[count - 1] + margins[count]) / 2


def right_rows(texts: Sequence[str], split: QuestionSplit) -> NDArray[np.float64]:
    """Return exact match and F1 of each of `texts`, [rows, 2]; empty is right where there is no answer."""
    rows = []
    for text, answers in zip(texts, split.answers, strict=True):
        right = [one.text for one in answers if normalised(one.text)] or [""]
        rows.append(
            [max(float(normalised(text) == normalised(one)) for one in right), max(_f1(text, one) for one in right)]
        )
    return np.asarray(rows, np.float64).reshape(-1, 2)


def normalised(text: str) -> str:
    """Return `text` as SQuAD compares it."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _f1(text: str, right: str) -> float:
    said, asked = (_UNIT.findall(normalised(one)) for one in (text, right))
    if not said or not asked:
        return float(said == asked)
    common = (Counter(said) & Counter(asked)).total()
    return 2 * common / (len(said) + len(asked))


def point_metrics(found: Found, split: QuestionSplit) -> dict[str, float]:
    """Return METRICS of a validation, at the threshold that suits it best, without intervals."""
    fitted = replace(found, threshold=fitted_threshold(found, split))
    return dict(zip(METRICS, right_rows(fitted.texts(split.contexts), split).mean(0).tolist(), strict=True))


def score_answers(found: Found, split: QuestionSplit, *, seed: int = 0) -> AnswerScores:
    """Return METRICS, and those of each kind of question where there are both, with 95 % intervals over questions."""
    rows = right_rows(found.texts(split.contexts), split)
    has = np.asarray([float(bool(answers)) for answers in split.answers])
    both = 0 < has.sum() < len(has)
    columns = np.concatenate([rows, rows * has[:, None], rows[:, :1] * (1 - has)[:, None]], axis=1)

    def statistics(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        sums, answerable = drawn @ columns, drawn @ has
        counts = np.stack([drawn.sum(1)] * 2 + [answerable] * 2 + [drawn.sum(1) - answerable], axis=1)
        means: NDArray[np.float64] = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
        return means[:, : 5 if both else 2]

    n = len(split)
    values = statistics(np.ones((1, n)))[0]
    low, high = percentiles(bootstrap_weighted(statistics, n, resamples=RESAMPLES, seed=seed))
    counted = [n, n, int(has.sum()), int(has.sum()), int(n - has.sum())]
    metrics = {
        name: Interval(float(values[place]), float(low[place]), float(high[place]), counted[place])
        for place, name in enumerate((*METRICS, *(PARTS if both else ())))
    }
    given = int((found.margins > found.threshold).sum())
    told = (
        "every question is answered"
        if found.threshold <= ALWAYS
        else f"answers above a margin of {found.threshold:.4f}"
    )
    facts = {
        "no answer": f"{told}, fitted on the validation rows; {given:,} of {n:,} questions answered",
        "scored by": "the rules of SQuAD: case, punctuation, English articles and white space do not count",
        "intervals": f"percentile bootstrap over questions, {RESAMPLES:,} resamples",
    }
    return AnswerScores(MappingProxyType(metrics), MappingProxyType(facts))
