"""The figures of a run: what stands in them, and that drawing them changes nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import font_manager

from peftlab.reports.figures import confusion_figure, learning_figure, rank_figure, write_figures
from peftlab.reports.label_fonts import drawable_labels
from peftlab.reports.metric_lines import MetricLines, TrainingStep, Validation
from peftlab.runs.result import Result
from peftlab.runs.result_parts import Best

CHINESE = ("售后", "技术支持", "物流", "账户与支付", "产品")
PNG = b"\x89PNG\r\n\x1a\n"


def written(figure: Any) -> str:
    """Return all text of a figure, from every panel."""
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_text())


def lines_of(steps: int) -> MetricLines:
    trained = tuple(TrainingStep(n, n / 10, 2.0 / n, 1e-3) for n in range(1, steps + 1))
    return MetricLines(trained, (Validation(steps, steps / 10, {"accuracy": 0.5}),))


def write_lines(folder: Path) -> None:
    rows = [{"step": n, "epoch": n / 10, "loss": 1.0 / n, "learning_rate": 1e-3} for n in range(1, 21)]
    rows.append({"step": 20, "epoch": 2.0, "validation": {"accuracy": 0.81}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_a_run_gets_both_figures_and_nothing_beside_them(tmp_path: Path, make_result: Callable[..., Result]) -> None:
    write_lines(tmp_path)
    assert write_figures(tmp_path, make_result()) == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "confusion_matrix.png",
        "learning_curve.png",
        "metrics.jsonl",
    ]
    for name in ("confusion_matrix.png", "learning_curve.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)


def test_ranks_are_drawn_by_layer_and_kind_where_there_are_any(
    tmp_path: Path, make_result: Callable[..., Result]
) -> None:
    ranks = {
        f"bert.encoder.layer.{layer}.attention.self.{kind}": 4 * layer + place
        for layer in range(3)
        for place, kind in enumerate(("query", "value"))
        if (layer, kind) != (1, "value")
    }
    write_figures(tmp_path, make_result(ranks=ranks))
    assert (tmp_path / "ranks.png").read_bytes().startswith(PNG)
    figure = rank_figure(ranks)
    assert "22 in 5 modules, from 0 to 9" in written(figure)
    grid = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(np.ma.filled(grid, np.nan), [[0, 1], [4, np.nan], [8, 9]])
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["0", "1", "2"]
    assert "attention.self.query" in written(figure)


def test_ranks_of_layers_that_share_weights_take_one_row() -> None:
    groups = "albert.encoder.albert_layer_groups.0.albert_layers.0"
    figure = rank_figure({f"{groups}.attention.query": 3, f"{groups}.ffn": 0})
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["all"]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["attention.query", "ffn"]


def test_a_method_without_steps_gets_no_learning_curve(tmp_path: Path, make_result: Callable[..., Result]) -> None:
    write_figures(tmp_path, make_result(best=None))
    assert [path.name for path in tmp_path.iterdir()] == ["confusion_matrix.png"]


def test_the_matrix_shows_shares_counts_rows_and_accuracy_with_its_interval(make_result: Callable[..., Result]) -> None:
    result = make_result()
    assert result.scores is not None
    accuracy = result.metrics.test["accuracy"]
    figure, note = confusion_figure(result.scores, accuracy)
    text = written(figure)
    assert note is None
    assert f"n = 200\naccuracy {100 * accuracy.value:.1f} % (95 % interval" in text
    counts = np.array(result.scores.confusion)
    assert f"{counts[0, 0] / counts[0].sum():.1%}\n({counts[0, 0]})" in text
    assert f"delivery ({counts[0].sum()})" in text
    image = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(image, counts / counts.sum(axis=1, keepdims=True))


def test_77_labels_are_all_named_and_the_most_frequent_confusions_are_listed(
    make_result: Callable[..., Result],
) -> None:
    labels = tuple(f"intent_{number:02d}" for number in range(77))
    result = make_result(labels)
    assert result.scores is not None
    figure, _ = confusion_figure(result.scores, result.metrics.test["accuracy"])
    text = written(figure)
    for label in labels:
        assert f"{label} (" in text
    counts = np.array(result.scores.confusion)
    np.fill_diagonal(counts, 0)
    gold, guess = np.unravel_index(counts.argmax(), counts.shape)
    assert f"{counts.max()}   {labels[gold]} → {labels[guess]}" in text


def test_more_labels_than_can_be_read_are_thinned_and_that_is_said(make_result: Callable[..., Result]) -> None:
    result = make_result(tuple(f"intent_{number:03d}" for number in range(150)))
    assert result.scores is not None
    figure, _ = confusion_figure(result.scores, None)
    assert len(figure.axes[0].get_xticks()) == 75
    assert "one in 2 is named" in written(figure)


def test_multi_label_sets_get_found_and_missed_shares_of_each_label(make_result: Callable[..., Result]) -> None:
    result = make_result(multi_label=True)
    assert result.scores is not None
    figure, _ = confusion_figure(result.scores, result.metrics.test["accuracy"])
    (_, wrong), (missed, found) = result.scores.confusion[0]  # type: ignore[misc]
    text = written(figure)
    assert "rows with every label right" in text
    assert f"{found / (found + missed):.1%} ({found})" in text
    assert f"({wrong})" in text


def test_a_label_without_test_rows_is_said_to_have_none(make_result: Callable[..., Result]) -> None:
    result = make_result()
    assert result.scores is not None
    counts = [list(row) for row in result.scores.confusion]
    counts[2] = [0, 0, 0]
    emptied = result.scores.model_copy(update={"confusion": tuple(map(tuple, counts))})
    assert "no rows" in written(confusion_figure(emptied, None)[0])


def test_chinese_labels_are_numbered_and_that_is_said_where_no_font_has_them(
    monkeypatch: pytest.MonkeyPatch, make_result: Callable[..., Result], tmp_path: Path
) -> None:
    own = Path(mpl.get_data_path())
    shipped = [entry for entry in font_manager.fontManager.ttflist if own in Path(entry.fname).parents]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", shipped)
    result = make_result(CHINESE)
    assert result.scores is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a glyph that it has to leave out
        figure, note = confusion_figure(result.scores, None)
        (saved,) = write_figures(tmp_path, result)
    assert note is not None
    assert note in written(figure)
    assert saved == f"confusion_matrix.png: {note}"
    assert "0 (" in written(figure)
    assert not set("".join(CHINESE)) & set(written(figure))


def test_a_font_that_has_the_characters_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    # No font of a test machine need have Chinese; the characters of a mathematical font stand for it.
    base = {
        entry.name: entry
        for entry in font_manager.fontManager.ttflist
        if entry.name in ("DejaVu Sans", "STIXNonUnicode") and (entry.style, entry.weight) == ("normal", 400)
    }
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(base.values()))
    only_there = "\ue000"
    labels = drawable_labels([only_there, "plain"])
    assert labels.families == ("DejaVu Sans", "STIXNonUnicode")
    assert labels.texts == (only_there, "plain")
    assert labels.note is None


def test_long_names_are_cut_by_columns_of_which_a_chinese_character_takes_two(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawable_labels(["a" * 40], longest=10).texts == ("a" * 10 + "…",)
    monkeypatch.setattr("peftlab.reports.label_fonts._characters_of", lambda _: {ord("物"), ord("a")})
    assert drawable_labels(["物" * 9, "物" * 5], longest=10).texts == ("物" * 5 + "…", "物" * 5)


def test_the_learning_curve_marks_the_best_step_and_says_how_it_smooths() -> None:
    figure = learning_figure(lines_of(90), Best(step=90, epoch=9.0, metric="accuracy", value=0.5))
    text = written(figure)
    assert "best 0.5000\nstep 90" in text
    assert "mean of 3 steps around" in text
    assert "90 steps, 9 epochs" in text
    raw, smooth = figure.axes[0].lines
    assert len(raw.get_ydata()) == len(smooth.get_ydata()) == 90
    assert smooth.get_ydata()[10] == pytest.approx(np.mean(raw.get_ydata()[9:12]))
    assert smooth.get_ydata()[0] == pytest.approx(np.mean(raw.get_ydata()[:2]))


def test_one_step_without_a_validation_can_be_drawn(tmp_path: Path) -> None:
    figure = learning_figure(MetricLines((TrainingStep(1, 1.0, 2.0, 1e-3),), ()), None)
    assert "no validation" in written(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "one.png")


def test_drawing_imports_no_pyplot_and_changes_no_global_setting() -> None:
    script = """
import sys
import peftlab.reports.figures
assert "matplotlib" not in sys.modules, "importing is heavy"
import matplotlib
before = dict(matplotlib.rcParams)
from peftlab.reports.figures import learning_figure
from peftlab.reports.metric_lines import MetricLines, TrainingStep
learning_figure(MetricLines((TrainingStep(1, 1.0, 2.0, 1e-3),), ()), None).savefig("/dev/null", format="png")
assert "matplotlib.pyplot" not in sys.modules
assert dict(matplotlib.rcParams) == before
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)
