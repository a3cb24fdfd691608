"""Scores of generated texts against their references: BLEU and chrF by sacrebleu, ROUGE for summaries, lengths.

BLEU: Papineni et al. 2002, as Post 2018 (arXiv 1804.08771) asks for it, with its signature. chrF: Popovic 2015. ROUGE:
Lin 2004, by the package rouge-score. All go from 0 to 100. Beside them stand BLEU and chrF of the sources themselves,
as if they had been copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.paired import PairedSplit, Scoring
from peftlab.errors import MissingPackage
from peftlab.evaluation.intervals import Interval, bootstrap_weighted, percentiles

ROUGE = ("rouge1", "rouge2", "rougeL")
METRICS = ("bleu", "chrf", *ROUGE)
COPY = "copy_source_"
"""Stands before the names of the metrics that the sources get."""
RESAMPLES = 1000
_BLEU_ORDER, _CHRF_ORDER, _BETA = 4, 6, 2


@dataclass(frozen=True)
class Generated:
    """Texts that a model made, [rows]: their tokens without the last one, and whether each came to its end."""

    texts: Sequence[str]
    tokens: NDArray[np.int64]
    ended: NDArray[np.bool_]


@dataclass(frozen=True)
class GeneratedScores:
    """Metrics with their 95 % intervals, a table of lengths, and what the metrics depend on."""

    metrics: Mapping[str, Interval]
    lengths: tuple[tuple[str, int, int, float, int], ...]
    facts: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: `metrics`, `tables` and `facts` as in result.json."""
        columns = ["text", "shortest", "median", "mean", "longest"]
        rows = [list(row) for row in self.lengths]
        return {
            "metrics": {name: interval.to_dict() for name, interval in self.metrics.items()},
            "tables": [{"title": "Lengths on the test split, in sacrebleu's tokens", "columns": columns, "rows": rows}],
            "facts": dict(self.facts),
        }


def point_metrics(texts: Sequence[str], split: PairedSplit, scoring: Scoring, *, rouge: bool) -> dict[str, float]:
    """Return BLEU and chrF of `texts`, with `rouge` also ROUGE, without intervals."""
    bleu, chrf = _metrics(scoring)
    references = [list(split.targets)]
    values = {
        "bleu": float(bleu.corpus_score(list(texts), references).score),
        "chrf": float(chrf.corpus_score(list(texts), references).score),
    }
    if rouge:
        values |= dict(zip(ROUGE, map(float, _rouge(texts, split.targets, scoring).mean(0)), strict=True))
    return values


def score_generated(
    generated: Generated, split: PairedSplit, scoring: Scoring, *, rouge: bool, seed: int = 0
) -> GeneratedScores:
    """Return the metrics with 95 % percentile bootstrap intervals over rows, and the same of the copied sources.

    All are resampled together, from counts of each row (Koehn 2004 resamples sentences): sacrebleu is asked once a row.
    """
    n, own = len(split), _statistics(generated.texts, split.targets, scoring)
    copied = _statistics(split.sources, split.targets, scoring)
    parts = [own, copied] + ([_rouge(generated.texts, split.targets, scoring)] if rouge else [])
    flat, width = np.concatenate(parts, axis=1), own.shape[1]

    def statistics(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = drawn @ flat
        return np.concatenate(
            [_corpus(sums[:, :width]), _corpus(sums[:, width : 2 * width]), sums[:, 2 * width :] / n], axis=1
        )

    low, high = percentiles(bootstrap_weighted(statistics, n, resamples=RESAMPLES, seed=seed))
    values = point_metrics(generated.texts, split, scoring, rouge=rouge)
    beside = point_metrics(split.sources, split, scoring, rouge=False)
    names = ["bleu", "chrf", f"{COPY}bleu", f"{COPY}chrf", *(ROUGE if rouge else ())]
    values |= {f"{COPY}{name}": value for name, value in beside.items()}
    metrics = {
        name: Interval(values[name], float(low[place]), float(high[place]), n) for place, name in enumerate(names)
    }
    order = [*(name for name in METRICS if name in metrics), *(name for name in names if name.startswith(COPY))]
    return GeneratedScores(
        metrics=MappingProxyType({name: metrics[name] for name in order}),
        lengths=(_length_row("output", own[:, 8]), _length_row("reference", own[:, 9])),
        facts=MappingProxyType(_facts(generated, own, scoring, rouge=rouge)),
    )


def _metrics(scoring: Scoring) -> tuple[Any, Any]:
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise MissingPackage(
            'the task translation needs sacrebleu, which is not installed; run: pip install "peftlab[translation]"'
        ) from error
    return BLEU(tokenize=scoring.tokenize, lowercase=scoring.lowercase), CHRF(lowercase=scoring.lowercase)


def _statistics(texts: Sequence[str], references: Sequence[str], scoring: Scoring) -> NDArray[np.float64]:
    """Return what BLEU and chrF of a corpus are sums of, [rows, 28].

    Right and made n-grams of orders 1 to 4, tokens of output and reference; then made, reference and right n-grams of
    characters for each of the orders 1 to 6.
    """
    from sacrebleu.metrics.bleu import BLEU

    # A single sentence may lack the longer n-grams; its score is not used, its counts are.
    counting = BLEU(tokenize=scoring.tokenize, lowercase=scoring.lowercase, effective_order=True)
    rows = []
    for text, reference in zip(texts, references, strict=True):
        found = counting.sentence_score(text, [reference])
        row = [*found.counts, *found.totals, found.sys_len, found.ref_len]
        rows.append(row + _characters(text, reference, lowercase=scoring.lowercase))
    return np.asarray(rows, np.float64)


def _characters(text: str, reference: str, *, lowercase: bool) -> list[int]:
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    sides = (one.lower() if lowercase else one for one in (text, reference))
    counts: list[int] = []
    for made, right in zip(*(extract_all_char_ngrams(side, _CHRF_ORDER) for side in sides), strict=True):
        # As sacrebleu has it: what a reference is too short for is not counted as made.
        counts += [made.total() if right else 0, right.total(), (made & right).total()]
    return counts


def _corpus(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return BLEU and chrF of corpora whose `_statistics` sum to `sums` [corpora, 28], as [corpora, 2]."""
    return np.stack([_bleu(sums[:, :10]), _chrf(sums[:, 10:].reshape(len(sums), _CHRF_ORDER, 3))], axis=1)


def _bleu(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return BLEU with sacrebleu's default smoothing: the k-th precision of zero becomes 1 / (2^k totals)."""
    right, made, said, asked = sums[:, :4], sums[:, 4:8], sums[:, 8], sums[:, 9]
    halved = 2.0 ** np.cumsum(right == 0, axis=1)
    counted = np.where(right == 0, 1.0 / halved, right)
    precisions = np.divide(counted, made, out=np.zeros_like(made), where=made > 0)
    with np.errstate(divide="ignore"):
        means = np.exp(np.log(precisions).mean(1))
    shorter = np.divide(asked, said, out=np.full_like(said, np.inf), where=said > 0)
    scores: NDArray[np.float64] = 100 * means * np.exp(np.minimum(0.0, 1.0 - shorter))
    scores[(right == 0).all(1)] = 0.0
    return scores


def _chrf(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return F2 of the mean precision and recall over the orders that both sides have."""
    made, asked, right = (sums[:, :, place] for place in range(3))
    both = (made > 0) & (asked > 0)
    orders = np.maximum(both.sum(1), 1)
    precision, recall = (
        np.divide(right, side, out=np.zeros_like(right), where=both).sum(1) / orders for side in (made, asked)
    )
    below = _BETA**2 * precision + recall
    above = (1 + _BETA**2) * precision * recall
    scores: NDArray[np.float64] = 100 * np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return scores


def _rouge(texts: Sequence[str], references: Sequence[str], scoring: Scoring) -> NDArray[np.float64]:
    """Return the F measures of ROUGE of each row, [rows, 3], without stemming; of Chinese by character."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise MissingPackage(
            'task.kind = "summarisation" needs rouge-score, which is not installed; run: pip install '
            '"peftlab[summarisation]"'
        ) from error
    scorer = RougeScorer(list(ROUGE), use_stemmer=False, tokenizer=_ByCharacter() if _by_character(scoring) else None)
    rows = []
    for text, reference in zip(texts, references, strict=True):
        found = scorer.score(reference, text)
        rows.append([100 * found[name].fmeasure for name in ROUGE])
    return np.asarray(rows, np.float64)


class _ByCharacter:
    """A tokenizer as rouge-score asks for one; its own keeps nothing but Latin letters and digits."""

    def tokenize(self, text: str) -> list[str]:
        """Return the characters of `text` but for white space."""
        return [character for character in text.lower() if not character.isspace()]


def _by_character(scoring: Scoring) -> bool:
    return scoring.tokenize in ("zh", "char")


def _length_row(name: str, lengths: NDArray[np.float64]) -> tuple[str, int, int, float, int]:
    middle = int(np.quantile(lengths, 0.5, method="inverted_cdf"))
    return name, int(lengths.min()), middle, float(lengths.mean()), int(lengths.max())


def _facts(generated: Generated, own: NDArray[np.float64], scoring: Scoring, *, rouge: bool) -> dict[str, str]:
    bleu, chrf = _metrics(scoring)
    # sacrebleu knows the number of references once it has scored something.
    signatures = []
    for metric in (bleu, chrf):
        metric.corpus_score(["a"], [["a"]])
        signatures.append(str(metric.get_signature()))
    said, asked = own[:, 8].sum(), own[:, 9].sum()
    cut = int((~generated.ended).sum())
    facts = {
        "bleu": signatures[0],
        "chrf": signatures[1],
        "copy_source": "the sources themselves, scored as if they were the outputs",
        "length": f"outputs have {said / asked:.3f} times the tokens of the references"
        + (f"; {cut:,} of {len(own):,} were cut at task.max_target_length" if cut else ""),
        "intervals": f"percentile bootstrap over rows, {RESAMPLES:,} resamples",
    }
    if rouge:
        units = "characters" if _by_character(scoring) else "its own words"
        facts["rouge"] = f"rouge-score {metadata.version('rouge-score')}, F measure, {units}, no stemming"
    return facts
