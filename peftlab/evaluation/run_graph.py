"""A run's model as an ONNX graph, merged where it can be, and how such a graph is used."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from peftlab.data.tokens import pad
from peftlab.encoders.merging import CannotMerge, merge
from peftlab.encoders.onnx_graph import halve, write_graph
from peftlab.encoders.plain_folder import name_labels, write_tokenizer
from peftlab.encoders.token_head import without_crf
from peftlab.evaluation.export_source import Source
from peftlab.evaluation.export_usage import inputs_code, tags_code
from peftlab.evaluation.run_model import full_precision
from peftlab.runs.certificate import Exported


def graph_usage(exported: Exported) -> str:
    """Return Python that gives `logits` of `texts` by onnxruntime, `folder` being the export."""
    return f"""import onnxruntime
from transformers import AutoTokenizer

session = onnxruntime.InferenceSession(f"{{folder}}/model.onnx")
tokenizer = AutoTokenizer.from_pretrained(folder)
{inputs_code(exported, "np")}
logits = session.run(None, {{one.name: inputs[one.name].astype("int64") for one in session.get_inputs()}})[0]\
{tags_code(exported)}"""


def write_run_graph(source: Source, path: Path) -> bool:
    """Write the graph to `path`; return whether an adapter was merged into its weights."""
    model: Any = without_crf(full_precision(source.folder, source.run))
    merged = hasattr(model, "peft_config")
    try:
        model = merge(model)
    except CannotMerge:
        merged = False
    example = pad(source.validation, [0, min(1, len(source.validation) - 1)])
    write_graph(model, example, path, each_token=source.exported.each_token)
    if source.dtype == "fp16":
        halve(path)
    return merged


def write_beside_graph(source: Source, folder: Path) -> None:
    """Write what is read beside a graph: the tokenizer, and a configuration that names the labels."""
    config: Any = copy.deepcopy(source.run.module.config)
    if not source.exported.each_token:  # a tagger's configuration names its tags from the start
        name_labels(config, source.exported.labels, multi_label=source.exported.multi_label)
    config.save_pretrained(str(folder))
    write_tokenizer(source.run.tokenizer, folder, source.exported.max_length)
