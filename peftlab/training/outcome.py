"""What every way of training hands on, and how what was saved is proved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftlab.errors import RoundTripError
from peftlab.training.clock import Clock

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from peftlab.runs.model_record import EncoderRecord
    from peftlab.runs.result_parts import Device, Memory, Quantised
    from peftlab.training.placement import Placement

TOLERANCE = 1e-5
"""Largest difference of a logit between the model that was scored and the one that was saved."""
ROUND_TRIP_ROWS = 256


@dataclass(frozen=True)
class Sitting:
    """One process at work on one run: its folder, its place, and where it speaks.

    `say` notes a sentence for the result; `track(values, step)` tells the trackers; `resume` asks to continue from
    the folder's last checkpoint. `clock`: the run's wall time against its ceiling.
    """

    folder: Path
    console: Console
    placement: Placement
    say: Callable[[str], None]
    track: Callable[[Mapping[str, float], int], None]
    resume: bool
    clock: Clock


@dataclass(frozen=True)
class Measured:
    """Quantised weights against fp32. `memory` is the peak before the encoder in fp32 was loaded to compare with."""

    report: Quantised
    memory: Memory


@dataclass(frozen=True)
class Outcome:
    """A trained, saved and proved model, with what it put out on the test split, as its task scores it.

    `validation`: metrics of the best checkpoint. `best`: step, epoch, metric and value of it, where there are steps.
    `surviving`, `ranks`: trained parameters left and rank of each module, where the method removes some. `shipped`:
    numbers in the saved files. `latency_ms`: median time of one text, where the budget has a ceiling for it. `stopped`:
    why training ended before its plan did, where the budget's minutes were over.
    `quantised`: what 8-bit or 4-bit weights came to, where the encoder has them. `frozen_outputs`: of the test split by
    the encoder before training, where the task asks for it.
    """

    test_outputs: Any
    validation: Mapping[str, float]
    trainable: int
    total: int
    embedding: int | None
    shipped_bytes: int
    new_modules: tuple[str, ...]
    encoder: EncoderRecord | None
    best: Mapping[str, Any] | None
    train_seconds: float
    test_seconds: float
    tokens_per_second: float | None
    logit_difference: float
    compared_rows: int
    shipped: int | None = None
    surviving: int | None = None
    ranks: Mapping[str, int] | None = None
    quantised: Measured | None = None
    frozen_outputs: Any = None
    latency_ms: float | None = None
    stopped: str | None = None


def where_it_ran(placement: Placement) -> Device:
    """Return the device of `placement` by kind and name, with threads and processes."""
    import torch

    from peftlab.runs.environment import processor_name
    from peftlab.runs.result_parts import Device

    cuda = placement.device.type == "cuda"
    return Device(
        type=placement.device.type,
        name=torch.cuda.get_device_name(placement.device) if cuda else processor_name(),
        threads=placement.threads,
        processes=placement.world,
    )


def peak_memory(device: torch.device) -> Memory:
    """Return the peak memory of this process so far."""
    import torch

    from peftlab.runs.environment import peak_resident_bytes
    from peftlab.runs.result_parts import Memory

    on_device = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Memory(peak_rss_bytes=peak_resident_bytes(), peak_device_bytes=on_device)


def prove_same(before: NDArray[np.float32], after: NDArray[np.float32], folder: Path) -> float:
    """Return the largest absolute difference of a logit; RoundTripError above the tolerance."""
    difference = float(np.abs(before - after).max()) if before.size else 0.0
    if not difference <= TOLERANCE:
        raise RoundTripError(
            f"what was saved in {folder} does not reload to the same logits: the largest difference is "
            f"{difference:.3g}, allowed is {TOLERANCE:g}; the run is not usable; please report it with its recipe.toml"
        )
    return difference
