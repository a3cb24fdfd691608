"""Standardised states: mean 0 and variance 1, and a language-model head that says what it said before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from peftlab.encoders.masked import load_masked
from peftlab.encoders.standardised import check_standardisable, standardise
from peftlab.errors import EncoderError


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra"])
def test_states_are_standardised_and_the_head_says_the_same(kind: str, tiny_encoder: Callable[..., Path]) -> None:
    model: Any = load_masked(tiny_encoder(kind), dropout=0.1).model.model.eval()
    body = getattr(model, model.base_model_prefix)
    ids = torch.randint(5, 60, (8, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states, logits = body(input_ids=ids).last_hidden_state.flatten(0, 1), model(input_ids=ids).logits
        standardise(model, states.mean(0), states.std(0, correction=0))
        after, still = body(input_ids=ids).last_hidden_state.flatten(0, 1), model(input_ids=ids).logits

    assert float(states.mean(0).abs().max()) > 1e-3
    assert torch.allclose(after.mean(0), torch.zeros(after.shape[1]), atol=1e-5)
    assert torch.allclose(after.std(0, correction=0), torch.ones(after.shape[1]), atol=1e-4)
    assert torch.allclose(still, logits, atol=1e-4)


def test_an_architecture_without_a_last_norm_of_its_own_is_refused() -> None:
    with pytest.raises(EncoderError, match=r"save\.standardise: .* albert has not; remove the key"):
        check_standardisable("albert")
