"""A run's result on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftlab.reports.wording import (
    bytes_text,
    cell_text,
    cost_rows,
    estimate_text,
    parameter_rows,
    seconds_text,
    share_text,
    stand_in_text,
    target_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Group, RenderableType
    from rich.table import Table

    from peftlab.runs.pretraining_result import PretrainingResult
    from peftlab.runs.result import Result
    from peftlab.runs.result_parts import TaskTable

# Labels up to which all are shown; of more, the ones with the lowest F1.
_ALL_LABELS = 20
_WORST_LABELS = 10
_STYLES = {
    "ok": "bold green",
    "validated": "bold green",
    "stopped": "bold yellow",
    "failed": "bold red",
    "interrupted": "bold yellow",
}


def show_run(result: Result) -> Group:
    """Return what `peftlab show RUN` prints: status, test metrics with intervals, cost, and the labels."""
    from rich.console import Group

    return Group(*_parts(result))


def _parts(result: Result) -> Iterator[RenderableType]:
    from rich.panel import Panel
    from rich.text import Text

    head = Text.assemble((result.status, _STYLES[result.status]), f"  {result.recipe.name}")
    head.append(f"  {result.task}, {result.method}", style="dim")
    if result.encoder.requested is not None:
        head.append(f" on {result.encoder.used or result.encoder.requested}", style="dim")
    yield head
    if result.reason is not None:
        yield Text(result.reason)
    if result.traceback is not None:
        yield Text(result.traceback.rstrip(), style="dim")
    if result.stand_in:
        yield Panel(Text(stand_in_text(result)), title="STAND-IN ENCODER", border_style="bold yellow")
    if result.data is not None:
        rows = ", ".join(f"{count:,} {split}" for split, count in result.data.rows.items())
        yield Text(f"data: {rows} rows{', synthetic' if result.data.synthetic else ''}")
    if result.metrics.test:
        yield Text()
        yield _metrics_table(result)
    if result.target is not None:
        yield Text(target_text(result.target, result.task), style="bold")
    if result.best is not None:
        best = result.best
        yield Text(
            f"best checkpoint: validation {best.metric} {best.value:.4f} at step {best.step:,}, epoch {best.epoch:g}"
        )
    yield Text()
    yield _pairs([*(parameter_rows(result.parameters) if result.parameters else []), *cost_rows(result)])
    if result.scores is not None:
        yield Text()
        yield _labels_table(result)
    for one in result.tables:
        yield Text()
        yield _own_table(one)
    yield from (Text(f"{name}: {fact}") for name, fact in result.facts.items())
    yield from (Text(f"note: {note}") for note in result.notes)


def show_pretraining(result: PretrainingResult) -> Group:
    """Return what `peftlab show RUN` prints of a pretraining: status, text, held-out perplexity, cost."""
    from rich.console import Group
    from rich.text import Text

    origin = f"from {result.started_from}" if result.started_from else "from random weights"
    head = Text.assemble((result.status, _STYLES[result.status]), f"  {result.recipe.name}")
    head.append(f"  pretraining {origin}{f', {result.method}' if result.method else ''}", style="dim")
    rows = [("text", ", ".join(result.text.names))] if result.text is not None else []
    if result.held_out is not None:
        known = result.held_out
        rows.append(("held-out perplexity", f"{known.perplexity:.2f} ({known.predictions:,} masked tokens)"))
        rows.append(("masked tokens right", f"{known.accuracy:.1%}"))
    rows.append(("read", f"{result.tokens:,} tokens in {result.steps:,} steps, {result.epochs:g} epochs"))
    if result.trainable is not None and result.total is not None:
        rows.append(("parameters", f"{result.trainable:,} trained of {result.total:,}"))
    rows.append(("time", seconds_text(result.seconds.total)))
    if result.memory.peak_rss_bytes is not None:
        rows.append(("peak memory", bytes_text(result.memory.peak_rss_bytes)))
    reason = [Text(result.reason)] if result.reason is not None else []
    return Group(head, *reason, Text(), _pairs(rows), *(Text(f"note: {note}") for note in result.notes))


def _metrics_table(result: Result) -> Table:
    table = _table(("test metric", "left"), ("value", "right"), ("95 % interval", "right"), ("rows", "right"))
    for name, estimate in result.metrics.test.items():
        table.add_row(name, *estimate_text(estimate))
    return table


def _labels_table(result: Result) -> Table:
    from rich.text import Text

    scores = result.scores.per_class if result.scores is not None else ()
    few = len(scores) <= _ALL_LABELS
    shown = scores if few else sorted(scores, key=lambda score: -1.0 if score.f1 is None else score.f1)[:_WORST_LABELS]
    head = "label" if few else f"label (lowest F1, {_WORST_LABELS} of {len(scores)})"
    table = _table((head, "left"), *((name, "right") for name in ("precision", "recall", "F1", "test rows")))
    for score in shown:
        figures = (share_text(score.precision), share_text(score.recall), share_text(score.f1), f"{score.support:,}")
        table.add_row(Text(score.label), *figures)
    return table


def _own_table(shown: TaskTable) -> Table:
    from rich.text import Text

    table = _table(*((name, "left" if place == 0 else "right") for place, name in enumerate(shown.columns)))
    table.title, table.title_justify = shown.title, "left"
    for row in shown.rows:
        table.add_row(*(Text(cell_text(value)) for value in row))
    return table


def _pairs(rows: Iterable[tuple[str, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for name, value in rows:
        grid.add_row(Text(name, style="dim"), Text(value))
    return grid


def _table(*columns: tuple[str, str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for name, side in columns:
        table.add_column(name, justify="left" if side == "left" else "right")
    return table
