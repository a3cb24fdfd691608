"""An OpenVINO model (IR) with pooling and head in it, for Intel processors; made of the ONNX graph, of any method.

Batch and length are free. The tokenizer lies beside it. It computes in fp32, whatever type its weights are stored in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from peftlab.evaluation.export_source import Source, Written
from peftlab.evaluation.forward import Forward
from peftlab.runs.certificate import Dtype, Exported

PACKAGES = ("openvino",)
EXTRA: str | None = "openvino"
DTYPES: tuple[Dtype, ...] = ("fp32", "fp16")
TAKES: Literal["any"] = "any"
MAX_DRIFT = 1e-4
FILE_NAME = "openvino_model.xml"
"""The name that other tools look for; the weights lie beside it, in a file that ends in .bin."""


def write(source: Source, folder: Path) -> Written:
    """Write model and tokenizer, and a configuration that names the labels."""
    import dataclasses
    import tempfile

    import openvino

    from peftlab.evaluation.run_graph import write_beside_graph, write_run_graph

    with tempfile.TemporaryDirectory() as scratch:
        graph = Path(scratch) / "model.onnx"
        merged = write_run_graph(dataclasses.replace(source, dtype="fp32"), graph)
        # Not by convert_model, which reports its use to the maker of OpenVINO unless that was refused before.
        model = openvino.Core().read_model(graph)
        openvino.save_model(model, folder / FILE_NAME, compress_to_fp16=source.dtype == "fp16")
    write_beside_graph(source, folder)
    return Written(merged=merged, loads_with=("openvino",))


def load(folder: Path, exported: Exported) -> Forward:  # noqa: ARG001 the plug-in contract
    """Compile the model for the CPU, in fp32, with torch's number of threads."""
    import openvino
    import torch

    # By itself it computes in bf16 where the processor can.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    model: Any = openvino.Core().compile_model(folder / FILE_NAME, "CPU", settings)
    names = [one.any_name for one in model.inputs]

    def forward(inputs: Any) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = model({name: inputs[name] for name in names})[0]
        return logits.copy()  # the array belongs to the model, which writes into it again

    return forward


def usage(exported: Exported) -> str:
    """Return Python that gives `logits` of `texts`, `folder` being the export."""
    from peftlab.evaluation.export_usage import inputs_code, tags_code

    return f"""import openvino
from transformers import AutoTokenizer

model = openvino.Core().compile_model(f"{{folder}}/{FILE_NAME}", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
tokenizer = AutoTokenizer.from_pretrained(folder)
{inputs_code(exported, "np")}
logits = model({{one.any_name: inputs[one.any_name].astype("int64") for one in model.inputs}})[0]\
{tags_code(exported)}"""
