"""The figures of a run: `confusion_matrix.png`, `learning_curve.png`, and `ranks.png` where ranks were allocated.

Drawn with matplotlib's Agg canvas on figures of their own: no pyplot, no global settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftlab.encoders.roles import layer_and_module
from peftlab.errors import RunError
from peftlab.reports.label_fonts import DrawnLabels, drawable_labels
from peftlab.reports.metric_lines import FILE_NAME as METRIC_LINES
from peftlab.reports.metric_lines import MetricLines, read_metric_lines
from peftlab.runs.files import whole_file
from peftlab.runs.result_parts import Best, ClassScores, Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from peftlab.runs.result import Result

CONFUSION_MATRIX = "confusion_matrix.png"
LEARNING_CURVE = "learning_curve.png"
RANKS = "ranks.png"

_ANNOTATED = 12  # classes up to which each cell has its figures written in it
_LABELLED = 100  # classes up to which each one is labelled; above, every second, third, ...
_LISTED = 12  # most frequent confusions that are listed under a large matrix
_INK, _FAINT, _ACCENT = "#1f2933", "#9aa5b1", "#b3261e"


def write_figures(folder: Path, result: Result) -> tuple[str, ...]:
    """Draw what the run has figures for into its folder; return a sentence for each thing that was done otherwise.

    The confusion matrix needs `result.scores`, the ranks need `result.ranks`; the learning curve needs `metrics.jsonl`
    in the folder, which methods that take no steps do not write.
    """
    notes: list[str] = []
    if result.scores is not None:
        accuracy = result.metrics.test.get("accuracy")
        figure, note = confusion_figure(result.scores, accuracy)
        _save(figure, folder / CONFUSION_MATRIX)
        notes += [f"{CONFUSION_MATRIX}: {note}"] if note else []
    if (folder / METRIC_LINES).is_file():
        lines = read_metric_lines(folder / METRIC_LINES)
        if lines.steps:
            _save(learning_figure(lines, result.best), folder / LEARNING_CURVE)
    if result.ranks:
        _save(rank_figure(result.ranks), folder / RANKS)
    return tuple(notes)


def confusion_figure(scores: ClassScores, accuracy: Estimate | None) -> tuple[Figure, str | None]:
    """Return the confusion matrix, and a sentence where labels are drawn as numbers.

    Single-label: share of each gold label's rows that was given each label. Multi-label: for each label the share of
    its rows found and missed, and of the other rows given it by mistake and rightly not.
    """
    names = [score.label for score in scores.per_class]
    labels = drawable_labels(names)
    counts = np.array(scores.confusion)
    if counts.ndim == 3:
        figure = _multi_label_matrix(counts, labels)
    elif counts.ndim == 2 and len(counts):
        figure = _single_label_matrix(counts, labels)
    else:
        raise RunError("the result's confusion matrix is empty")
    figure.suptitle(_title(accuracy, multi_label=counts.ndim == 3), x=0.02, ha="left", fontsize=12, color=_INK)
    if labels.note:
        figure.supxlabel(labels.note, x=0.02, ha="left", fontsize=8, color=_ACCENT)
    return figure, labels.note


def learning_figure(lines: MetricLines, best: Best | None) -> Figure:
    """Return training loss, validation metric with the best step marked, and learning rate, over optimizer steps."""
    figure = _figure(9.0, 7.5)
    loss, metric, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 2, 1])
    steps = np.array([line.step for line in lines.steps])
    losses = np.array([line.loss for line in lines.steps])
    width = max(1, round(len(losses) / 30))
    loss.plot(steps, losses, color=_FAINT, linewidth=0.7, alpha=0.7, label="each step")
    loss.plot(steps, _smoothed(losses, width), color="#0b5cad", linewidth=1.8, label=f"mean of {width} steps around")
    loss.set_ylabel("training loss")
    loss.legend(loc="upper right", frameon=False, fontsize=9)
    _draw_validations(metric, lines, best)
    rate.plot(steps, [line.learning_rate for line in lines.steps], color=_INK, linewidth=1.4)
    rate.set_ylabel("learning rate")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    rate.set_ylim(bottom=0)
    rate.set_xlabel("optimizer step")
    rate.set_xlim(0, steps[-1] * 1.02)
    for panel in (loss, metric, rate):
        _tidy(panel)
        panel.grid(color="#e4e7eb", linewidth=0.6)
    figure.align_ylabels()
    last = lines.steps[-1]
    figure.suptitle(
        f"Learning curve: {last.step:,} steps, {last.epoch:g} epochs", x=0.02, ha="left", fontsize=12, color=_INK
    )
    return figure


def rank_figure(ranks: Mapping[str, int]) -> Figure:
    """Return the rank of each module (by its name in the encoder) as a grid: a row per layer, a column per kind."""
    places = {layer_and_module(name): rank for name, rank in ranks.items()}
    layers = sorted({layer for layer, _ in places}, key=lambda layer: -1 if layer is None else layer)
    kinds = list(dict.fromkeys(kind for _, kind in places))
    grid = np.full((len(layers), len(kinds)), np.nan)
    for (layer, kind), rank in places.items():
        grid[layers.index(layer), kinds.index(kind)] = rank
    figure = _figure(max(4.6, 2.2 + 1.25 * len(kinds)), 2.4 + 0.38 * len(layers))
    panel = figure.subplots()
    panel.imshow(grid, cmap="Blues", vmin=0, vmax=max(1, *ranks.values()), aspect="auto", interpolation="nearest")
    for (row, column), rank in np.ndenumerate(grid):
        if not np.isnan(rank):
            colour = "white" if rank > 0.6 * np.nanmax(grid) else _INK
            panel.text(column, row, f"{rank:.0f}", ha="center", va="center", fontsize=9, color=colour)
    panel.set_xticks(range(len(kinds)), kinds, rotation=20, ha="right", fontsize=9)
    panel.set_yticks(range(len(layers)), ["all" if layer is None else str(layer) for layer in layers], fontsize=9)
    panel.set_ylabel("layer")
    panel.tick_params(length=0, colors=_INK)
    for spine in panel.spines.values():
        spine.set_visible(False)
    total, low, high = sum(ranks.values()), min(ranks.values()), max(ranks.values())
    title = f"Rank of each module after training\n{total:,} in {len(ranks)} modules, from {low} to {high}"
    figure.suptitle(title, x=0.02, ha="left", fontsize=12, color=_INK)
    return figure


def _draw_validations(panel: Axes, lines: MetricLines, best: Best | None) -> None:
    name = best.metric if best is not None else "accuracy"
    points = [(line.step, line.metrics[name]) for line in lines.validations if name in line.metrics]
    panel.set_ylabel(f"validation\n{name}")
    if not points:
        panel.text(0.5, 0.5, "no validation", transform=panel.transAxes, ha="center", va="center", color=_FAINT)
        return
    steps, values = zip(*points, strict=True)
    panel.plot(steps, values, color="#0b5cad", linewidth=1.4, marker="o", markersize=3.5)
    if best is not None:
        panel.axvline(best.step, color=_ACCENT, linewidth=0.8, linestyle="--")
        panel.plot([best.step], [best.value], color=_ACCENT, marker="o", markersize=7, linestyle="none")
        right = best.step > 0.6 * lines.steps[-1].step
        panel.annotate(
            f"best {best.value:.4f}\nstep {best.step:,}",
            (best.step, best.value),
            xytext=(-8 if right else 8, -8),
            textcoords="offset points",
            ha="right" if right else "left",
            va="top",
            fontsize=9,
            color=_ACCENT,
        )
    panel.margins(y=0.2)


def _smoothed(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return the mean of up to `width` values around each one, fewer at the ends."""
    kernel = np.ones(width)
    sums = np.convolve(values, kernel, mode="same")
    means: NDArray[np.float64] = sums / np.convolve(np.ones_like(values), kernel, mode="same")
    return means


def _single_label_matrix(counts: NDArray[Any], labels: DrawnLabels) -> Figure:
    classes = len(counts)
    large = classes > _ANNOTATED
    side = float(np.clip(0.155 * classes, 4.2, 16.0)) + 2.6
    figure = _figure(side + 0.9, side + (2.6 if large else 0.4))
    panel, foot = figure.subplots(2, 1, height_ratios=[side, 2.2]) if large else (figure.subplots(), None)
    support = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, support, out=np.full(counts.shape, np.nan), where=support > 0)
    _heat(figure, panel, shares, "share of the gold label's rows")
    if not large:
        _write_cells(panel, shares, counts)
    every = -(-classes // _LABELLED)
    ticks = range(0, classes, every)
    texts = [labels.texts[index] for index in ticks]
    size = 10 if not large else float(np.clip(620 / len(texts), 6.0, 9.0))
    slant = 90 if large else 30 if max(map(len, texts)) > 4 else 0
    panel.set_xticks(list(ticks), texts, rotation=slant, ha="right" if slant == 30 else "center")
    panel.set_yticks(list(ticks), [f"{text} ({support[i, 0]:,})" for i, text in zip(ticks, texts, strict=True)])
    for text in (*panel.get_xticklabels(), *panel.get_yticklabels()):
        text.set(fontsize=size, fontfamily=list(labels.families), color=_INK)
    panel.set_xlabel("predicted label" + (f" (one in {every} is named)" if every > 1 else ""), fontsize=10)
    panel.set_ylabel("gold label (rows)", fontsize=10)
    if foot is not None:
        _list_confusions(foot, counts, labels)
    return figure


def _multi_label_matrix(counts: NDArray[Any], labels: DrawnLabels) -> Figure:
    classes = len(counts)
    figure = _figure(7.4, float(np.clip(0.3 * classes, 1.8, 24.0)) + 1.9)
    panel = figure.subplots()
    cells = counts[:, [1, 1, 0, 0], [1, 0, 1, 0]]  # TP, FN, FP, TN
    totals = np.stack([cells[:, 0] + cells[:, 1]] * 2 + [cells[:, 2] + cells[:, 3]] * 2, axis=1)
    shares = np.divide(cells, totals, out=np.full(cells.shape, np.nan), where=totals > 0)
    _heat(figure, panel, shares, "share of the rows with, or without, the label")
    _write_cells(panel, shares, cells)
    panel.set_xticks(range(4), ["found", "missed", "given wrongly", "rightly not given"], fontsize=9)
    panel.xaxis.tick_top()
    size = float(np.clip(320 / classes, 6.0, 10.0))
    panel.set_yticks(range(classes), labels.texts, fontsize=size, fontfamily=list(labels.families), color=_INK)
    panel.axvline(1.5, color="white", linewidth=4)
    return figure


def _heat(figure: Figure, panel: Axes, shares: NDArray[np.float64], meaning: str) -> None:
    """Draw shares as colours. Their square roots are spread evenly, so that a few per cent can still be seen."""
    from matplotlib import colormaps, colors, ticker

    scale = colormaps["Blues"].with_extremes(bad="#e4e7eb")
    image = panel.imshow(
        shares, cmap=scale, norm=colors.PowerNorm(0.5, 0.0, 1.0), aspect="auto", interpolation="nearest"
    )
    bar = figure.colorbar(image, ax=panel, fraction=0.035, pad=0.02, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1])
    bar.ax.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
    bar.ax.tick_params(labelsize=8)
    bar.set_label(meaning, fontsize=9)
    bar.outline.set_visible(False)
    panel.tick_params(length=0)
    _tidy(panel)
    for spine in panel.spines.values():
        spine.set_visible(False)


def _write_cells(panel: Axes, shares: NDArray[np.float64], counts: NDArray[Any]) -> None:
    single_line = shares.shape[0] > _ANNOTATED or shares.shape[1] == 4 != shares.shape[0]
    for (row, column), share in np.ndenumerate(shares):
        if np.isnan(share):
            text = "no rows" if column == 0 else ""
        else:
            text = f"{share:.1%}{' ' if single_line else chr(10)}({counts[row, column]:,})"
        colour = "white" if share > 0.45 else _INK
        panel.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)


def _list_confusions(panel: Axes, counts: NDArray[Any], labels: DrawnLabels) -> None:
    """Write the most frequent confusions in two columns."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_LISTED]
    rows = [divmod(int(place), len(counts)) for place in order if wrong.flat[place] > 0]
    panel.axis("off")
    families = list(labels.families)
    head = "Most frequent confusions (gold label → predicted label, rows)" if rows else "No row was predicted wrongly."
    panel.text(0.0, 1.0, head, fontsize=10, va="top", color=_INK, fontweight="bold", transform=panel.transAxes)
    for place, (gold, guess) in enumerate(rows):
        text = f"{counts[gold, guess]:>3,}   {labels.texts[gold]} → {labels.texts[guess]}"
        across, down = divmod(place, _LISTED // 2)
        at = (0.5 * across, 0.83 - 0.15 * down)
        panel.text(*at, text, fontsize=9, va="top", color=_INK, fontfamily=families, transform=panel.transAxes)


def _title(accuracy: Estimate | None, *, multi_label: bool) -> str:
    if accuracy is None:
        return "Confusion matrix, test split"
    value, low, high = (f"{100 * part:.1f}" for part in (accuracy.value, accuracy.low, accuracy.high))
    what = "rows with every label right" if multi_label else "accuracy"
    return f"Confusion matrix, test split, n = {accuracy.n:,}\n{what} {value} % (95 % interval {low} to {high} %)"


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")


def _tidy(panel: Axes) -> None:
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.tick_params(colors=_INK)


def _save(figure: Figure, path: Path) -> None:
    """Write a PNG; a reader sees the old file or the whole new one."""
    with whole_file(path) as file:
        figure.savefig(file, format="png")
