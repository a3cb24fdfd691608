"""A plain folder with all weights, the adapter merged into them: transformers loads it, peftlab is not needed.

With a pooled head it is a folder of sentence-transformers, whose last layer gives the logits; of a run without labels
one that gives its embeddings, of length 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftlab.evaluation.export_source import Source, Written
from peftlab.evaluation.forward import Forward, as_forward
from peftlab.runs.certificate import Dtype, Exported

if TYPE_CHECKING:
    from torch import nn

PACKAGES: tuple[str, ...] = ()
EXTRA: str | None = None
DTYPES: tuple[Dtype, ...] = ("fp32", "bf16", "fp16")
TAKES: Literal["mergeable"] = "mergeable"
MAX_DRIFT = 1e-5


def write(source: Source, folder: Path) -> Written:
    """Write model and tokenizer; CannotMerge where the adapter is no change of weights."""
    import torch

    from peftlab.encoders.merging import merge
    from peftlab.encoders.plain_folder import name_labels, write_embedder, write_native, write_pooled, write_tokenizer
    from peftlab.encoders.token_head import without_crf
    from peftlab.evaluation.run_model import full_precision

    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    model: Any = merge(without_crf(full_precision(source.folder, source.run))).to(types[source.dtype])
    if source.exported.labels and not source.exported.each_token:
        name_labels(model.config, source.exported.labels, multi_label=source.exported.multi_label)
    pooled = source.exported.encoder.pooling != "native"
    if not source.exported.labels:
        write_embedder(model, folder, source.exported.max_length)
    elif pooled:
        write_pooled(model, folder, source.exported.max_length)
    else:
        write_native(model, folder)
    write_tokenizer(source.run.tokenizer, folder, source.exported.max_length)
    kind = source.run.encoder.load_in
    note = (
        f"Merged into the weights as they are read back from {kind}, which the adapter was trained against, not into "
        "the encoder's own."
    )
    return Written(
        merged=hasattr(source.run.module, "peft_config"),
        loads_with=("sentence-transformers",) if pooled else ("transformers",),
        notes=(note,) if kind != "full" else (),
    )


def load(folder: Path, exported: Exported) -> Forward:
    """Load the folder, in the types that it is stored in."""
    import torch

    from peftlab.encoders.plain_folder import read_embedder, read_native, read_pooled

    pooling = exported.encoder.pooling
    model: nn.Module
    if pooling == "native":
        model = read_native(folder, each_token=exported.each_token)
    else:
        labels = len(exported.labels)
        model = read_pooled(folder, pooling, labels) if labels else read_embedder(folder, pooling)
    return as_forward(model, torch.device("cpu"))


def usage(exported: Exported) -> str:
    """Return Python that gives `logits` of `texts`, `folder` being the export."""
    from peftlab.evaluation.export_usage import inputs_code, tags_code

    if not exported.labels:
        return (
            "from sentence_transformers import SentenceTransformer\n\n"
            'embeddings = SentenceTransformer(folder, device="cpu").encode(texts)  # of length 1, so that the '
            "similarity\nscores = embeddings @ embeddings.T  # of two texts is their product"
        )
    if exported.encoder.pooling != "native":
        return (
            "from sentence_transformers import SentenceTransformer\n\n"
            'logits = SentenceTransformer(folder, device="cpu").encode(texts)  # one logit a label, not an embedding'
        )
    head = "Token" if exported.each_token else "Sequence"
    last = "" if exported.each_token else "\nlabels = [model.config.id2label[int(row.argmax())] for row in logits]"
    return f"""import torch
from transformers import AutoModelFor{head}Classification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelFor{head}Classification.from_pretrained(folder).eval()
{inputs_code(exported, "pt")}
with torch.inference_mode():
    logits = model(**inputs).logits.float().numpy(){last}{tags_code(exported)}"""
