"""An ONNX graph with pooling and head in it, for onnxruntime; an adapter that cannot be merged is part of the graph.

Opset 17; batch and length are free. The tokenizer lies beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from peftlab.evaluation.export_source import Source, Written
from peftlab.evaluation.forward import Forward
from peftlab.runs.certificate import Dtype, Exported

PACKAGES = ("onnx", "onnxruntime")
EXTRA: str | None = "onnx"
DTYPES: tuple[Dtype, ...] = ("fp32", "fp16")
TAKES: Literal["any"] = "any"
MAX_DRIFT = 1e-4


def write(source: Source, folder: Path) -> Written:
    """Write graph and tokenizer, and a configuration that names the labels."""
    from peftlab.encoders.onnx_graph import FILE_NAME, OPSET
    from peftlab.evaluation.run_graph import write_beside_graph, write_run_graph

    merged = write_run_graph(source, folder / FILE_NAME)
    write_beside_graph(source, folder)
    return Written(merged=merged, loads_with=("onnxruntime",), notes=(f"ONNX opset {OPSET}.",))


def load(folder: Path, exported: Exported) -> Forward:  # noqa: ARG001 the plug-in contract
    """Load the graph into onnxruntime."""
    from peftlab.encoders.onnx_graph import FILE_NAME, run_graph

    forward: Forward = run_graph(folder / FILE_NAME)
    return forward


def usage(exported: Exported) -> str:
    """Return Python that gives `logits` of `texts`, `folder` being the export."""
    from peftlab.evaluation.run_graph import graph_usage

    return graph_usage(exported)
