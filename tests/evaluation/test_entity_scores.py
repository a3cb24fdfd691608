"""Entity scores are seqeval's, with intervals over sentences."""

from __future__ import annotations

import json

import numpy as np
import pytest
from seqeval.metrics import classification_report, f1_score
from seqeval.scheme import IOB2

from peftlab.data.tag_schemes import to_iob2
from peftlab.evaluation.entity_scores import METRICS, f1_difference, point_metrics, score_entities
from peftlab.runs.result import scored

GOLD = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "O"], ["B-ORG", "I-ORG", "B-PER"]]
TOLD = [["B-PER", "I-PER", "O", "B-ORG"], ["O", "B-LOC"], ["B-ORG", "O", "B-PER"]]


def random_tags(rows: int, seed: int) -> list[list[str]]:
    """Return sentences of valid tags."""
    draw = np.random.default_rng(seed)
    raw = [draw.choice(["O", "O", "I-PER", "I-LOC", "B-PER"], size=draw.integers(1, 12)).tolist() for _ in range(rows)]
    return [list(to_iob2(tags, "IOB1")) for tags in raw]


def test_a_wrong_end_or_type_is_no_entity_found() -> None:
    values = point_metrics(GOLD, TOLD)
    # Right: the first person and the last one; told: 5 entities, gold: 4.
    assert values["entity_precision"] == pytest.approx(2 / 5)
    assert values["entity_recall"] == pytest.approx(2 / 4)
    assert values["entity_f1"] == pytest.approx(4 / 9)
    assert values["token_accuracy"] == pytest.approx(6 / 9)
    assert values["token_f1"] == pytest.approx(2 * 4 / (6 + 6))


@pytest.mark.parametrize("seed", range(5))
def test_the_scores_are_those_of_a_call_of_seqeval_and_lie_in_their_intervals(seed: int) -> None:
    gold, told = random_tags(60, seed), random_tags(60, seed + 100)
    told = [
        list(own) if place % 3 else ([*other, *["O"] * len(own)])[: len(own)]
        for place, (own, other) in enumerate(zip(gold, told, strict=True))
    ]
    scores = score_entities(gold, told)
    assert scores.metrics["entity_f1"].value == f1_score(gold, told, mode="strict", scheme=IOB2)
    report = classification_report(gold, told, mode="strict", scheme=IOB2, output_dict=True)
    for name, precision, recall, f1, support in scores.types:
        row = report[name]
        assert (precision, recall, f1, support) == pytest.approx(tuple(row.values()))
    for name in METRICS:
        interval = scores.metrics[name]
        assert interval.low <= interval.value <= interval.high, name
        assert interval.n == 60
    assert scores.metrics["entity_f1"].low < scores.metrics["entity_f1"].high


def test_the_resampled_statistics_are_the_metrics_on_the_rows_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every row drawn once, both ends of each interval are its value."""
    from peftlab.evaluation import entity_scores

    gold, told = random_tags(40, 1), random_tags(40, 1)
    told[3] = ["O"] * len(told[3])
    told[7] = ["B-LOC"] * len(told[7])
    monkeypatch.setattr(entity_scores, "bootstrap_weighted", lambda statistic, n, **_: statistic(np.ones((2, n))))
    for name, interval in score_entities(gold, told).metrics.items():
        assert interval.low == pytest.approx(interval.value), name
        assert interval.high == pytest.approx(interval.value), name


def test_no_entity_at_all_is_scored_without_a_warning() -> None:
    values = point_metrics([["O", "O"]], [["O", "O"]])
    assert (values["entity_f1"], values["token_accuracy"], values["token_f1"]) == (0.0, 1.0, 0.0)
    assert score_entities([["O", "O"]], [["O", "O"]]).types == ()
    values = point_metrics([["B-PER"]], [["O"]])
    assert values["entity_f1"] == 0.0


def test_what_a_result_gets_is_plain_json_with_tables() -> None:
    told = scored(json.loads(json.dumps(score_entities(GOLD, TOLD).to_dict(), allow_nan=False)))
    assert told.metrics["entity_f1"].n == 3
    assert told.scores is None
    assert [table.columns[0] for table in told.tables] == ["type", "tag"]
    assert [row[0] for row in told.tables[0].rows] == ["LOC", "ORG", "PER", "micro avg", "macro avg", "weighted avg"]
    assert told.facts["entities scored by"].startswith("seqeval ")


def test_the_difference_of_two_taggers_is_paired_by_sentence() -> None:
    """Equal taggers differ by nothing; one that misses a fifth of the sentences differs by the F1 that it loses."""
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG"], ["O", "O"], ["B-PER"], ["B-LOC", "O"]] * 8
    worse = [list(tags) if place % 5 else ["O"] * len(tags) for place, tags in enumerate(gold)]
    none = f1_difference(gold, worse, worse)
    assert (none.value, none.low, none.high, none.n) == (0.0, 0.0, 0.0, 40)
    found = f1_difference(gold, gold, worse)
    assert found.value == pytest.approx(f1_score(gold, worse, mode="strict", scheme=IOB2) - 1.0)
    assert found.low < found.value < found.high < 0
