"""What an exporter is given, and what it says of what it wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from peftlab.data.tokens import Tokens
from peftlab.evaluation.run_model import RunModel
from peftlab.runs.certificate import Dtype, Exported


@dataclass(frozen=True)
class Source:
    """A run to be exported: its folder, its model as it was scored, what the export will say of itself, and the
    validation rows, to choose and calibrate by.
    """

    folder: Path
    run: RunModel
    exported: Exported
    validation: Tokens
    dtype: Dtype


@dataclass(frozen=True)
class Written:
    """What an exporter wrote: whether an adapter was merged, which packages load it, and what people should know."""

    merged: bool
    loads_with: tuple[str, ...]
    notes: tuple[str, ...] = ()
