"""Forward passes: how many tokens they have, and which rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import BertConfig, BertModel

from peftlab.recipe.records import Evaluation, Train
from peftlab.training.passes import BF16_TIMES, CPU_TOKENS, forward_passes, tokens_of_a_pass
from peftlab.training.placement import Placement
from peftlab.training.plan import make_plan


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    rows=st.integers(1, 70),
    tokens=st.one_of(st.none(), st.integers(1, 400)),
)
def test_forward_passes_hold_every_row_once_and_no_more_than_asked(
    lengths: list[int], rows: int, tokens: int | None
) -> None:
    """Rows keep their order; a pass above the tokens holds one row; there are as few passes as there can be."""
    passes = forward_passes(np.asarray(lengths), rows, tokens)
    parts = [lengths[one] for one in passes]

    assert [length for part in parts for length in part] == lengths
    assert all(0 < len(part) <= rows for part in parts)
    if tokens is not None:
        assert all(len(part) == 1 or len(part) * max(part) <= tokens for part in parts)
    fewest, part = 0, list[int]()
    for length in lengths:
        part.append(length)
        if len(part) == 1 or len(part) > rows or (tokens is not None and len(part) * max(part) > tokens):
            fewest, part = fewest + 1, [length]
    assert len(parts) == fewest


def test_passes_are_of_equal_size_where_their_number_allows_it() -> None:
    """32 texts of 100 tokens, ten of which fit 1,024 tokens, are taken 8 by 8; texts of unlike lengths as they fit."""
    passes = forward_passes(np.full(32, 100), 32, 1024)
    unlike = forward_passes(np.asarray([10, 10, 10, 100]), 32, 100)

    assert [one.stop - one.start for one in passes] == [8, 8, 8, 8]
    assert [one.stop - one.start for one in unlike] == [3, 1]


def encoder(hidden: int, layers: int, *, trained: bool) -> nn.Module:
    """Return an encoder of 4,096 words, of which all or nothing is trained."""
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": 4 * hidden}
    config = BertConfig(vocab_size=4096, num_attention_heads=1, **sizes)
    return BertModel(config, add_pooling_layer=False).requires_grad_(trained)


def test_a_cpu_bounds_the_tokens_of_a_pass_by_itself() -> None:
    """What the recipe says holds everywhere; rows that belong together, and another device's, are not parted."""
    left_open, said = (make_plan(Train(max_tokens=tokens), Evaluation(), rows=36) for tokens in ("auto", 64))
    cpu, cuda = (Placement(0, 2, torch.device(name), 3, "fp32") for name in ("cpu", "cuda"))
    model = encoder(16, 1, trained=False)

    assert tokens_of_a_pass(left_open, cpu, model) == 2 * 3 * CPU_TOKENS
    assert tokens_of_a_pass(left_open, replace(cpu, precision="bf16"), model) == 2 * 3 * BF16_TIMES * CPU_TOKENS
    assert tokens_of_a_pass(left_open, cpu, model, together=True) is None
    assert tokens_of_a_pass(left_open, cuda, model) is None
    assert tokens_of_a_pass(said, cpu, model) == tokens_of_a_pass(said, cuda, model) == 64


def test_where_weights_take_most_of_the_memory_a_pass_may_have_more_tokens() -> None:
    """Trained in full, a parameter takes its gradient and AdamW's state too; so much may a pass take beside it."""
    plan, cpu = make_plan(Train(), Evaluation(), rows=36), Placement(0, 1, torch.device("cpu"), 1, "fp32")
    frozen, trained = encoder(128, 1, trained=False), encoder(128, 1, trained=True)
    of_a_token = 4 * (8 * 128 + 2 * 512)

    assert tokens_of_a_pass(plan, cpu, frozen) == CPU_TOKENS
    assert tokens_of_a_pass(plan, cpu, trained) == 16 * sum(one.numel() for one in trained.parameters()) // of_a_token
    assert tokens_of_a_pass(plan, cpu, nn.Linear(4096, 4096)) == CPU_TOKENS
