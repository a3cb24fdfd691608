"""A rung whose encoder reads the training texts first: what it reads, what it ships, and its ceilings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import in_this_process

from peftlab.search import search
from peftlab.suites.execute import Ended, never
from peftlab.suites.orders import Order

ADAPTED = """
[[rungs]]
name = "probe"
method = "probe"
[[rungs]]
name = "adapted"
method = "head"
trials = 1
pretraining = ['method={name="lora"}', "train.epochs=1", "train.batch_size=4", "train.threads=1", "corpus.length=32"]
"""


@pytest.fixture(scope="module")
def tickets(tiny_tickets: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of 600 training rows, enough to hold some out of a pretraining."""
    rows = (tiny_tickets() / "train.jsonl").read_text(encoding="utf-8").splitlines()
    path = tmp_path_factory.mktemp("tickets") / "train.jsonl"
    many = [json.loads(rows[place % len(rows)]) for place in range(600)]
    lines = [json.dumps(row | {"text": f"{row['text']} {place}"}, ensure_ascii=False) for place, row in enumerate(many)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def record_of(write_ladder: Callable[..., Path], folder: Path, tickets: Path, more: str = "") -> dict[str, Any]:
    """Return the record of a search that no rung of it can end."""
    settings = f'target = 0.9999\noverrides = ["data.train={tickets}", "run.trackers=[]"]\n'
    ladder = write_ladder(folder, settings + more + ADAPTED)
    done: list[Order] = []

    def do(order: Order, work: Path, threads: int | None, stop: Callable[[], bool] = never) -> Ended:
        done.append(order)
        return in_this_process(order, work, threads, stop)

    record, _ = search(str(ladder), folder / "records", folder / "runs", do=do)
    return {**record, "programs": [order.program for order in done if order.name.startswith("adapted")]}


def rung(record: dict[str, Any]) -> dict[str, Any]:
    """Return the line of the rung that adapts."""
    (line,) = [one for one in record["rungs"] if one["rung"] == "adapted"]
    return dict(line)


def test_its_runs_take_the_encoder_that_read_the_training_texts_alone_and_ship_it(
    write_ladder: Callable[..., Path], tickets: Path, tmp_path: Path
) -> None:
    record = record_of(write_ladder, tmp_path, tickets)
    line = rung(record)
    assert line["state"] == "climbed"
    assert record["programs"] == ["peftlab.pretrain", "peftlab.train"]
    work = tmp_path / "runs" / "tiny"
    read = (work / "adapted-texts.txt").read_text(encoding="utf-8").splitlines()
    assert read == [json.loads(row)["text"] for row in tickets.read_text(encoding="utf-8").splitlines()]
    encoder = work / "adapted-pretraining" / "encoder"
    assert line["encoder"] == str(encoder)
    weights = (encoder / "model.safetensors").stat().st_size
    (probe,) = [one for one in record["rungs"] if one["rung"] == "probe"]
    assert line["shipped_bytes"] > weights > probe["shipped_bytes"]


@pytest.mark.parametrize(
    ("ceiling", "reason"),
    [
        ("trainable_parameters = 400", "its pretraining trains"),
        ("shipped_mb = 0.01", "the adapted encoder takes"),
    ],
)
def test_a_ceiling_that_the_pretraining_breaks_leaves_the_rung_out(
    ceiling: str, reason: str, write_ladder: Callable[..., Path], tickets: Path, tmp_path: Path
) -> None:
    line = rung(record_of(write_ladder, tmp_path, tickets, f"[ceilings]\n{ceiling}\n"))
    assert line["state"] == "left out"
    assert line["reason"].startswith(reason)


def test_a_pretraining_that_was_given_up_is_not_given_more_time_by_asking_again(
    write_ladder: Callable[..., Path], tickets: Path, tmp_path: Path
) -> None:
    """Otherwise a search would have another verdict each time."""
    settings = f'target = 0.9999\noverrides = ["data.train={tickets}", "run.trackers=[]"]\n[ceilings]\nminutes = 30\n'
    ladder = write_ladder(tmp_path, settings + ADAPTED)
    asked: list[str] = []

    def do(order: Order, work: Path, threads: int | None, stop: Callable[[], bool] = never) -> Ended:
        asked.append(order.name)
        if order.name == "adapted-pretraining":
            return Ended(130, "", stopped=True)  # as one that was at work when its time was over
        return in_this_process(order, work, threads, stop)

    first, _ = search(str(ladder), tmp_path / "records", tmp_path / "runs", do=do)
    assert rung(first)["reason"] == "its pretraining did not end within half of the rung's share of the minutes"
    before, asked[:] = list(asked), []
    again, _ = search(str(ladder), tmp_path / "records", tmp_path / "runs", do=do)
    assert again == first
    assert "adapted-pretraining" in before
    assert asked == []
