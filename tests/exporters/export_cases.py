"""The runs that are exported in tests: every method that is found, and some on other encoders and heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from peftlab.recipe.plugins import load_plugin, plugin_names

FORMATS = plugin_names("exporters")


@dataclass(frozen=True)
class Case:
    """A run to export: a method with settings, on a tiny encoder of a type, with a kind of pooling, for a task."""

    method: str
    model_type: str = "bert"
    pooling: str = "mean"
    settings: tuple[str, ...] = ()
    task: str = "classification"

    def __str__(self) -> str:
        return "-".join((self.method, self.model_type, self.pooling, *self.settings))


def tagger(method: str, *settings: str) -> Case:
    """Return the case of a tagger with a CRF over its words."""
    return Case(method, pooling="native", settings=("task.crf=true", *settings), task="tagging")


ATTACHING = tuple(name for name in plugin_names("methods") if load_plugin("methods", name).NEEDS_ENCODER)
# These go through every format. The other methods that are found go through a plain model and a graph, which show what
# merging and tracing make of them; peft's format is copied as it is, and the 8-bit graph and OpenVINO's model are made
# of the same graph.
CORE = ("lora", "full", "head", "probe", "adalora", "bottleneck", "ia3")
TAGGERS = (
    *(tagger(method) for method in ("lora", "bottleneck", "ia3", "full")),
    tagger("lora", "method.dora=true"),
    tagger("adalora", "method.delta_t=2"),
)
CASES = (
    *(Case(method) for method in ATTACHING),
    Case("lora", settings=("method.dora=true",)),
    Case("lora", pooling="native"),
    Case("full", "roberta", "native"),
    Case("lora", "distilbert", "cls"),
    *TAGGERS,
)

MATRIX = tuple(
    (case, to)
    for case in CASES
    for to in FORMATS
    if case.method in CORE or to not in ("adapter", "onnx_int8", "openvino")
)

Run = Callable[[Case], Path]
Export = Callable[[Case, str], Path]
