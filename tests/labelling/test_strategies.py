"""Strategies choose different rows, the ones that they say, and beat nothing by looking at labels."""

from __future__ import annotations

import numpy as np
import pytest

from peftlab.labelling.simulate import Embedded, Plan, labels_needed, probabilities_of, simulate
from peftlab.labelling.strategies import ABOUT, STRATEGIES, Pool, Strategy, choose


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Return 120 rows in six clusters; the probe is sure of the first three clusters, in doubt about the others."""
    random = np.random.default_rng(0)
    centres = np.eye(6, 8) * 5
    features = np.repeat(centres, 20, axis=0) + random.normal(size=(120, 8)) * 0.1
    doubt = np.linspace(0.5, 0.64, 60)
    first = np.concatenate([np.full(60, 0.98), doubt])
    return Pool(features.astype(np.float32), np.stack([first, 1.0 - first], axis=1))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_chooses_as_many_different_rows_as_asked_and_the_same_again(strategy: Strategy, pool: Pool) -> None:
    chosen = choose(strategy, pool, 12, seed=1)
    assert len(set(chosen.tolist())) == 12
    assert chosen.tolist() == choose(strategy, pool, 12, seed=1).tolist()
    assert sorted(choose(strategy, pool, 500, seed=1).tolist()) == list(range(120))
    assert ABOUT[strategy]


@pytest.mark.parametrize("strategy", ["uncertainty", "margin"])
def test_doubt_is_asked_first(strategy: Strategy, pool: Pool) -> None:
    assert choose(strategy, pool, 5, seed=0).tolist() == [60, 61, 62, 63, 64]


def test_diversity_takes_a_row_of_every_cluster(pool: Pool) -> None:
    assert {int(place) // 20 for place in choose("diversity", pool, 6, seed=0)} == set(range(6))


def test_margin_with_diversity_takes_the_doubtful_clusters_only(pool: Pool) -> None:
    assert {int(place) // 20 for place in choose("margin_diversity", pool, 6, seed=0)} == {3, 4, 5}


def test_badge_spreads_over_the_doubtful_clusters(pool: Pool) -> None:
    assert {3, 4, 5} <= {int(place) // 20 for place in choose("badge", pool, 8, seed=0)}


def test_badge_still_gives_rows_where_all_gradients_are_alike() -> None:
    same = Pool(np.ones((6, 3), np.float32), np.full((6, 2), 0.5))
    assert len(set(choose("badge", same, 4, seed=0).tolist())) == 4


def test_labels_needed_lie_between_points_and_one_lucky_point_does_not_count() -> None:
    sizes = [100, 200, 300, 400]
    assert labels_needed(sizes, np.asarray([0.5, 0.7, 0.8, 0.9]), 0.75) == pytest.approx(250)
    assert labels_needed(sizes, np.asarray([0.5, 0.9, 0.6, 0.7]), 0.75) is None
    assert labels_needed(sizes, np.asarray([0.8, 0.9, 0.9, 0.9]), 0.75) == 100


@pytest.fixture(scope="module")
def rows() -> tuple[Embedded, Embedded]:
    """Return a pool and held-out rows of four classes, one of them with 3 % of the rows."""
    random = np.random.default_rng(0)

    def make(count: int) -> Embedded:
        labels = random.choice(4, count, p=[0.4, 0.3, 0.27, 0.03])
        features = np.eye(4, 6)[labels] * 3 + random.normal(size=(count, 6))
        return Embedded(features.astype(np.float32), labels)

    return make(400), make(200)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_simulation_labels_what_was_planned_and_gets_better(
    strategy: Strategy, rows: tuple[Embedded, Embedded]
) -> None:
    pool, held_out = rows
    right = simulate(strategy, pool, [held_out, pool], Plan(10, 30, 130, 0.1), classes=4, seed=0)
    assert [one.shape for one in right] == [(5, 200), (5, 400)]
    assert right[0][-1].mean() > right[0][0].mean()
    again = simulate(strategy, pool, [held_out, pool], Plan(10, 30, 130, 0.1), classes=4, seed=0)
    assert np.array_equal(right[0], again[0])


def test_all_strategies_of_a_seed_start_from_the_same_rows(rows: tuple[Embedded, Embedded]) -> None:
    pool, held_out = rows
    starts = [simulate(one, pool, [held_out], Plan(10, 30, 40, 0.1), classes=4, seed=3)[0][0] for one in STRATEGIES]
    assert all(np.array_equal(starts[0], one) for one in starts)


def test_a_label_that_the_probe_never_saw_gets_no_probability(rows: tuple[Embedded, Embedded]) -> None:
    pool, _ = rows
    known = np.flatnonzero(pool.labels != 3)
    given = probabilities_of(Embedded(pool.features[known], pool.labels[known]), pool.features, 4, c=0.1)
    assert given[:, 3].max() == 0.0
    assert given.sum(1) == pytest.approx(1.0)
    only = probabilities_of(Embedded(pool.features[:3], np.asarray([2, 2, 2])), pool.features, 4, c=0.1)
    assert only[:, 2].min() == 1.0
