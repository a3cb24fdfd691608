"""Small training splits for the tests of curators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from peftlab.curation.rows import Bench, Curated, Rows, apply_changes, training_rows
from peftlab.data.rows import Split
from peftlab.recipe.plugins import load_plugin

WORDS = {
    "en": {
        "logistics": "parcel courier delivery tracking shipped late address customs driver package",
        "payment": "invoice card refund charged coupon account password login price bank",
        "product": "colour size battery screen material fits manual weight warranty model",
    },
    "zh": {
        "logistics": "快递 包裹 物流 到货 送单 驿站 派件 签收",
        "payment": "发票 退款 扣费 优惠 账户 银行 红包 付款",
        "product": "颜色 尺码 电池 屏幕 材质 型号 重量 说明",
    },
}


@pytest.fixture
def rows_of() -> Callable[..., Rows]:
    """Return `make(texts, labels, pairs=None)`: training rows with class indices for labels."""

    def make(texts: Sequence[str], labels: Sequence[int], pairs: Sequence[str] | None = None) -> Rows:
        ids = [f"train.jsonl:{number}" for number in range(1, len(texts) + 1)]
        return training_rows(Split("train", ids, list(texts), pairs, np.asarray(labels, np.int64)))

    return make


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a bench of three labels, without an encoder."""
    return Bench(("logistics", "payment", "product"), False, 0, tmp_path, None)


@pytest.fixture
def tickets(rows_of: Callable[..., Rows], bench: Bench) -> Callable[..., Rows]:
    """Return `make(language="en", rows=240)`: tickets of three separable classes."""

    def make(language: str = "en", rows: int = 240) -> Rows:
        random = np.random.default_rng(0)
        labels = [number % 3 for number in range(rows)]
        glue = "" if language == "zh" else " "
        words = [WORDS[language][bench.label_names[label]].split() for label in labels]
        return rows_of([glue.join(random.permutation(some)[:4]) for some in words], labels)

    return make


@pytest.fixture
def curate(bench: Bench) -> Callable[..., tuple[Rows, Curated]]:
    """Return `run(name, rows, **settings)`: the rows after one curator, and what it did."""

    def run(name: str, rows: Rows, **settings: object) -> tuple[Rows, Curated]:
        module = load_plugin("curators", name)
        done = module.curate(rows, module.Config(**settings), bench)
        return apply_changes(rows, done.changes, bench.label_names), done

    return run
