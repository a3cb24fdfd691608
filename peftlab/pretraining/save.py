"""Save a pretrained encoder as a plain transformers folder, load it back in fresh objects, and compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.encoders.load import quiet_loading
from peftlab.encoders.masked import restore_dropout, set_dropout
from peftlab.encoders.merging import merge
from peftlab.errors import RoundTripError
from peftlab.pretraining.prepare import Prepared
from peftlab.runs.files import whole_folder, write_json, write_text

if TYPE_CHECKING:
    from torch import nn

_ROWS = 8


def plain_model(module: nn.Module) -> Any:
    """Return the transformers model inside `module`, with what peft added merged into its weights."""
    merged: Any = merge(module)
    return merged.model


def save_encoder(model: Any, prepared: Prepared, folder: Path, card: str) -> None:
    """Write encoder, language-model head, tokenizer, pooling and card to `folder`, whole or not at all, and prove it.

    Raises RoundTripError where the folder does not load to the same hidden states.
    """
    import torch

    recipe = prepared.recipe
    if prepared.files is None:
        set_dropout(model.config, recipe.architecture.dropout)
    else:
        restore_dropout(model.config, prepared.files.folder)  # it was set to that of pretraining
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[recipe.save.dtype]
    model = model.to("cpu").to(dtype).eval()
    with whole_folder(folder) as target, quiet_loading():
        model.save_pretrained(target, safe_serialization=True)
        prepared.tokenizer.save_pretrained(target)
        if recipe.save.pooling != "native":
            _write_pooling(target, recipe.save.pooling, model.config.hidden_size)
        write_text(target / "README.md", card)
        _prove(model, prepared, target)


def _write_pooling(folder: Path, pooling: str, width: int) -> None:
    """State the pooling as sentence-transformers does, where `encoder.pooling = "auto"` finds it."""
    modes = {"pooling_mode_cls_token": pooling == "cls", "pooling_mode_mean_tokens": pooling == "mean"}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **modes})


def _prove(model: Any, prepared: Prepared, folder: Path) -> None:
    import torch
    from transformers import AutoModel

    fresh = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    body = getattr(model, model.base_model_prefix)
    model.float()  # the rounded values, computed with as the fresh model computes
    ids = torch.from_numpy(prepared.packed.held_out[0][:_ROWS].astype("int64"))
    with torch.inference_mode():
        before, after = body(input_ids=ids).last_hidden_state, fresh(input_ids=ids).last_hidden_state
    difference = float((before - after).abs().max())
    if not difference <= 1e-5:
        raise RoundTripError(
            f"the encoder saved in {folder} does not reload to the same hidden states: the largest difference is "
            f"{difference:.3g}; please report it with its recipe.toml"
        )
