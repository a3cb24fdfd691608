"""A model as an ONNX graph: written by torch, quantised and run by onnxruntime.

torch's tracing exporter (`dynamo=False`) is used: it needs no further package, takes 2 s where the newer one takes 11 s
on MiniLM, and its graphs quantise as they are (measured, torch 2.13). What a trace may get wrong, a shape or a branch,
shows in the certificate, whose rows have other lengths than the traced one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

OPSET = 17
FILE_NAME = "model.onnx"
Inputs = Mapping[str, NDArray[np.int64]]


class _Logits(nn.Module):
    """A classifier with named inputs in a fixed order, and logits in fp32."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits.float()


def write_graph(model: nn.Module, example: Mapping[str, Tensor], path: Path, *, each_token: bool = False) -> None:
    """Write `model` as it evaluates to `path`; batch and length stay free. `example` names and types the inputs.

    `each_token`: its logits are [batch, tokens, labels], rather than [batch, labels].
    """
    names = tuple(example)
    wrapped = _Logits(model, names).eval()  # a wrapper left in training mode would put the model back into it
    free = {name: {0: "batch", 1: "tokens"} for name in names}
    free["logits"] = {0: "batch", 1: "tokens"} if each_token else {0: "batch"}
    with warnings.catch_warnings():
        # Of the exporter's coming removal, and of every branch on a shape; parity is measured, not assumed.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            wrapped,
            tuple(example.values()),
            str(path),
            input_names=list(names),
            output_names=["logits"],
            dynamic_axes=free,
            opset_version=OPSET,
            dynamo=False,
        )


def halve(path: Path) -> None:
    """Store the graph in fp16 in its own place; inputs and logits keep their types.

    A model in half precision does not trace well: the scale of attention stays fp32, and onnxruntime refuses the mix.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _quiet():
        onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), path)


def quantise_dynamic(graph: Path, target: Path, *, seven_bits: bool = False) -> None:
    """Write `graph` with 8-bit weights, a scale for each output; activations are rounded by the range of each batch.

    `seven_bits`: weights keep to seven of the eight bits, so that processors without instructions for 8-bit products
    (VNNI, AMX) do not saturate their sums.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(graph, target, weight_type=QuantType.QInt8, per_channel=True, reduce_range=seven_bits)


def quantise_static(graph: Path, target: Path, batches: Sequence[Inputs]) -> None:
    """Write `graph` with 8-bit weights and activations, their ranges taken from what `batches` give."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Batches(CalibrationDataReader):  # type: ignore[misc] # onnxruntime ships no types
        def __init__(self) -> None:
            self.left: Iterator[Inputs] = iter(batches)

        def get_next(self) -> Inputs | None:
            return next(self.left, None)

    with _quiet():
        quantize_static(
            graph,
            target,
            Batches(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm"],
            calibrate_method=CalibrationMethod.MinMax,
        )


def run_graph(path: Path) -> Any:
    """Return the graph as a function from inputs to logits, on the CPU, with torch's number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def forward(inputs: Inputs) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(None, {name: inputs[name] for name in names})[0]
        return logits

    return forward


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnxruntime from advising a pre-processing that these graphs do not need."""
    import logging

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
