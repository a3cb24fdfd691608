"""What the certificate says of an export: drift, flips, the test metric before and after, and speed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.tokens import Tokens, pad
from peftlab.evaluation.agreement import logit_difference
from peftlab.evaluation.forward import Forward
from peftlab.evaluation.paired import mcnemar
from peftlab.runs.certificate import Drift, MetricChange, Speed
from peftlab.runs.environment import processor_name
from peftlab.runs.result_parts import Estimate

if TYPE_CHECKING:
    from types import ModuleType


WARM_UP, SINGLE_CALLS, BATCH_CALLS = 10, 100, 5


def measure_drift(before: NDArray[np.float32], after: NDArray[np.float32], decided: tuple[Any, Any]) -> Drift:
    """Compare logits of run and export on the same rows; `decided`: what each says of every row."""
    found = logit_difference(before, after, decided)
    return Drift(max=found.max, mean=found.mean, largest_logit=found.largest, flips=found.flips, rows=found.rows)


def measure_metric(before: Any, after: Any, splits: Any, task: ModuleType, config: Any) -> MetricChange:
    """Score run and export on the test split, and test the difference, row by row and as a whole."""
    name, test = task.DEFAULT_METRIC, splits.test
    right = [task.right(outputs, test, splits, config) for outputs in (before, after)]
    compared = mcnemar(right[0], right[1])
    gained = task.difference(before, after, test, splits, config)
    return MetricChange(
        name=name,
        before=float(task.point_metrics(before, test, splits, config)[name]),
        after=float(task.point_metrics(after, test, splits, config)[name]),
        only_run_right=compared.only_first,
        only_export_right=compared.only_second,
        p_value=compared.exact,
        rows=len(test),
        difference=Estimate(value=gained.value, low=gained.low, high=gained.high, n=gained.n),
    )


def measure_speed(forward: Forward, tokens: Tokens) -> Speed:
    """Time the first rows of `tokens` one by one and in batches of 32, after a warm-up."""
    import torch

    rows = np.arange(len(tokens))
    single = [rows[call % len(rows)].reshape(1) for call in range(SINGLE_CALLS)]
    batches = [np.resize(np.roll(rows, -32 * call), 32) for call in range(BATCH_CALLS)]
    _timed(forward, tokens, single[:WARM_UP])
    alone = _timed(forward, tokens, single)
    _timed(forward, tokens, batches[:1])
    together = _timed(forward, tokens, batches)
    return Speed(
        batch_1_p50_ms=float(np.percentile(alone, 50)) * 1e3,
        batch_1_p95_ms=float(np.percentile(alone, 95)) * 1e3,
        batch_1_calls=SINGLE_CALLS,
        batch_32_rows_per_second=32 * BATCH_CALLS / float(sum(together)),
        batch_32_calls=BATCH_CALLS,
        mean_tokens=float(tokens.lengths[np.concatenate(single)].mean()),
        threads=torch.get_num_threads(),
        processor=processor_name(),
    )


def _timed(forward: Forward, tokens: Tokens, calls: Sequence[NDArray[np.int64]]) -> list[float]:
    """Return the seconds of each call."""
    taken = []
    for rows in calls:
        start = time.perf_counter()
        forward({name: tensor.numpy() for name, tensor in pad(tokens, rows).items()})
        taken.append(time.perf_counter() - start)
    return taken
