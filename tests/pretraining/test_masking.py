"""What is predicted: whole words, the asked share, drawn from seed, epoch and row alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftlab.pretraining.masking import IGNORED, choose_words, masked_batch
from peftlab.pretraining.packing import BEGINS, CONTINUES, SPECIAL
from peftlab.recipe.pretraining import Masking

LENGTH = 200
MASK, VOCABULARY = 4, 1000


@pytest.fixture
def sequences() -> tuple[np.ndarray, np.ndarray]:
    """Return ids and marks of 40 sequences; words have one to four tokens."""
    draw = np.random.default_rng(0)
    ids = draw.integers(5, VOCABULARY, (40, LENGTH)).astype(np.uint16)
    marks = np.where(draw.random((40, LENGTH)) < 0.5, BEGINS, CONTINUES).astype(np.uint8)
    marks[:, 0] = marks[:, 100] = SPECIAL
    return ids, marks


@given(
    marks=st.lists(st.sampled_from([CONTINUES, BEGINS, SPECIAL]), min_size=2, max_size=80),
    share=st.floats(0.01, 0.9),
    seed=st.integers(0, 100),
)
def test_words_are_drawn_whole_and_nothing_special_is(marks: list[int], share: float, seed: int) -> None:
    row = np.asarray(marks, np.uint8)
    drawn = set(choose_words(row, share, np.random.default_rng(seed)).tolist())

    assert all(row[place] != SPECIAL for place in drawn)
    for place in range(1, len(row)):
        if row[place] == CONTINUES and row[place - 1] != SPECIAL:
            assert (place in drawn) == (place - 1 in drawn), "a word is drawn whole or not at all"
    assert bool(drawn) == bool((row != SPECIAL).any()), "at least one word of a sequence is predicted"


def test_the_share_is_what_was_asked_for(sequences: tuple[np.ndarray, np.ndarray]) -> None:
    _, marks = sequences
    drawn = [len(choose_words(row, 0.15, np.random.default_rng(number))) for number, row in enumerate(marks)]

    assert np.mean(drawn) / (LENGTH - 2) == pytest.approx(0.15, abs=0.01)


def test_predictions_point_at_the_original_tokens(sequences: tuple[np.ndarray, np.ndarray]) -> None:
    """Of the predicted places 80 % are masked, 10 % random and 10 % kept; no other place changes."""
    ids, marks = sequences
    rows = np.arange(40)
    batch = masked_batch(ids, marks, rows, Masking(), mask_id=MASK, vocabulary=VOCABULARY, seed=1, epoch=2)
    inputs, positions, targets = batch.inputs["input_ids"], batch.inputs["positions"], batch.targets
    real = targets != IGNORED
    original = np.take_along_axis(ids.astype(np.int64), positions.numpy(), 1)

    assert (targets[real].numpy() == original[real.numpy()]).all()
    shown = inputs.gather(1, positions)[real].numpy()
    masked, kept = (shown == MASK).mean(), (shown == original[real.numpy()]).mean()
    assert masked == pytest.approx(0.8, abs=0.04)
    assert kept == pytest.approx(0.1, abs=0.04)
    untouched = np.ones_like(ids, bool)
    for row in range(40):
        untouched[row, positions[row][real[row]].numpy()] = False
    assert (inputs.numpy()[untouched] == ids[untouched]).all()


def test_a_row_is_masked_alike_in_any_batch_and_anew_in_every_epoch(sequences: tuple[np.ndarray, np.ndarray]) -> None:
    ids, marks = sequences

    def shown(rows: list[int], epoch: int) -> np.ndarray:
        batch = masked_batch(
            ids, marks, np.asarray(rows), Masking(), mask_id=MASK, vocabulary=VOCABULARY, seed=0, epoch=epoch
        )
        return batch.inputs["input_ids"].numpy()

    assert (shown([3, 7], 0)[1] == shown([7], 0)[0]).all()
    assert (shown([7], 0) != shown([7], 1)).any()
