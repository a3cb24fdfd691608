"""Decoded tags are the best sequence, and always one that IOB2 allows."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
import torch
import torchcrf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from peftlab.data.tag_schemes import misplaced, tag_names
from peftlab.evaluation.tag_decoding import decode, decoder

NAMES = tag_names(["LOC", "PER"])
SCORES = st.floats(-1e6, 1e6, width=32)


def crf_with(start: np.ndarray, end: np.ndarray, between: np.ndarray) -> torchcrf.CRF:
    """Return a CRF with these transitions."""
    made = torchcrf.CRF(len(NAMES), batch_first=True)
    with torch.no_grad():
        for own, values in (("start_transitions", start), ("end_transitions", end), ("transitions", between)):
            getattr(made, own).copy_(torch.from_numpy(values))
    return made


@settings(deadline=None, max_examples=150)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    data=st.data(),
    learned=st.booleans(),
)
def test_no_decoded_sequence_breaks_iob2_whatever_the_scores(
    lengths: list[int], data: st.DataObject, learned: bool
) -> None:
    """Random logits and random transitions, those that favour what is not allowed among them."""
    size = len(NAMES)
    parts = [data.draw(arrays(np.float32, (length, size), elements=SCORES)) for length in lengths]
    crf = None
    if learned:
        crf = crf_with(*(data.draw(arrays(np.float32, shape, elements=SCORES)) for shape in (size, size, (size, size))))
    for part, tags in zip(parts, decode(parts, decoder(NAMES, crf)), strict=True):
        assert len(tags) == len(part)
        assert misplaced([NAMES[tag] for tag in tags], "IOB2") is None


def test_the_sequence_is_the_best_of_all_that_are_allowed() -> None:
    """Against every sequence of four tags, by brute force."""
    draw = np.random.default_rng(0)
    size = len(NAMES)
    for _ in range(10):
        start, end, between = (draw.normal(size=shape).astype(np.float32) for shape in (size, size, (size, size)))
        logits = draw.normal(size=(4, size)).astype(np.float32)
        best, chosen = -np.inf, None
        for tags in product(range(size), repeat=4):
            if misplaced([NAMES[tag] for tag in tags], "IOB2") is not None:
                continue
            total = start[tags[0]] + end[tags[-1]] + sum(logits[place, tag] for place, tag in enumerate(tags))
            total += sum(between[one, other] for one, other in pairwise(tags))
            if total > best:
                best, chosen = total, tags
        assert decode([logits], decoder(NAMES, crf_with(start, end, between))) == [chosen]


def test_without_a_decoder_each_word_gets_its_own_best_tag() -> None:
    logits = np.eye(len(NAMES), dtype=np.float32)[[2, 0, 4]]
    assert decode([logits, logits[:0], logits[:1]], None) == [(2, 0, 4), (), (2,)]
    (tags,) = decode([logits], decoder(NAMES))
    assert next(NAMES[tag] for tag in tags) != "I-LOC"


def test_sentences_of_other_lengths_do_not_change_a_sentence() -> None:
    draw = np.random.default_rng(1)
    parts = [draw.normal(size=(length, len(NAMES))).astype(np.float32) for length in (3, 17, 1, 0, 8)]
    crf = decoder(NAMES, crf_with(*(draw.normal(size=shape).astype(np.float32) for shape in (5, 5, (5, 5)))))
    assert decode(parts, crf) == [decode([part], crf)[0] for part in parts]


@pytest.mark.parametrize("crf", [True, False])
def test_the_loss_of_a_sentence_does_not_depend_on_its_neighbours_or_on_padding(crf: bool) -> None:
    """By word: the negative log-likelihood over the words of the sentence, or the mean cross-entropy."""
    from peftlab.encoders.token_head import sentence_losses

    torch.manual_seed(0)
    size = len(NAMES)
    chain = torchcrf.CRF(size, batch_first=True) if crf else None
    logits = torch.randn(2, 6, size)
    tags = torch.tensor([[3, 4, 0, 1], [1, -1, -1, -1]])
    where = torch.tensor([[1, 2, 4, 5], [7, -1, -1, -1]])
    together = sentence_losses(logits, torch.stack([where, tags], dim=-1), chain, 0.0)
    alone = sentence_losses(logits, torch.stack([where[1:, :1], tags[1:, :1]], dim=-1), chain, 0.0)
    assert torch.allclose(together[1], alone[0])
    emissions = logits.reshape(-1, size)[where[0]]
    if chain is None:
        expected = torch.nn.functional.cross_entropy(emissions, tags[0])
    else:
        totals = []
        for path in product(range(size), repeat=4):
            total = chain.start_transitions[path[0]] + chain.end_transitions[path[-1]]
            total = total + sum(emissions[place, tag] for place, tag in enumerate(path))
            totals.append(total + sum(chain.transitions[a, b] for a, b in pairwise(path)))
        gold = totals[list(product(range(size), repeat=4)).index((3, 4, 0, 1))]
        expected = (torch.stack(totals).logsumexp(0) - gold) / 4
    assert torch.allclose(together[0], expected, atol=1e-5)
