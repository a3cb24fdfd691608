"""A classifier or embedder as a folder that transformers or sentence-transformers loads by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftlab.runs.files import write_json

if TYPE_CHECKING:
    import torch
    from torch import nn

_DENSE, _NORMALIZE = "2_Dense", "2_Normalize"


def name_labels(config: Any, labels: Sequence[str], *, multi_label: bool) -> None:
    """Write the labels into a transformers configuration, in the order of the logits."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = "multi_label_classification" if multi_label else "single_label_classification"


def write_tokenizer(tokenizer: Any, folder: Path, max_length: int) -> None:
    """Write the tokenizer, told to cut texts where the run did."""
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(str(folder))


def write_native(model: Any, folder: Path) -> None:
    """Write a model of one of transformers' own classes."""
    model.config.architectures = [type(model).__name__]
    with _without_bars():
        model.save_pretrained(str(folder), safe_serialization=True)


def read_native(folder: Path, *, each_token: bool = False) -> nn.Module:
    """Load what `write_native` wrote, in its own types; `each_token`: with a head on every token."""
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    architecture = AutoModelForTokenClassification if each_token else AutoModelForSequenceClassification
    with _without_bars():
        model: nn.Module = architecture.from_pretrained(folder, local_files_only=True, dtype="auto")
    return model.eval()


def write_pooled(model: Any, folder: Path, max_length: int) -> None:
    """Write a `PooledClassifier` as encoder, pooling and a dense layer without activation, which gives the logits."""
    from safetensors.torch import save_file

    _write_sentence_transformer(model, folder, max_length, {_DENSE: "Dense"})
    labels = model.classifier.out_features
    dense = {
        "in_features": model.classifier.in_features,
        "out_features": labels,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    write_json(folder / _DENSE / "config.json", dense)
    tensors = {f"linear.{name}": value.detach().contiguous() for name, value in model.classifier.state_dict().items()}
    save_file(tensors, folder / _DENSE / "model.safetensors", metadata={"format": "pt"})


def write_embedder(model: Any, folder: Path, max_length: int) -> None:
    """Write a `PooledEmbedder` as encoder, pooling and division by the Euclidean norm."""
    _write_sentence_transformer(model, folder, max_length, {_NORMALIZE: "Normalize"})


def _write_sentence_transformer(model: Any, folder: Path, max_length: int, behind: Mapping[str, str]) -> None:
    """Write encoder and pooling of `model`, and the list of modules, with those of `behind`: type by folder."""
    with _without_bars():
        model.encoder.save_pretrained(str(folder), safe_serialization=True)
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate({"": "Transformer", "1_Pooling": "Pooling", **behind}.items())
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    pooling = {
        "word_embedding_dimension": model.config.hidden_size,
        "pooling_mode_cls_token": model.pooling == "cls",
        "pooling_mode_mean_tokens": model.pooling == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    write_json(folder / "1_Pooling" / "config.json", pooling)


def read_pooled(folder: Path, pooling: Literal["mean", "cls"], labels: int) -> nn.Module:
    """Load what `write_pooled` wrote, in its own types."""
    from safetensors.torch import load_file

    from peftlab.encoders.pooled import PooledClassifier

    model = PooledClassifier(_read_encoder(folder), pooling, labels, 0.0)
    tensors: dict[str, torch.Tensor] = load_file(folder / _DENSE / "model.safetensors")
    model.classifier.to(tensors["linear.weight"].dtype)
    model.classifier.load_state_dict({name.removeprefix("linear."): value for name, value in tensors.items()})
    return model.eval()


def read_embedder(folder: Path, pooling: Literal["mean", "cls"]) -> nn.Module:
    """Load what `write_embedder` wrote, in its own types."""
    from peftlab.encoders.pooled import PooledEmbedder

    return PooledEmbedder(_read_encoder(folder), pooling).eval()


def _read_encoder(folder: Path) -> Any:
    import inspect

    from transformers import AutoConfig, AutoModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    architecture: Any = MODEL_MAPPING[type(AutoConfig.from_pretrained(folder, local_files_only=True))]
    spared = {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(architecture).parameters else {}
    with _without_bars():
        return AutoModel.from_pretrained(folder, local_files_only=True, dtype="auto", **spared)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep transformers from drawing a bar over the files of one folder on this machine."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
