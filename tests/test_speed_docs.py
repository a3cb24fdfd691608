"""docs/speed.md says what the records in benchmarks/results/speed say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = (
    ("minilm", "32x32"),
    ("minilm", "256x128"),
    ("rbt3", "256x128"),
    ("base", "32x128"),
    ("base", "256x128"),
)

NAMES = {
    "full": "full fine-tuning",
    "lora q,v": "LoRA on query and value",
    "lora all-linear": "LoRA on all linear layers",
    "bottleneck": "bottleneck adapters",
    "lora top layer": "LoRA in the top layer",
    "full, recomputed": "full fine-tuning, layers run again",
    "lora all-linear, recomputed": "LoRA on all linear layers, layers run again",
}
"""What the page calls an arm of the benchmarks."""


def _record(name: str) -> Any:
    path = ROOT / "benchmarks" / "results" / "speed" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def _lines() -> list[str]:
    return (ROOT / "docs" / "speed.md").read_text(encoding="utf-8").splitlines()


def test_the_table_of_the_gpu_is_that_of_its_record() -> None:
    results = _record("gpu")["results"]
    lines = _lines()
    for arm in results["minilm"]["32x32"]:
        of = [results[shape][batch][arm] for shape, batch in COLUMNS]
        cells = [f"{row['step_ms']:.1f}, {row['wall_ratio']:.2f}, {row['memory_ratio']:.2f}" for row in of]
        assert f"| {arm} | {' | '.join(cells)} |" in lines
    full = [results[shape][batch]["full"] for shape, batch in COLUMNS]
    shares = " | ".join(f"{100 * row['share_of_matmul_peak']:.1f} %" for row in full)
    assert f"| full, share of the matmul peak | {shares} |" in lines
    peaks = " | ".join(f"{row['peak_mb']:,}" for row in full)
    assert f"| full, MB on the GPU | {peaks} |" in lines


def test_the_table_of_steps_is_that_of_its_records() -> None:
    records = ("step_ratios_minilm", "step_ratios_rbt3", "step_ratios_rbt3_cls")
    minilm, rbt3, first_token = (_record(name)["results"] for name in records)
    lines = _lines()
    for arm in ("lora q,v", "lora all-linear", "bottleneck", "lora top layer"):
        cells = [f"{results[arm]['wall_ratio']:.3f}" for results in (minilm, rbt3, first_token)]
        assert f"| {NAMES[arm]} | {' | '.join(cells)} |" in lines


def test_the_tables_of_memory_and_of_passes_are_those_of_their_records() -> None:
    lines = _lines()
    by_way = _record("peak_memory")["results"]
    arms = ("full", "lora q,v", "lora all-linear", "lora top layer", "full, recomputed", "lora all-linear, recomputed")
    for arm in arms:
        cells = [f"{rows[arm]['peak'] / 1e6:,.0f}, {rows[arm]['ratio']:.3f}" for rows in by_way.values()]
        assert f"| {NAMES[arm]} | {' | '.join(cells)} |" in lines
    shapes = _record("passes")["results"]
    for tokens in (512, 1024, 2048):
        cells = [f"{row['wall_ratio']:.2f}" for shape in shapes.values() for row in shape if row["tokens"] == tokens]
        assert f"| {tokens:,} | {' | '.join(cells)} |" in lines


def test_what_stands_of_trainer_and_of_the_kept_prefix_is_that_of_their_records() -> None:
    lines = _lines()
    against = _record("against_trainer")["results"]
    names = {
        "trainer padded to 128": "padded to 128",
        "trainer dynamic padding": "padded to the longest of the batch",
        "trainer best flags": "that, grouped by length, and bf16",
    }
    for arm, name in names.items():
        assert f"| {name} | {against[arm]['seconds']:.2f} | {against[arm]['peftlab_ratio']:.3f} |" in lines
    own, other = against["peftlab"], against["trainer best flags"]
    whole = (
        f"peftlab took {own['epochs_seconds']:.1f} s and Trainer {other['epochs_seconds']:.1f} s, a ratio of "
        f"{own['epochs_seconds'] / other['epochs_seconds']:.2f}; test accuracy {own['accuracy']:.4f} and "
        f"{other['accuracy']:.4f}"
    )
    assert whole in " ".join(" ".join(lines).split())
    epoch = _record("against_trainer_epoch")["results"]
    once = epoch["trainer best flags"]
    said = f"it is {once['peftlab_ratio']:.3f} ({epoch['peftlab']['seconds']:.1f} s against {once['seconds']:.1f} s"
    assert said in " ".join(" ".join(lines).split())
    for pooling in ("mean", "cls"):
        kept = _record(f"prefix_cache_{pooling}")["results"]
        row = f"| {pooling} | {kept['epoch']['cache']['wall_ratio']:.3f} | {kept['suite']['ratio']:.3f} |"
        assert row in lines
        assert kept["bit_identical"] is True


def test_the_tables_of_growth_are_those_of_their_records() -> None:
    lines = _lines()
    rows = _record("rows")["results"]
    for number in (1_000, 10_000, 100_000, 1_000_000):
        cells = [
            f"{rows[verb][str(number)]['peak_mb']:,} | {rows[verb][str(number)]['seconds']:,.0f}"
            for verb in ("prepare", "predict")
        ]
        assert f"| {number:,} | {' | '.join(cells)} |" in lines
    text = " ".join(" ".join(lines).split())
    prepared, predicted = (
        rows[verb]["1000000"]["peak_mb"] / rows[verb]["100000"]["peak_mb"] for verb in ("prepare", "predict")
    )
    assert f"{prepared:.2f} and {predicted:.2f} of the peak at 100,000 rows" in text
    for sweep, sizes in _record("growth")["results"].items():
        for size, row in sizes.items():
            cells = [f"{1000 * row['wall_seconds']:,.0f}", f"{row['wall_ratio']:.2f}", f"{row['peak_mb']:,}"]
            assert f"| {sweep} {size} | {' | '.join(cells)} |" in lines
