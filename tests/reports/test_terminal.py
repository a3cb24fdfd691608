"""What `peftlab show` prints."""

from __future__ import annotations

import io
from collections.abc import Callable

from rich.console import Console

from peftlab.reports.terminal import show_run
from peftlab.reports.wording import bytes_text, seconds_text
from peftlab.runs.result import Result
from peftlab.runs.result_parts import EncoderUsed


def printed(result: Result) -> str:
    console = Console(file=io.StringIO(), width=110, color_system=None)
    console.print(show_run(result))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_metrics_stand_with_their_intervals_and_the_cost_beside_them(make_result: Callable[..., Result]) -> None:
    result = make_result()
    text = printed(result)
    accuracy = result.metrics.test["accuracy"]
    for part in (
        "ok  lora_tiny",
        f"{accuracy.value:.4f}",
        f"{accuracy.low:.4f} to {accuracy.high:.4f}",
        "73,728 (0.324% of all)",
        "1 min 15 s",
        "1.23 GB",
        "target accuracy 0.5: reached",
        "delivery",
    ):
        assert part in text, part


def test_of_many_labels_those_with_the_lowest_f1_are_shown(make_result: Callable[..., Result]) -> None:
    result = make_result(tuple(f"intent-{number:02d}" for number in range(30)))
    assert result.scores is not None
    text = printed(result)
    worst = min(result.scores.per_class, key=lambda score: score.f1 or 0.0)
    assert worst.label in text
    assert "lowest F1, 10 of 30" in text
    assert text.count("intent-") == 10


def test_a_failure_shows_its_reason_and_traceback(make_result: Callable[..., Result]) -> None:
    text = printed(
        make_result(status="failed", reason="the disk is full", traceback="Traceback ...\nOSError", scores=None)
    )
    assert "failed  lora_tiny" in text
    assert "the disk is full" in text
    assert "OSError" in text


def test_a_stand_in_is_shown_in_a_box_and_labels_are_no_markup(make_result: Callable[..., Result]) -> None:
    encoder = EncoderUsed(requested="hfl/rbt3", used="bundled:minilm-en")
    text = printed(make_result(("[red]a[/red]", "b"), encoder=encoder, stand_in=True, notes=("[bold]halved",)))
    assert "STAND-IN ENCODER" in text
    assert "[red]a[/red]" in text
    assert "[bold]halved" in text


def test_durations_and_sizes_are_in_units_that_fit_them() -> None:
    assert [seconds_text(s) for s in (0.4, 59.94, 61.2, 3725.0)] == ["0.4 s", "59.9 s", "1 min 01 s", "1 h 02 min"]
    assert [bytes_text(b) for b in (999, 1_000, 2_500_000, 3 * 10**9)] == ["999 bytes", "1.00 kB", "2.50 MB", "3.00 GB"]
