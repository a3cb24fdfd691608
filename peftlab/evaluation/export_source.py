"""What an exporter is given, and what it says of what it wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peftlab.data.tokens import Tokens
from peftlab.evaluation.agreement import Difference
from peftlab.evaluation.forward import Forward, each_token
from peftlab.evaluation.run_model import RunModel
from peftlab.runs.certificate import Dtype, Exported


@dataclass(frozen=True)
class Source:
    """A run to be exported: its folder, its model as it was scored, what the export will say of itself, and the first
    validation rows, to choose and calibrate by.

    `compare(before, after)` takes logits that two models gave for `validation` and says how far apart they are, and in
    how many rows the task decides otherwise.
    """

    folder: Path
    run: RunModel
    exported: Exported
    validation: Tokens
    dtype: Dtype
    compare: Callable[[NDArray[np.float32], NDArray[np.float32]], Difference]


@dataclass(frozen=True)
class Written:
    """What an exporter wrote: whether an adapter was merged, which packages load it, and what people should know."""

    merged: bool
    loads_with: tuple[str, ...]
    notes: tuple[str, ...] = ()


def comparable(forward: Forward, exported: Exported) -> Forward:
    """Return `forward` so that its logits have one shape a row in every batch."""
    return each_token(forward, exported.max_length) if exported.each_token else forward
