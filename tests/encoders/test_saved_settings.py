"""The settings of an adapter on disk are the same in every process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from peftlab.encoders.bottleneck import BottleneckConfig
from peftlab.encoders.load import HeadShape, load_classifier
from peftlab.encoders.saved import save_trained
from peftlab.encoders.through_peft import attach_through_peft
from peftlab.recipe.records import Encoder

ENDINGS = ["query", "key", "value", "intermediate.dense", "attention.output.dense"]


@pytest.mark.parametrize("kind", [LoraConfig, BottleneckConfig])
def test_target_modules_are_written_in_order(kind: type, tiny_encoder: Callable[..., Path], tmp_path: Path) -> None:
    """A set would be written in the order of its hashes: the same run, other bytes."""
    torch.manual_seed(0)
    loaded = load_classifier(Encoder(name="x", pooling="mean"), tiny_encoder(), HeadShape(3, 0.0))
    model = attach_through_peft(loaded.model, kind(target_modules=set(ENDINGS)), loaded.anatomy)
    save_trained(model, tmp_path / "trained", encoder_name="tiny")
    settings = json.loads((tmp_path / "trained" / "adapter_config.json").read_text(encoding="utf-8"))

    assert settings["target_modules"] == sorted(ENDINGS)
