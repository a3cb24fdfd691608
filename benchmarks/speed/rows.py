"""How time and memory grow with rows: reading, checking, splitting and tokenising them, and predicting them.

python benchmarks/speed/rows.py [--threads 1] [--rows 1000 10000 100000 1000000]
Made-up texts of 4 to 12 words, none twice; a probe predicts, on an encoder of one layer, 32 wide, with the tokenizer of
the bundled Chinese one, so that a million rows take minutes. Each size is measured in a process of its own, whose
libraries take most of the memory of the small ones.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from turns import alone

from peftlab.runs.environment import peak_resident_bytes

WORDS = (
    "parcel",
    "order",
    "refund",
    "card",
    "late",
    "broken",
    "where",
    "is",
    "my",
    "please",
    "account",
    "price",
    "size",
)
QUEUES = ("delivery", "payment", "returns", "account")


def prepare(folder: str, rows: str) -> None:
    """Read, check, split and tokenise the rows of a file, as a training does before its first step."""
    from peftlab.recipe.load import read_recipe
    from peftlab.recipe.resolve import resolved
    from peftlab.training.prepare import find_inputs, tokenise_splits

    recipe = Path(folder) / "recipe.toml"
    write_recipe(recipe, Path(folder) / f"{rows}.csv")
    found = find_inputs(resolved(read_recipe(recipe)), report_path=None, say=lambda sentence: None)  # noqa: ARG005
    tokenise_splits(found)


def predict(folder: str, rows: str) -> None:
    """Predict the rows of a file with the probe in `folder`."""
    from peftlab.predict import main as predict_program

    answers = Path(folder) / f"{rows}.jsonl"
    file = Path(folder) / f"{rows}.csv"
    assert predict_program([str(Path(folder) / "run"), str(file), "--json", "--out", str(answers)]) == 0


def write_recipe(path: Path, file: Path) -> None:
    """Write a recipe that trains a probe on the rows of `file`, with the encoder beside it."""
    path.write_text(
        '[encoder]\nname = "./encoder"\npooling = "mean"\nmax_length = 32\n[task]\nname = "classification"\n'
        f'[data]\ntrain = "{file}"\n[method]\nname = "probe"\n[run]\ntrackers = []\n',
        encoding="utf-8",
    )


def write_encoder(folder: Path) -> None:
    """Write an encoder of one layer with random weights."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from peftlab.encoders.source import find_encoder
    from peftlab.recipe.records import Encoder

    tokenizer = AutoTokenizer.from_pretrained(find_encoder(Encoder(name="bundled:mini-zh"), beside=folder).folder)
    torch.manual_seed(0)
    small = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        pad_token_id=tokenizer.pad_token_id,
    )
    BertModel(small).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_rows(file: Path, rows: int) -> None:
    """Write `rows` made-up tickets, none twice."""
    draw = random.Random(rows)
    with file.open("w", encoding="utf-8") as out:
        out.write("text,label\n")
        for number in range(rows):
            text = " ".join(draw.choice(WORDS) for _ in range(draw.randint(3, 11)))
            out.write(f"{text} {number},{draw.choice(QUEUES)}\n")


def rows_of(sizes: list[int], threads: int) -> dict[str, Any]:
    """Return peak and seconds of preparing and predicting each number of rows."""
    from peftlab.train import main as train_program

    found: dict[str, Any] = {"prepare": {}, "predict": {}}
    env = {**os.environ, "PEFTLAB_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        for rows in sizes:
            write_rows(Path(folder) / f"{rows}.csv", rows)
        write_encoder(Path(folder) / "encoder")
        write_recipe(Path(folder) / "recipe.toml", Path(folder) / f"{min(sizes)}.csv")
        assert train_program([str(Path(folder) / "recipe.toml"), f"run.dir={folder}/run"]) == 0
        for verb, by_rows in found.items():
            for rows in sizes:
                measured = alone(["--one", verb, folder, str(rows)], env)
                by_rows[str(rows)] = {"seconds": measured["seconds"], "peak_mb": round(measured["peak"] / 1e6)}
                print(f"{verb} {rows:,} rows: {by_rows[str(rows)]}", flush=True)
    return found


def main() -> None:
    """Measure, print, write the record."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    asked.add_argument("--one", nargs=3)
    options = asked.parse_args()
    if options.one is not None:
        verb, *words = options.one
        started = time.perf_counter()
        {"prepare": prepare, "predict": predict}[verb](*words)
        print(json.dumps({"seconds": round(time.perf_counter() - started, 2), "peak": peak_resident_bytes()}))
        return
    found = rows_of(options.rows, options.threads)
    from shapes import record

    record("rows", {"words": [4, 12], "encoder": "1 layer x 32", "threads": options.threads}, found)


if __name__ == "__main__":
    main()
