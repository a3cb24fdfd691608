"""The last layer of an encoder for the first token alone, where a classifier reads no other.

Heads on [CLS] (Devlin et al. 2019, section 3.2) read one state of the last layer, which depends on the keys and values
of all tokens and on nothing else of the others: their queries, attention outputs and feed-forward layers are left out
of training steps. Of a layer's products with its weights 2 in 12 remain for the other tokens. The logits and gradients
are those of the whole layer but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from peftlab.encoders.anatomy import unwrapped
from peftlab.encoders.roles import layer_stacks

if TYPE_CHECKING:
    from torch import Tensor, nn

_LIKE_BERT = ("bert", "camembert", "electra", "ernie", "roberta", "xlm-roberta")
_Forward = Callable[..., Any]


@contextmanager
def first_token_only(model: nn.Module) -> Iterator[None]:
    """While this lasts, training steps of `model` run its last layer for the first token alone, where that suffices.

    Nothing changes in evaluation mode, under a head that reads other tokens, with virtual tokens, and in encoders that
    are built unlike BERT or DistilBERT. No module is replaced.
    """
    found = _last_layer(model) if _reads_first_token(model) else None
    if found is None:
        yield
        return
    module, forward = found
    module.forward = forward(module, module.forward)
    try:
        yield
    finally:
        del module.forward


def _reads_first_token(model: Any) -> bool:
    from peftlab.encoders.pooled import Pooled

    config = getattr(model, "active_peft_config", None)
    if config is not None and config.is_prompt_learning:
        return False
    base = unwrapped(model)
    if isinstance(base, Pooled):
        return base.pooling == "cls"
    return type(base).__name__.endswith("ForSequenceClassification")


def _last_layer(model: Any) -> tuple[Any, Callable[[Any, _Forward], _Forward]] | None:
    """Return the module of the last layer to change, and what makes its new forward; None where it is not known."""
    config: Any = getattr(unwrapped(model), "config", None)
    kind, stacks = getattr(config, "model_type", None), layer_stacks(model)
    if len(stacks) != 1 or getattr(config, "is_decoder", False):
        return None
    last: Any = stacks[0][-1]
    if kind == "distilbert":
        return None if "forward" in vars(last) else (last, _like_distilbert)
    if kind in _LIKE_BERT and type(last.attention.self).__name__.endswith("SelfAttention"):
        return None if "forward" in vars(last.attention) else (last.attention, _like_bert)
    return None


def _like_bert(attention: Any, plain: _Forward) -> _Forward:
    """Return the forward of BERT's attention with its output layer; the feed-forward layer behind it follows suit."""
    own = attention.self

    def forward(hidden_states: Tensor, attention_mask: Tensor | None = None, *args: Any, **options: Any) -> Any:
        others = [*args, *(options.get(name) for name in _OF_DECODERS)]
        if not _applies(attention, hidden_states, attention_mask) or any(one is not None for one in others):
            return plain(hidden_states, attention_mask, *args, **options)
        options = {name: option for name, option in options.items() if name not in _OF_DECODERS}
        first = hidden_states[:, :1]
        mixed = _mixed(own, (own.query, own.key, own.value), hidden_states, attention_mask, options)
        return attention.output(mixed, first), None

    return forward


def _like_distilbert(layer: Any, plain: _Forward) -> _Forward:
    """Return the forward of a whole layer of DistilBERT."""
    own = layer.attention

    def forward(hidden_states: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Any:
        if not _applies(layer, hidden_states, attention_mask):
            return plain(hidden_states, attention_mask, **options)
        first = hidden_states[:, :1]
        mixed = _mixed(own, (own.q_lin, own.k_lin, own.v_lin), hidden_states, attention_mask, options)
        attended = layer.sa_layer_norm(own.out_lin(mixed) + first)
        return layer.output_layer_norm(layer.ffn(attended) + attended)

    return forward


_OF_DECODERS = ("encoder_hidden_states", "encoder_attention_mask", "past_key_values")


def _applies(module: Any, hidden: Tensor, mask: Tensor | None) -> bool:
    return bool(module.training and hidden.dim() == 3 and (mask is None or mask.dim() == 4))


def _mixed(own: Any, layers: tuple[Any, Any, Any], hidden: Tensor, mask: Tensor | None, options: Any) -> Tensor:
    """Return what the first token's query takes from all values, [batch, 1, heads * width]."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.models.bert.modeling_bert import eager_attention_forward

    query, key, value = layers
    # Keys and values first: they read the same states, which are then converted to half precision once.
    read = (key(hidden), value(hidden), query(hidden[:, :1]))
    keys, values, first = (one.unflatten(-1, (-1, own.attention_head_size)).transpose(1, 2) for one in read)
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(own.config._attn_implementation, eager_attention_forward)
    rows = mask if mask is None or mask.shape[-2] == 1 else mask[:, :, :1]
    dropout = own.dropout.p if own.training else 0.0
    output, _ = attend(own, first, keys, values, rows, dropout=dropout, scaling=own.scaling, **options)
    mixed: Tensor = output.flatten(2)
    return mixed
