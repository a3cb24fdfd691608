"""Rows that an export carries to be computed again: made-up token ids, and the logits that run and export gave on them.

Texts of the data, or their token ids, would leave with the export and be read by whoever gets it. Random tokens run
through every weight of every layer just as well, so that a changed one shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.data.tokens import Tokens
from peftlab.errors import RunError
from peftlab.evaluation.forward import Forward, logits_through
from peftlab.runs.certificate import REFERENCE, Dtype, Reference
from peftlab.shipping.decoding import Decoding

ROWS = 16
BATCH = 4
LONGEST = 64
_DECODING = "decoding."

# Largest difference between two machines' arithmetic, relative to the largest logit. Kernels for 8 bit differ between
# processors (some saturate sums of products), and half precision is summed in other orders.
_TOLERANCE: dict[Dtype, float] = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2, "int8": 1e-1}


@dataclass(frozen=True)
class Rows:
    """Reference rows with the logits [rows, labels] that run and export gave when the export was made.

    `decoding`: that of the run.
    """

    tokens: Tokens
    run: NDArray[np.float32]
    export: NDArray[np.float32]
    decoding: Decoding


def made_up_tokens(tokenizer: Any, vocabulary: int, max_length: int) -> Tokens:
    """Return rows of random tokens, none of them special, between those that the tokenizer puts around a text."""
    around = tokenizer("")
    start, end = around["input_ids"][:1], around["input_ids"][1:]
    ordinary = np.setdiff1d(np.arange(min(len(tokenizer), vocabulary)), np.asarray(tokenizer.all_special_ids))
    generator = np.random.default_rng(0)
    longest = max(1, min(LONGEST, max_length) - len(start) - len(end))
    lengths = np.linspace(1, longest, ROWS).astype(np.int64)
    rows = [np.concatenate([start, generator.choice(ordinary, length), end]).astype(np.int32) for length in lengths]
    ids = np.concatenate(rows)
    return Tokens(
        ids=ids,
        segments=np.zeros(len(ids), np.int8) if "token_type_ids" in around else None,
        starts=np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64),
        pad_id=int(tokenizer.pad_token_id),
        pad_left=tokenizer.padding_side == "left",
    )


def write_reference(
    folder: Path, tokens: Tokens, models: tuple[Forward, Forward], decoding: Decoding, dtype: Dtype
) -> Reference:
    """Write the rows with the logits of run and export, and return what the certificate says of them."""
    from safetensors.numpy import save_file

    before, after = (logits_through(forward, tokens, BATCH) for forward in models)
    tensors = {"input_ids": tokens.ids, "starts": tokens.starts, "run_logits": before, "export_logits": after}
    tensors |= {f"{_DECODING}{name}": values for name, values in decoding.items()}
    tensors["padding"] = np.asarray([tokens.pad_id, tokens.pad_left], np.int64)
    if tokens.segments is not None:
        tensors["token_type_ids"] = tokens.segments
    save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, folder / REFERENCE)
    scale = float(np.abs(after).max())
    return Reference(rows=len(tokens), from_run=_largest(before, after), tolerance=_TOLERANCE[dtype] * scale)


def read_reference(folder: Path) -> Rows:
    """Return the rows of an export; RunError where the file is missing or broken."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(folder / REFERENCE)
        padding = tensors["padding"]
        tokens = Tokens(
            ids=tensors["input_ids"],
            segments=tensors.get("token_type_ids"),
            starts=tensors["starts"],
            pad_id=int(padding[0]),
            pad_left=bool(padding[1]),
        )
        decoding = {name.removeprefix(_DECODING): own for name, own in tensors.items() if name.startswith(_DECODING)}
        return Rows(tokens, tensors["run_logits"], tensors["export_logits"], decoding)
    except (OSError, KeyError, SafetensorError) as error:
        raise RunError(f"{folder / REFERENCE} cannot be read ({type(error).__name__})") from error


def reference_differences(rows: Rows, export: Forward) -> tuple[float, float]:
    """Return the largest difference of `export`, computed now, from its own former logits and from the run's."""
    now = logits_through(export, rows.tokens, BATCH)
    return _largest(rows.export, now), _largest(rows.run, now)


def _largest(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    gap = float(np.abs(before.astype(np.float64) - after.astype(np.float64)).max())
    return gap if np.isfinite(gap) else float("inf")
