"""Load an encoder with a classification head: what came from the checkpoint is known from what is new."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftlab.encoders.anatomy import Anatomy
from peftlab.encoders.quantised import check_quantising, quantising, settle
from peftlab.encoders.roles import in_a_layer
from peftlab.encoders.trainable import keep_in_fp32
from peftlab.errors import EncoderError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from peftlab.recipe.records import Encoder

Pooling = Literal["native", "mean", "cls"]
_FLAGS = ("is_loaded_in_8bit", "is_loaded_in_4bit")


@dataclass(frozen=True)
class HeadShape:
    """What the head must give: `labels` logits, with `dropout` before the last linear layer."""

    labels: int
    dropout: float


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder with a head, nothing frozen yet. `pooling` is what `auto` came to.

    `kept`: what the task needs, in JSON values, to load the same model once more.
    """

    model: nn.Module
    anatomy: Anatomy
    pooling: Pooling
    kept: Mapping[str, Any] = field(default_factory=dict)


def choose_pooling(encoder: Encoder, folder: Path) -> Pooling:
    """Return the recipe's pooling; for `auto` the one that a sentence-transformers folder states, else `native`."""
    if encoder.pooling != "auto":
        return encoder.pooling
    stated = folder / "1_Pooling" / "config.json"
    if not stated.is_file():
        return "native"
    modes = json.loads(stated.read_text(encoding="utf-8"))
    return "cls" if modes.get("pooling_mode_cls_token") else "mean"


def load_classifier(
    encoder: Encoder, folder: Path, head: HeadShape, *, device: torch.device | None = None
) -> LoadedEncoder:
    """Load the weights in `folder` under a head for `head.labels` labels, in evaluation mode.

    The head is drawn from torch's global generator: seed it first. `device` is needed for 8-bit and 4-bit weights only;
    other models are returned on the CPU. Raises EncoderError where the folder cannot be read as an encoder or the
    device cannot hold such weights, MissingPackage where bitsandbytes is absent.
    """
    pooling = choose_pooling(encoder, folder)
    if pooling != "native":
        return settled(encoder, folder, device, lambda: _pooled(encoder, folder, head, pooling, device))
    from transformers import AutoModelForSequenceClassification

    return load_native(encoder, folder, head, AutoModelForSequenceClassification, device=device)


def load_native(
    encoder: Encoder, folder: Path, head: HeadShape, architecture: Any, *, device: torch.device | None = None
) -> LoadedEncoder:
    """As `load_classifier`, under the head of one of transformers' `AutoModelFor...` classes."""
    return settled(encoder, folder, device, lambda: _native(encoder, folder, head, architecture, device))


def settled(
    encoder: Encoder, folder: Path, device: torch.device | None, load: Callable[[], LoadedEncoder]
) -> LoadedEncoder:
    """Return what `load` loads from `folder`, in evaluation mode, its new modules in fp32; raises EncoderError."""
    if encoder.load_in != "full":
        check_quantising(encoder.load_in, device.type if device is not None else "cpu")
    with sentences_for(folder), quiet_loading():
        loaded = load()
    # A reload makes these modules anew in the type that they have here: half precision would round what was trained.
    for name in loaded.anatomy.new_modules:
        keep_in_fp32(loaded.model.get_submodule(name))
    if encoder.load_in != "full":
        settle(loaded.model)
    loaded.model.eval()
    return loaded


def around(loaded: LoadedEncoder, encoder: Encoder, head: HeadShape, pooling: Pooling) -> LoadedEncoder:
    """Return a new model with a head of its own around the encoder that is in `loaded`: the same module, not a copy.

    The values of the new head are arbitrary: a trained part is to be loaded over them. `pooling` may be `mean` where
    `loaded` has `cls`, and the other way round. Raises EncoderError where one has the architecture's own head and the
    other has not: their encoders differ by a pooler.
    """
    from transformers import AutoModelForSequenceClassification

    from peftlab.encoders.pooled import PooledClassifier

    body: Any = loaded.model.get_submodule(loaded.anatomy.encoder)
    if (pooling == "native") != (loaded.pooling == "native"):
        raise EncoderError(
            f"encoder.pooling is {pooling!r} here and {loaded.pooling!r} there; 'native' shares an encoder only with "
            "'native', 'mean' and 'cls' with each other"
        )
    if pooling == "native":
        return native_around(loaded, encoder, head, AutoModelForSequenceClassification)
    model: Any = PooledClassifier(body, pooling, head.labels, head.dropout).to(next(body.parameters()).device)
    return LoadedEncoder(_like(loaded, model, loaded.anatomy.head), loaded.anatomy, pooling)


def native_around(loaded: LoadedEncoder, encoder: Encoder, head: HeadShape, architecture: Any) -> LoadedEncoder:
    """As `around`, under the head of one of transformers' `AutoModelFor...` classes.

    Raises EncoderError where its encoder has other parts than that in `loaded`, such as a pooler.
    """
    import torch

    body: Any = loaded.model.get_submodule(loaded.anatomy.encoder)
    config = _with_head(body.config.__class__.from_dict({**body.config.to_dict(), "num_labels": head.labels}), head)
    with torch.device("meta"):
        model = architecture.from_config(config, dtype=stored_dtype(encoder))
    prefix = model.base_model_prefix
    own, there = ({name for name, _ in part.named_modules()} for part in (model.get_submodule(prefix), body))
    if own != there:
        raise EncoderError(
            f"{type(model).__name__} needs an encoder with other parts than the one in memory "
            f"({', '.join(sorted(own ^ there)[:3])} in one only), so that it cannot share it"
        )
    setattr(model, prefix, body)
    outside = _outside(model, prefix)
    for name in outside:
        model.get_submodule(name).to_empty(device=next(body.parameters()).device)
    before = f"{loaded.anatomy.encoder}."
    inside = [f"{prefix}.{name.removeprefix(before)}" for name in loaded.anatomy.new_modules if name.startswith(before)]
    anatomy = Anatomy(
        model_type=loaded.anatomy.model_type,
        encoder=prefix,
        embeddings=tuple(f"{prefix}.{name.removeprefix(before)}" for name in loaded.anatomy.embeddings),
        head=outside,
        new_modules=(*outside, *inside),
    )
    return LoadedEncoder(_like(loaded, model, outside), anatomy, "native")


def _like(loaded: LoadedEncoder, model: Any, head: tuple[str, ...]) -> Any:
    """Return `model`, which has its encoder from `loaded`, ready for a trained part."""
    for name in head:
        keep_in_fp32(model.get_submodule(name))
    for flag in _FLAGS:
        setattr(model, flag, bool(getattr(loaded.model, flag, False)))
    return model.eval()


def _outside(model: Any, prefix: str) -> tuple[str, ...]:
    """Return the names of the parts of a transformers model beside its encoder `prefix` that have parameters."""
    return tuple(
        name for name, child in model.named_children() if name != prefix and any(True for _ in child.parameters())
    )


def load_tokenizer(folder: Path) -> Any:
    """Load the fast tokenizer in `folder`."""
    from transformers import AutoTokenizer

    with sentences_for(folder), quiet_loading():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token_id is None:
        raise EncoderError(f"the tokenizer in {folder} has no padding token; encoders for classification need one")
    return tokenizer


def _native(
    encoder: Encoder, folder: Path, head: HeadShape, architecture: Any, device: torch.device | None
) -> LoadedEncoder:
    from transformers import AutoConfig

    config = _with_head(AutoConfig.from_pretrained(folder, local_files_only=True, num_labels=head.labels), head)
    weights = _weights(encoder, device, lambda: architecture.from_config(config))
    model, info = architecture.from_pretrained(
        folder, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **weights
    )
    prefix = model.base_model_prefix
    # A checkpoint of another task may carry a head of the same name; it is not this task's, so it counts as new.
    return LoadedEncoder(model, anatomy_of(model, prefix, _outside(model, prefix), info), "native")


def _with_head(config: Any, head: HeadShape) -> Any:
    for name in ("classifier_dropout", "classifier_dropout_prob", "seq_classif_dropout"):
        if hasattr(config, name):
            setattr(config, name, head.dropout)
    return config


def _pooled(
    encoder: Encoder, folder: Path, head: HeadShape, pooling: Literal["mean", "cls"], device: torch.device | None
) -> LoadedEncoder:
    from transformers import AutoConfig, AutoModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    from peftlab.encoders.pooled import PooledClassifier

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    architecture: Any = MODEL_MAPPING[type(config)]
    # A pooler that nothing reads would be counted, and reported as newly initialised.
    spared = {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(architecture).parameters else {}
    weights = _weights(encoder, device, lambda: AutoModel.from_config(config, **spared))
    body, info = AutoModel.from_pretrained(folder, config=config, output_loading_info=True, **spared, **weights)
    model = PooledClassifier(body, pooling, head.labels, head.dropout)
    if device is not None:
        model.classifier.to(device)
    # peft asks the outermost module; unanswered it would take 8-bit weights for plain ones, and merge into bytes.
    for flag in _FLAGS:
        setattr(model, flag, bool(getattr(body, flag, False)))
    info = {**info, "missing_keys": {f"encoder.{key}" for key in info["missing_keys"]}}
    return LoadedEncoder(model, anatomy_of(model, "encoder", ("classifier",), info), pooling)


def _weights(encoder: Encoder, device: torch.device | None, make: Callable[[], nn.Module]) -> dict[str, Any]:
    """Return how to load the weights; `make` builds the same architecture without them."""
    options: dict[str, Any] = {"dtype": stored_dtype(encoder), "local_files_only": True}
    if encoder.load_in != "full":
        options["quantization_config"] = quantising(encoder.load_in, options["dtype"], _unquantised(make))
        options["device_map"] = {"": str(device or "cpu")}
    return options


def stored_dtype(encoder: Encoder) -> torch.dtype:
    """Return the type in which frozen weights are stored."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[encoder.stored_as]


def _unquantised(make: Callable[[], nn.Module]) -> list[str]:
    """Return the names of linear layers outside the encoder's own layers: head, pooler, projections.

    They are trained or feed a trained layer; quantised they could not be (peft issue 1222). transformers compares names
    from their start, so that `pooler` would not spare `bert.pooler.dense`.
    """
    import torch

    with torch.device("meta"):
        model = make()
    return [
        name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and not in_a_layer(name)
    ]


def anatomy_of(model: Any, prefix: str, outside: tuple[str, ...], info: dict[str, Any]) -> Anatomy:
    """Return the names of the parts of `model`; `info` is what transformers says of the weights that it loaded."""
    import torch

    inside = {key.rpartition(".")[0] for key in info["missing_keys"] if key.startswith(f"{prefix}.")}
    embeddings = [
        name
        for name, module in model.named_modules()
        if name.startswith(f"{prefix}.") and isinstance(module, torch.nn.Embedding)
    ]
    return Anatomy(
        model_type=model.config.model_type,
        encoder=prefix,
        embeddings=tuple(embeddings),
        head=outside,
        new_modules=(*outside, *sorted(inside)),
    )


@contextmanager
def sentences_for(folder: Path) -> Iterator[None]:
    """Turn what transformers raises over the files in `folder` into one EncoderError."""
    import pickle

    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EncoderError(f"{folder} cannot be loaded as an encoder: {first}") from error


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep transformers from printing its table of missing weights and its bars: peftlab says what is new itself."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
