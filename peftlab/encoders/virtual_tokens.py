"""Virtual tokens of peft in front of a text: only the text is pooled, and the encoder must have positions for both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftlab.encoders.anatomy import unwrapped
from peftlab.errors import EncoderError

if TYPE_CHECKING:
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy

# These number their positions from behind the padding index, so that many rows of the table are never used.
_POSITIONS_AFTER_PADDING = frozenset({"roberta", "xlm-roberta", "camembert"})


def refuse_native_head(model: nn.Module, method: str, anatomy: Anatomy) -> None:
    """Raise EncoderError where `model` has its architecture's own head: it reads the first position.

    With `method` a virtual token stands there instead of the text's first token, which peft does not put right.
    """
    from peftlab.encoders.pooled import Pooled

    if not isinstance(model, Pooled):
        raise EncoderError(
            f"{method} puts virtual tokens in front of the text, where {anatomy.model_type}'s own head reads; "
            f'write encoder.pooling = "mean" or "cls"'
        )


def virtual_tokens(model: nn.Module) -> int:
    """Return how many virtual tokens peft puts in front of a text, or of its keys and values; 0 for other methods."""
    from peft import PeftModel

    if not isinstance(model, PeftModel) or not model.active_peft_config.is_prompt_learning:
        return 0
    return int(model.active_peft_config.num_virtual_tokens)


def check_room(model: nn.Module, text_tokens: int) -> None:
    """Raise EncoderError where the encoder has too few positions for virtual tokens and `text_tokens` of text."""
    virtual, config = virtual_tokens(model), _config(model)
    if not virtual:
        return
    positions = config.max_position_embeddings
    if config.model_type in _POSITIONS_AFTER_PADDING:
        positions -= config.pad_token_id + 1
    if virtual + text_tokens > positions:
        raise EncoderError(
            f"{virtual} virtual tokens and {text_tokens} tokens of text do not fit into the {positions} positions of "
            f"the encoder; set encoder.max_length to {max(positions - virtual, 0)} or less, or use fewer virtual tokens"
        )


def read_text_only(model: nn.Module) -> nn.Module:
    """Make the peft `model` check its room and pool the text alone, whatever adapter is active; returns `model`."""
    from peft import PeftModel

    if isinstance(model, PeftModel):
        model.register_forward_pre_hook(_with_text_length, with_kwargs=True)
    return model


def _with_text_length(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    from peftlab.encoders.pooled import Pooled, PooledEmbedder

    if not virtual_tokens(model):
        return args, kwargs
    text_tokens = (args[0] if args else kwargs["input_ids"]).shape[1]
    check_room(model, text_tokens)
    base = model.get_base_model()
    if isinstance(base, PooledEmbedder):
        # peft leaves them out here, and warns; an embedded text is one segment, which encoders take for granted.
        kwargs = {name: value for name, value in kwargs.items() if name != "token_type_ids"}
    if isinstance(base, Pooled):
        kwargs = {**kwargs, "text_tokens": text_tokens}
    return args, kwargs


def _config(model: Any) -> Any:
    return unwrapped(model).config
