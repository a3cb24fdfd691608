"""Linear layers of an encoder by what they do, for the architectures that users of small encoders have.

A role is an ending of module names, as transformers names the modules of that architecture.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from peftlab.encoders.anatomy import unwrapped
from peftlab.errors import EncoderError

if TYPE_CHECKING:
    from torch import nn

    from peftlab.encoders.anatomy import Anatomy

_BERT: dict[str, str | tuple[str, ...]] = {
    "query": ("attention.self.query", "crossattention.self.query"),
    "key": ("attention.self.key", "crossattention.self.key"),
    "value": ("attention.self.value", "crossattention.self.value"),
    "attention_output": ("attention.output.dense", "crossattention.output.dense"),
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
}
# Of an encoder-decoder a role names the layers of both sides, in self-attention and in cross-attention.
_T5: dict[str, str | tuple[str, ...]] = {
    "query": "q",
    "key": "k",
    "value": "v",
    "attention_output": "o",
    "ffn_in": ("wi", "wi_0", "wi_1"),
    "ffn_out": "wo",
}
_BART: dict[str, str | tuple[str, ...]] = {
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "attention_output": "out_proj",
    "ffn_in": "fc1",
    "ffn_out": "fc2",
}
ROLES: dict[str, dict[str, str | tuple[str, ...]]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": _BERT,
    "camembert": _BERT,
    "ernie": _BERT,
    "t5": _T5,
    "mt5": _T5,
    "bart": _BART,
    "mbart": _BART,
    "marian": _BART,
    "m2m_100": _BART,
    "distilbert": {
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "attention_output": "attention.out_lin",
        "ffn_in": "ffn.lin1",
        "ffn_out": "ffn.lin2",
    },
    "albert": {
        "query": "attention.query",
        "key": "attention.key",
        "value": "attention.value",
        "attention_output": "attention.dense",
        "ffn_in": "ffn",
        "ffn_out": "ffn_output",
    },
}
GROUPS: dict[str, tuple[str, ...]] = {
    "attention": ("query", "key", "value", "attention_output"),
    "ffn": ("ffn_in", "ffn_out"),
    "all-linear": ("query", "key", "value", "attention_output", "ffn_in", "ffn_out"),
}
# The number of a layer stands behind the name of the list of layers; ALBERT shares one group between all its layers.
# T5 calls its layers blocks, and what stands in one its layers.
_LAYER = re.compile(r"\.(?:layer|layers|block)\.(\d+)\.")
_SHARED = re.compile(r"\.albert_layers\.\d+\.")


def word_table(anatomy: Anatomy) -> str:
    """Return the name of the table of word embeddings of an encoder.

    Raises EncoderError where there is none, and where a decoder is tied to it.
    """
    if anatomy.decoder is not None or anatomy.peft_task == "SEQ_2_SEQ_LM":
        raise EncoderError("method.embeddings: the embeddings are the decoder's output layer too; remove the key")
    names = [name for name in anatomy.embeddings if name.endswith("word_embeddings")]
    if len(names) != 1:
        found = ", ".join(anatomy.embeddings) or "none"
        raise EncoderError(f"method.embeddings: expected one table word_embeddings in the encoder, found {found}")
    return names[0]


def find_targets(
    model: nn.Module, anatomy: Anatomy, wanted: Sequence[str], layers: Sequence[int] | Literal["all"] = "all"
) -> tuple[str, ...]:
    """Return the full names of the linear modules of the encoder that `wanted` and `layers` choose, in model order.

    Those of a decoder belong to them; newly initialised ones do not, as they are trained whole. Each entry of `wanted`
    is a role or group of roles, the ending of a module name, or ``regex:`` and a pattern for the whole name. Raises
    EncoderError where an entry matches nothing, or a layer does not exist.
    """
    import torch

    linear = [
        name
        for name, module in _without_adapters(model)
        if isinstance(module, torch.nn.Linear)
        and anatomy.inside(name)
        and in_a_layer(name)
        and not anatomy.is_new(f"{name}.weight")
    ]
    chosen: set[str] = set()
    for entry in wanted:
        matched = _matches(entry, linear, anatomy.model_type)
        if not matched:
            raise EncoderError(_no_match(entry, linear, anatomy.model_type))
        chosen.update(matched)
    kept = _in_layers(layers, linear)
    found = tuple(name for name in linear if name in chosen and name in kept)
    if not found:
        raise EncoderError(f"method.target_modules {list(wanted)} match nothing in layers {layers}; name other layers")
    return found


def find_norms(model: nn.Module, anatomy: Anatomy, layers: Sequence[int] | Literal["all"] = "all") -> tuple[str, ...]:
    """Return the full names of the encoder's LayerNorm modules in `layers`, in model order.

    With "all" those outside the layers belong to them: the norm of the embeddings. Raises EncoderError where there are
    none, or a layer does not exist.
    """
    import torch

    norms = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.LayerNorm) and anatomy.inside(name) and not anatomy.is_new(f"{name}.weight")
    ]
    if not norms:
        raise EncoderError(f"this {anatomy.model_type} encoder has no LayerNorm modules; choose another method")
    return keep_layers(norms, layers)


def keep_layers(names: Sequence[str], layers: Sequence[int] | Literal["all"]) -> tuple[str, ...]:
    """Return those of the module or parameter `names` that stand in one of `layers`; "all" keeps every name.

    Raises EncoderError where a layer does not exist, or the layers share their weights.
    """
    kept = set(names) if layers == "all" else _in_layers(layers, [name for name in names if in_a_layer(name)])
    return tuple(name for name in names if name in kept)


def layer_stacks(model: nn.Module) -> list[nn.ModuleList]:
    """Return the lists of repeated layers within `model`, each of as many as its encoder has.

    Two for an encoder-decoder of equal sides, none where the layers are one shared layer (ALBERT).
    """
    from torch import nn

    depth = getattr(getattr(unwrapped(model), "config", None), "num_hidden_layers", 0)
    return [one for one in model.modules() if isinstance(one, nn.ModuleList) and len(one) == depth > 0]


def in_a_layer(name: str) -> bool:
    """Say whether the module of this name belongs to one of the encoder's repeated layers."""
    return _LAYER.search(name) is not None or "albert_layer" in name


def layer_and_module(name: str) -> tuple[int | None, str]:
    """Split the name of a module into the number of its layer, None where layers share it, and its name in there."""
    if match := _LAYER.search(name):
        return int(match.group(1)), name[match.end() :]
    return None, _SHARED.split(name)[-1]


def _matches(entry: str, linear: Sequence[str], model_type: str) -> set[str]:
    if entry.startswith("regex:"):
        try:
            pattern = re.compile(entry.removeprefix("regex:"))
        except re.error as error:
            raise EncoderError(f"method.target_modules: {entry!r} is not a regular expression: {error}") from error
        return {name for name in linear if pattern.fullmatch(name)}
    roles = ROLES.get(model_type, {})
    if entry == "all-linear":
        return set(linear)
    if entry in GROUPS or entry in roles:
        endings = [f".{ending}" for role in GROUPS.get(entry, (entry,)) for ending in _endings(roles, role)]
        matched = {name for name in linear for ending in endings if name.endswith(ending)}
        # `output.dense` alone also ends the attention's output; the feed-forward role must not take it.
        if "attention_output" in roles and "attention_output" not in GROUPS.get(entry, (entry,)):
            others = tuple(f".{ending}" for ending in _endings(roles, "attention_output"))
            matched -= {name for name in matched if name.endswith(others)}
        return matched
    return {name for name in linear if name == entry or name.endswith(f".{entry}")}


def _endings(roles: Mapping[str, str | tuple[str, ...]], role: str) -> tuple[str, ...]:
    """Return the endings of the modules of `role`; none where the architecture has no such role."""
    named = roles.get(role, ())
    return (named,) if isinstance(named, str) else named


def _in_layers(layers: Sequence[int] | Literal["all"], linear: Sequence[str]) -> set[str]:
    if layers == "all":
        return set(linear)
    places = {name: (name[: match.start()], int(match.group(1))) for name in linear if (match := _LAYER.search(name))}
    if len(places) < len(linear):
        raise EncoderError("method.layers: this architecture shares one set of weights between its layers; use 'all'")
    # The layers of an encoder and of a decoder are counted apart: -1 is the top one of either.
    depths: dict[str, int] = {}
    for stack, number in places.values():
        depths[stack] = max(depths.get(stack, 0), number + 1)
    depth = min(depths.values())
    wrong = [layer for layer in layers if not -depth <= layer < depth]
    if wrong or not layers:
        raise EncoderError(
            f"method.layers: the encoder has layers 0 to {depth - 1}; {wrong or 'an empty list'} is none of them"
        )
    return {name for name, (stack, number) in places.items() if number in {layer % depths[stack] for layer in layers}}


def _no_match(entry: str, linear: Sequence[str], model_type: str) -> str:
    roles = [*GROUPS, *ROLES.get(model_type, {})]
    endings = sorted({_LAYER.split(name)[-1] for name in linear})
    close = difflib.get_close_matches(entry, [*roles, *endings], n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return (
        f"method.target_modules: {entry!r} matches no linear layer of this {model_type} encoder; {hint}"
        f"roles: {', '.join(roles)}; module names end in: {', '.join(endings)}"
    )


def _without_adapters(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of `model` as they were loaded: a second adapter goes where the first one did."""
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name.startswith(inside):
            continue
        loaded = module
        while (wrapped := getattr(loaded, "base_layer", None)) is not None:
            loaded = wrapped
        if loaded is not module:
            inside = (*inside, f"{name}.")
        yield name, loaded
