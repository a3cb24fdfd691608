"""Results of made-up runs, for cards, figures and screens."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from peftlab.evaluation.classification_scores import score_classification
from peftlab.runs.result import Result, scored
from peftlab.runs.result_parts import (
    Best,
    DataUsed,
    Device,
    EncoderUsed,
    Memory,
    Metrics,
    Parameters,
    RecipeUsed,
    RoundTrip,
    Seconds,
    Target,
)


@pytest.fixture
def make_result() -> Callable[..., Result]:
    """Return `make(labels=..., multi_label=False, **fields)`, which gives the result of a finished run."""

    def make(
        labels: tuple[str, ...] = ("delivery", "refund", "other"), multi_label: bool = False, **fields: Any
    ) -> Result:
        generator = np.random.default_rng(0)
        gold = generator.integers(0, len(labels), 200)
        one_hot = np.eye(len(labels))[gold]
        logits = generator.normal(size=one_hot.shape) + 2 * one_hot - 1
        scores = score_classification(logits, one_hot if multi_label else gold, labels, multi_label=multi_label)
        told = scored(scores.to_dict())
        moment = datetime(2026, 1, 31, 10, 15, tzinfo=UTC)
        files = [{"split": "train", "path": "train.csv", "rows": 600, "sha256": "c0ffee"}]
        base: dict[str, Any] = {
            "status": "ok",
            "recipe": RecipeUsed(name="lora_tiny", hash="ab" * 32),
            "task": "classification",
            "method": "lora",
            "encoder": EncoderUsed(requested="org/tiny", used="org/tiny", revision="main", license="Apache-2.0"),
            "data": DataUsed(
                fingerprint="f1" * 32,
                source={"requested": "letters", "used": "files", "files": files},
                rows={"train": 600, "validation": 200, "test": 200},
                language="en",
            ),
            "metrics": Metrics(validation={"accuracy": 0.81}, test=told.metrics),
            "scores": told.scores,
            "target": Target(asked=0.5, verdict="reached"),
            "parameters": Parameters(
                trainable=73_728,
                total=22_787_456,
                embedding=11_917_824,
                shipped_bytes=412_345,
                newly_initialised=("head",),
            ),
            "best": Best(step=40, epoch=2.0, metric="accuracy", value=0.81),
            "round_trip": RoundTrip(max_logit_difference=2e-7, rows=200),
            "seconds": Seconds(train=75.0, test=1.0, total=90.0, cpu=140.0),
            "memory": Memory(peak_rss_bytes=1_234_567_890),
            "tokens_per_second": 4321.0,
            "device": Device(type="cpu", name="Some Processor", threads=2, processes=1),
            "seeds": {"train": 0, "split": 0},
            "versions": {"python": "3.11.7", "peftlab": "0.1.0", "torch": "2.13.0"},
            "started": moment,
            "finished": moment,
        }
        return Result(**base | fields)

    return make
