"""`risk_coverage.png`: how right a model is on the share of texts that it is surest of, with what is promised."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from peftlab.runs.calibration import Calibration
from peftlab.runs.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RISK_COVERAGE = "risk_coverage.png"
Curve = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Thresholds, falling, with coverage and accuracy of the rows that reach each."""

_COLOURS = {"validation": "#9aa5b1", "test": "#0b5cad"}
_INK, _ACCENT = "#1f2933", "#b3261e"


def write_risk_coverage(folder: Path, made: Calibration, curves: Mapping[str, Curve]) -> None:
    """Draw the curve of each split in `curves` into the folder of a run."""
    with whole_file(folder / RISK_COVERAGE) as file:
        risk_coverage_figure(made, curves).savefig(file, format="png")


def risk_coverage_figure(made: Calibration, curves: Mapping[str, Curve]) -> Figure:
    """Return accuracy over coverage for each split, the target, and where the threshold puts each split."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7.4, 4.6), dpi=150, layout="constrained", facecolor="white")
    panel = figure.subplots()
    lowest = made.target
    for name, (thresholds, coverage, accuracy) in curves.items():
        colour = _COLOURS[name]
        panel.step(coverage, accuracy, where="post", color=colour, linewidth=1.6, label=f"{name} rows")
        # The first few rows are all right or not; they say nothing of the curve.
        settled = accuracy[coverage >= 0.05]
        lowest = min(lowest, float(settled.min(initial=1.0)))
        if made.threshold is not None and (thresholds >= made.threshold).any():
            place = int((thresholds >= made.threshold).sum()) - 1
            panel.plot(coverage[place], accuracy[place], color=colour, marker="o", markersize=7, linestyle="none")
    panel.axhline(made.target, color=_ACCENT, linewidth=1.0, linestyle="--", label="promised")
    panel.set_xlim(0, 1.01)
    panel.set_ylim(lowest - 0.15 * (1 - lowest) - 0.002, 1.002)
    panel.xaxis.set_major_formatter(PercentFormatter(1.0))
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    panel.set_xlabel("coverage: share of texts routed, the surest first")
    panel.set_ylabel("accuracy of these")
    panel.legend(loc="lower left", frameon=False, fontsize=9)
    panel.grid(color="#e4e7eb", linewidth=0.6)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.tick_params(colors=_INK)
    where = "no threshold keeps the promise" if made.threshold is None else "dots: the threshold"
    figure.suptitle(f"Accuracy and coverage; {where}", x=0.02, ha="left", fontsize=12, color=_INK)
    return figure
