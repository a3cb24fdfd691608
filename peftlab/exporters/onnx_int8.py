"""The ONNX graph with 8-bit weights, a quarter of the bytes: static or dynamic, whichever flips fewest predictions.

Dynamic: activations are rounded by the range of each batch, with weights of 8 or of 7 bits. Static: by ranges that
validation texts gave. All are made and compared with the run on the validation split (Jacob et al. 2018, arXiv
1712.05877, sections 2 and 3).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from peftlab.data.tokens import Tokens, pad
from peftlab.evaluation.agreement import Difference
from peftlab.evaluation.export_source import Source, Written, comparable
from peftlab.evaluation.forward import Forward, as_forward, logits_through
from peftlab.runs.certificate import Dtype, Exported

if TYPE_CHECKING:
    from peftlab.encoders.onnx_graph import Inputs

PACKAGES = ("onnx", "onnxruntime")
EXTRA: str | None = "onnx"
DTYPES: tuple[Dtype, ...] = ("int8",)
TAKES: Literal["any"] = "any"
MAX_DRIFT = None

_CALIBRATION_ROWS = 256
_AT_ONCE = 16


def write(source: Source, folder: Path) -> Written:
    """Write the best of the graphs, tokenizer and configuration."""
    import shutil
    import tempfile

    import torch

    from peftlab.encoders.onnx_graph import FILE_NAME, OPSET, quantise_dynamic, quantise_static
    from peftlab.evaluation.run_graph import write_beside_graph, write_run_graph

    rows = source.validation
    with tempfile.TemporaryDirectory() as scratch:
        graph, *made = (Path(scratch) / f"{name}.onnx" for name in ("fp32", "dynamic", "dynamic 7-bit", "static"))
        merged = write_run_graph(source, graph)
        quantise_dynamic(graph, made[0])
        quantise_dynamic(graph, made[1], seven_bits=True)
        quantise_static(graph, made[2], _batches(rows))
        eager = comparable(as_forward(source.run.module, torch.device("cpu")), source.exported)
        truth = logits_through(eager, rows, _AT_ONCE)
        found = {path.stem: _distance(source, truth, path, rows) for path in made}
        chosen = min(found, key=lambda name: (found[name].flips, found[name].mean))
        shutil.move(Path(scratch) / f"{chosen}.onnx", folder / FILE_NAME)
    write_beside_graph(source, folder)
    counts = ", ".join(f"{name} {one.flips} flips and mean drift {one.mean:.2g}" for name, one in found.items())
    note = f"ONNX opset {OPSET}; {chosen} quantisation, chosen on {found[chosen].rows:,} validation rows: {counts}."
    return Written(merged=merged, loads_with=("onnxruntime",), notes=(note,))


def load(folder: Path, exported: Exported) -> Forward:  # noqa: ARG001 the plug-in contract
    """Load the graph into onnxruntime."""
    from peftlab.encoders.onnx_graph import FILE_NAME, run_graph

    forward: Forward = run_graph(folder / FILE_NAME)
    return forward


def usage(exported: Exported) -> str:
    """Return Python that gives `logits` of `texts`, `folder` being the export."""
    from peftlab.evaluation.run_graph import graph_usage

    return graph_usage(exported)


def _batches(tokens: Tokens) -> list[Inputs]:
    """Return the first calibration rows, padded in small batches."""
    rows = range(min(_CALIBRATION_ROWS, len(tokens)))
    batches = [rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE)]
    return [{name: tensor.numpy() for name, tensor in pad(tokens, batch).items()} for batch in batches]


def _distance(source: Source, truth: NDArray[np.float32], graph: Path, rows: Tokens) -> Difference:
    from peftlab.encoders.onnx_graph import run_graph

    logits = logits_through(comparable(run_graph(graph), source.exported), rows, _AT_ONCE)
    return source.compare(truth, logits)
