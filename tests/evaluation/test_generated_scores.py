"""BLEU, chrF and ROUGE of generated texts against sacrebleu itself, and their intervals."""

from __future__ import annotations

import importlib.util
import random
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from peftlab.data.paired import PairedSplit, Scoring
from peftlab.evaluation import generated_scores
from peftlab.evaluation.generated_scores import COPY, ROUGE, Generated, point_metrics, score_generated

TEXT = "The a man woman dog is running in park, near lake house with red ball and sees it quickly"
WORDS = TEXT.split()


def made_up(rows: int, seed: int = 0) -> tuple[PairedSplit, Generated]:
    """Return references of some words, sources of others, and outputs that share most words with the references."""
    draw = random.Random(seed)
    targets = [" ".join(draw.choices(WORDS, k=draw.randint(1, 14))) + "." for _ in range(rows)]
    texts = [" ".join(word for word in text.split() if draw.random() < 0.85).lower() for text in targets]
    texts[0] = ""
    sources = [" ".join(draw.choices(WORDS, k=6)) for _ in range(rows)]
    split = PairedSplit("test", [str(row) for row in range(rows)], sources, targets)
    ended = np.ones(rows, bool)
    ended[1] = False
    return split, Generated(texts, np.ones(rows, np.int64), ended)


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("tokenize", ["13a", "char", "zh", "none"])
def test_counts_of_rows_sum_to_what_sacrebleu_says_of_any_resample(tokenize: Any, lowercase: bool) -> None:
    """Rows drawn again and again, down to a corpus of which no 4-gram is right: BLEU and chrF are sacrebleu's."""
    split, generated = made_up(40)
    scoring = Scoring(tokenize, lowercase)
    counts = generated_scores._statistics(generated.texts, split.targets, scoring)
    generator = np.random.default_rng(1)
    draws = [generator.integers(0, 40, size) for size in (40, 40, 5, 2, 1)] + [np.array([0])]
    for rows in draws:
        texts, targets = [generated.texts[row] for row in rows], [split.targets[row] for row in rows]
        bleu, chrf = generated_scores._corpus(counts[rows].sum(0)[None])[0]
        # sacrebleu leaves orders out that a single sentence lacks where it is asked to; a corpus is not asked.
        expected = BLEU(tokenize=tokenize, lowercase=lowercase).corpus_score(texts, [targets]).score
        assert bleu == pytest.approx(expected, abs=1e-9)
        assert chrf == pytest.approx(CHRF(lowercase=lowercase).corpus_score(texts, [targets]).score, abs=1e-9)


def test_metrics_have_intervals_and_the_copied_sources_stand_beside_them() -> None:
    split, generated = made_up(200)
    scoring = Scoring("13a", lowercase=True)
    scores = score_generated(generated, split, scoring, rouge=False)
    assert list(scores.metrics) == ["bleu", "chrf", f"{COPY}bleu", f"{COPY}chrf"]
    points = point_metrics(generated.texts, split, scoring, rouge=False)
    copied = point_metrics(split.sources, split, scoring, rouge=False)
    for name in ("bleu", "chrf"):
        assert scores.metrics[name].value == points[name]
        assert scores.metrics[f"{COPY}{name}"].value == copied[name]
        assert (
            scores.metrics[f"{COPY}{name}"].high < scores.metrics[name].low < points[name] < scores.metrics[name].high
        )
    # sacrebleu's own bootstrap over sentences, of a mean and half a width.
    theirs = BLEU(lowercase=True).corpus_score(list(generated.texts), [list(split.targets)], n_bootstrap=300)
    half = (scores.metrics["bleu"].high - scores.metrics["bleu"].low) / 2
    assert half == pytest.approx(theirs._ci, rel=0.2)


def test_what_figures_depend_on_is_said() -> None:
    split, generated = made_up(20)
    told = score_generated(generated, split, Scoring("13a", lowercase=True), rouge=False).to_dict()
    assert told["facts"]["bleu"].startswith("nrefs:1|case:lc|eff:no|tok:13a|smooth:exp|version:")
    assert told["facts"]["chrf"].startswith("nrefs:1|case:lc|eff:yes|nc:6|nw:0|space:no|version:")
    assert "1 of 20 were cut at task.max_target_length" in told["facts"]["length"]
    output, reference = told["tables"][0]["rows"]
    assert output[0] == "output"
    assert output[1] == 0
    assert output[3] < reference[3]


def test_rouge_is_that_of_the_package() -> None:
    if importlib.util.find_spec("rouge_score") is None:
        pytest.skip("absent: rouge-score")
    split = PairedSplit("test", ["1"], ["x"], ["the cat sat"])
    values = point_metrics(["the cat"], split, Scoring("13a", lowercase=False), rouge=True)
    assert [values[name] for name in ROUGE] == pytest.approx([80.0, 200 / 3, 80.0])
    chinese = PairedSplit("test", ["1"], ["x"], ["包裹到了"])
    values = point_metrics(["包裹"], chinese, Scoring("zh", lowercase=False), rouge=True)
    assert values["rouge1"] == pytest.approx(200 / 3)
