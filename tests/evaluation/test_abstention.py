"""The promise of a threshold holds although the threshold was chosen: by simulation, where the truth is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from peftlab.errors import DataError
from peftlab.evaluation.abstention import Abstention, fit_abstention, fit_temperature, risk_coverage
from peftlab.evaluation.intervals import wilson
from peftlab.evaluation.routing import tempered

Floats = NDArray[np.float64]
DATASETS, ROWS = 500, 600
# A share of 5 % may come out higher in 500 datasets: by more than this with a probability below 1 %.
MOST_BROKEN = 0.05 + 2.33 * np.sqrt(0.05 * 0.95 / DATASETS)


def logistic(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))


# What a model says is logistic(margin), with margins |N(0, 6)|. How often it is right at that margin, by name:
PROFILES: dict[str, Callable[[Floats], Floats]] = {
    "calibrated": logistic,
    "overconfident": lambda margin: logistic(margin / 2),
    "underconfident": lambda margin: logistic(2 * margin),
    "just below the target everywhere": lambda margin: np.full_like(margin, 0.949),
    "wrong where it is surest": lambda margin: np.where(margin > 15.0, 0.5, logistic(margin)),
    "a cliff": lambda margin: np.where(margin > 3.0, 0.99, 0.70),
    "risk that falls and rises again": lambda margin: 0.952 + 0.03 * np.cos(2 * margin),
}


class Population:
    """A profile as known without end: the true risk and coverage of every threshold."""

    def __init__(self, right: Callable[[Floats], Floats]) -> None:
        self.right = right
        self.margins = np.sort(np.abs(np.random.default_rng(1).normal(0, 6, 400_000)))[::-1]
        self.risks = np.cumsum(1 - right(self.margins)) / np.arange(1, len(self.margins) + 1)

    def draw(self, generator: np.random.Generator, rows: int) -> tuple[Floats, NDArray[np.int64]]:
        margin = np.abs(generator.normal(0, 6, rows))
        labels = (generator.random(rows) > self.right(margin)).astype(np.int64)
        first = logistic(margin)
        return np.stack([first, 1 - first], axis=1), labels

    def routed(self, found: Abstention) -> int:
        if found.threshold is None:
            return 0
        if found.threshold <= 0.5:
            return len(self.margins)
        margin = found.temperature * np.log(found.threshold / (1 - found.threshold))
        return int(np.searchsorted(-self.margins, -margin, side="right"))

    def risk(self, found: Abstention) -> float:
        routed = self.routed(found)
        return float(self.risks[routed - 1]) if routed else 0.0


def simulate(profile: str, target: float = 0.95, rows: int = ROWS) -> tuple[Population, list[Abstention]]:
    population, generator = Population(PROFILES[profile]), np.random.default_rng(7)
    fits = [fit_abstention(*population.draw(generator, rows), target=target, confidence=0.95) for _ in range(DATASETS)]
    return population, fits


@pytest.mark.parametrize("profile", PROFILES)
def test_the_promise_is_broken_in_no_more_datasets_than_stated(profile: str) -> None:
    population, fits = simulate(profile)
    broken = [population.risk(found) > 0.05 for found in fits]
    assert np.mean(broken) <= MOST_BROKEN


def test_a_promise_that_can_be_kept_routes_most_of_what_could_be() -> None:
    """Against the lowest threshold that the truth allows; with more rows, more of it."""
    for rows, least in ((ROWS, 0.85), (4000, 0.93)):
        population, fits = simulate("calibrated", rows=rows)
        possible = int((population.risks <= 0.05).sum())
        assert np.mean([population.routed(found) for found in fits]) > least * possible


def test_the_interval_of_the_coverage_holds_the_true_coverage() -> None:
    """Although the threshold was chosen on the same rows: Wilson's 95 % interval, in 500 datasets."""
    population, fits = simulate("calibrated")
    held = []
    for found in fits:
        interval = wilson(found.routed, found.rows_tested)
        held.append(interval.low <= population.routed(found) / len(population.margins) <= interval.high)
    assert np.mean(held) >= 0.93


def test_the_lowest_threshold_whose_own_bound_is_good_would_break_the_promise() -> None:
    """Why thresholds are tested in order: picking the best of all of them errs far more often than stated."""
    from scipy.stats import binom

    population, generator = Population(PROFILES["just below the target everywhere"]), np.random.default_rng(7)
    broken = 0
    for _ in range(DATASETS):
        chances, labels = population.draw(generator, ROWS)
        order = np.argsort(-chances.max(axis=1))
        errors = np.cumsum(labels[order])
        broken += bool((binom.cdf(errors, np.arange(1, ROWS + 1), 0.05) <= 0.05).any())
    assert broken / DATASETS > 2 * MOST_BROKEN


def test_among_more_candidates_each_has_to_be_surer() -> None:
    """Ten models of which the rows chose one: the same as asking one of them for a confidence of 99.5 %."""
    chances, labels = Population(PROFILES["calibrated"]).draw(np.random.default_rng(3), 2000)
    alone, surer, ten = (
        fit_abstention(chances, labels, target=0.95, confidence=confidence, candidates=candidates)
        for confidence, candidates in ((0.95, 1), (0.995, 1), (0.95, 10))
    )
    assert ten.threshold == pytest.approx(surer.threshold)
    assert (ten.routed, ten.wrong) == (surer.routed, surer.wrong)
    assert 0 < ten.routed < alone.routed


def test_what_is_said_of_the_rows_is_so() -> None:
    """The threshold routes exactly the rows that it says, of the rows that it was tested on."""
    chances, labels = Population(PROFILES["overconfident"]).draw(np.random.default_rng(3), 1000)
    found = fit_abstention(chances, labels, target=0.9, confidence=0.95)
    assert found.threshold is not None
    assert (found.rows_fitted, found.rows_tested) == (200, 800)
    rest = np.random.default_rng(0).permutation(1000)[200:]
    score = tempered(chances, found.temperature).max(axis=1)[rest]
    assert found.routed == int((score >= found.threshold).sum())
    assert found.wrong == int(labels[rest][score >= found.threshold].sum())


def test_where_nothing_can_be_promised_it_says_how_many_rows_might_do() -> None:
    """Too few rows: a number, which then does. A model that is wrong too often wherever: none."""
    population, generator = Population(PROFILES["a cliff"]), np.random.default_rng(5)
    few = fit_abstention(*population.draw(generator, 100), target=0.95, confidence=0.95)
    assert (few.threshold, few.routed, few.wrong) == (None, 0, 0)
    assert few.rows_needed is not None
    assert few.rows_needed > 100
    draws = [population.draw(generator, few.rows_needed) for _ in range(50)]
    routed = [fit_abstention(*draw, target=0.95, confidence=0.95).threshold is not None for draw in draws]
    assert np.mean(routed) > 0.6
    chances, _ = population.draw(generator, 500)
    hopeless = fit_abstention(chances, np.ones(500, np.int64), target=0.95, confidence=0.95)
    assert (hopeless.threshold, hopeless.rows_needed) == (None, None)


def test_a_model_that_is_never_wrong_answers_everything() -> None:
    chances, _ = Population(PROFILES["calibrated"]).draw(np.random.default_rng(0), 500)
    found = fit_abstention(chances, np.zeros(500, np.int64), target=0.97, confidence=0.99)
    assert (found.threshold, found.routed, found.wrong) == (0.0, 400, 0)
    assert 0 < found.temperature < 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_again(temperature: float) -> None:
    """Labels are drawn from softmax(logits / T); 5,000 rows of four labels."""
    generator = np.random.default_rng(2)
    logits = generator.normal(0, 3, (5000, 4))
    shares = tempered(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), temperature)
    labels = (shares.cumsum(axis=1) < generator.random((5000, 1))).sum(axis=1)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert fit_temperature(chances, labels) == pytest.approx(temperature, rel=0.05)


def test_probabilities_of_zero_and_equal_scores_are_no_trouble() -> None:
    chances = np.repeat([[1.0, 0.0, 0.0]], 300, axis=0)
    labels = np.zeros(300, np.int64)
    labels[:30] = 1
    found = fit_abstention(chances, labels, target=0.8, confidence=0.95)
    assert found.threshold == 0.0
    assert fit_abstention(chances, labels, target=0.95, confidence=0.95).threshold is None


def test_the_curve_falls_from_the_surest_rows_to_all() -> None:
    thresholds, coverage, accuracy = risk_coverage(np.array([0.9, 0.5, 0.9, 0.7]), np.array([True, False, True, False]))
    assert thresholds.tolist() == [0.9, 0.7, 0.5]
    assert coverage.tolist() == [0.5, 0.75, 1.0]
    assert accuracy.tolist() == pytest.approx([1.0, 2 / 3, 0.5])


@pytest.mark.parametrize(("target", "confidence"), [(1.0, 0.95), (0.95, 0.0), (95.0, 0.95), (float("nan"), 0.95)])
def test_a_share_that_is_none_is_refused(target: float, confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit_abstention(np.full((20, 2), 0.5), np.zeros(20, np.int64), target=target, confidence=confidence)


def test_too_few_rows_are_refused_in_a_sentence() -> None:
    with pytest.raises(DataError, match="there are 9 validation rows"):
        fit_abstention(np.full((9, 2), 0.5), np.zeros(9, np.int64), target=0.9, confidence=0.9)
