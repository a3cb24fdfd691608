"""The frozen prefix: the embeddings and layers below the lowest trained one, run without dropout, once for each text.

A run with `train.frozen_prefix = "eval"` runs them in evaluation mode in every step; with "cache" their output is kept
on disk (`peftlab/encoders/prefix_store.py`) and each text passes them once, whatever the epochs, seeds and rates. Both
train the same model to the same bits on a CPU in fp32: rows are padded to a multiple of 16 tokens below, with which the
sums of a row came out the same in whatever company it was computed. Without dropout in these layers the layers above
see the same states of a text in every epoch: less noise than training otherwise has.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftlab.encoders.anatomy import unwrapped
from peftlab.encoders.prefix_store import PrefixStore, cache_root
from peftlab.encoders.roles import layer_and_module, layer_stacks
from peftlab.encoders.trainable import trained_parameters
from peftlab.errors import EncoderError, UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from peftlab.encoders.anatomy import Anatomy
    from peftlab.training.prepare import Found, Model

WIDTH = 16
"""Below the trained layers a batch is as wide as a multiple of this."""


@dataclass
class _Prefix:
    """The frozen modules of one model, and the `states` of its current batch; `store` is None where nothing is kept."""

    body: Any
    entry: tuple[nn.Module, ...]
    layers: tuple[nn.Module, ...]
    depth: int
    store: PrefixStore | None
    computing: bool = False
    states: Tensor | None = None
    plain: dict[int, Callable[..., Any]] = field(default_factory=dict)


@contextmanager
def frozen_prefix(found: Found, model: Model, device: torch.device, say: Callable[[str], None]) -> Iterator[None]:
    """While this lasts, the frozen prefix of `model` does what `train.frozen_prefix` of the recipe says.

    Raises UserError where there is none: the lowest layer, the embeddings or virtual tokens are trained.
    """
    wanted = found.recipe.train.frozen_prefix
    if wanted == "dropout":
        yield
        return
    prefix = _find(model.module, model.anatomy)
    if wanted == "cache" and found.recipe.encoder is not None and found.files is not None:
        about = _about(found, prefix, device)
        prefix.store = PrefixStore(cache_root(), about, int(found.recipe.train.cache_gb * 1e9), say)
    with _through(model.module, prefix):
        try:
            yield
        finally:
            if prefix.store is not None:
                prefix.store.write()
    if prefix.store is not None:
        say(
            f"frozen-prefix cache: {prefix.depth} layers were computed for {prefix.store.missed:,} texts and read "
            f"{prefix.store.found:,} times, in {prefix.store.folder}"
        )


def prefix_depth(model: nn.Module, anatomy: Anatomy) -> int:
    """Return how many layers at the bottom of the encoder are frozen, 0 where anything below them is trained."""
    wrapped: Any = model
    config = getattr(wrapped, "active_peft_config", None)
    if config is not None and config.is_prompt_learning:
        return 0
    lowest = int(wrapped.config.num_hidden_layers)
    for name in trained_parameters(model):
        bare = name.removeprefix("base_model.model.").removeprefix("base_model.")
        if not bare.startswith(f"{anatomy.encoder}.") or bare.startswith(f"{anatomy.encoder}.pooler."):
            continue
        number, _ = layer_and_module(name)
        if number is None:
            return 0
        lowest = min(lowest, number)
    return lowest if layer_stacks(model) else 0


def _find(model: nn.Module, anatomy: Anatomy) -> _Prefix:
    depth = prefix_depth(model, anatomy)
    if depth == 0:
        raise UserError(
            'train.frozen_prefix: "eval" and "cache" need frozen layers at the bottom of the encoder, and this method '
            'trains the lowest one or its input; train top layers only (method.layers = [-1, -2]), or write "dropout"'
        )
    body: Any = unwrapped(model).get_submodule(anatomy.encoder)
    layers = layer_stacks(body)[0]
    entry = tuple(
        module for name in ("embeddings", "embeddings_project") if (module := getattr(body, name, None)) is not None
    )
    if not entry or any("forward" in vars(module) for module in (*entry, *layers)):
        raise EncoderError(
            f"train.frozen_prefix: this {anatomy.model_type} encoder is quantised, or where it takes its states is not "
            'known; write "dropout"'
        )
    return _Prefix(body, entry, tuple(layers), depth, None)


@contextmanager
def _through(model: nn.Module, prefix: _Prefix) -> Iterator[None]:
    """Let `model` take the states of every batch from `prefix`."""
    modules = (*prefix.entry, *prefix.layers)
    for place, module in enumerate(modules):
        prefix.plain[id(module)] = module.forward
        inside = place < len(prefix.entry) + prefix.depth
        module.forward = partial(_step, prefix, module, place == 0, inside)
    hook = model.register_forward_pre_hook(partial(_prepare, prefix), with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
        for module in modules:
            del module.forward


def _step(prefix: _Prefix, module: nn.Module, first: bool, inside: bool, *args: Any, **options: Any) -> Any:
    """Run a module of the encoder where its turn has come, hand on what it was given where not."""
    if inside == prefix.computing:
        return prefix.plain[id(module)](*args, **options)
    if first:
        return prefix.states
    return args[0] if args else options["hidden_states"]


def _prepare(prefix: _Prefix, model: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:  # noqa: ARG001
    """Set the states of a batch, before the model runs on it."""
    if args or not bool(inputs["attention_mask"][:, 0].all()):
        raise EncoderError(
            "train.frozen_prefix: this encoder's tokenizer pads on the left, so that a text's states depend on its "
            'batch; write "dropout"'
        )
    prefix.states = _states(prefix, {name: inputs[name] for name in _INPUTS if inputs.get(name) is not None})


_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def _states(prefix: _Prefix, inputs: dict[str, Tensor]) -> Tensor:
    """Return what layer `depth` reads, [rows, tokens, hidden size], 0 where the batch is padded."""
    if prefix.store is None:
        return _compute(prefix, inputs)
    lengths = inputs["attention_mask"].sum(1).tolist()
    digests = _digests(inputs, lengths)
    kept = {digest: prefix.store.find(digest) for digest in dict.fromkeys(digests)}
    missing = [digests.index(digest) for digest, states in kept.items() if states is None]
    if missing:
        computed = _compute(prefix, {name: tensor[missing] for name, tensor in inputs.items()})
        for states, row in zip(computed, missing, strict=True):
            array = _array(states[: lengths[row]])
            prefix.store.add(digests[row], array)
            kept[digests[row]] = array
    found = [_tensor(states, prefix.body.dtype) for digest in digests if (states := kept[digest]) is not None]
    width = inputs["input_ids"].shape[1]
    result = found[0].new_zeros(len(found), width, found[0].shape[1])
    for row, states in enumerate(found):
        result[row, : len(states)] = states
    return result.to(inputs["input_ids"].device)


def _compute(prefix: _Prefix, inputs: dict[str, Tensor]) -> Tensor:
    """Run the frozen modules in evaluation mode and the weights' own types; 0 where the batch is padded."""
    import torch

    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    width = _wide(prefix.body.config, ids.shape[1])
    more = width - ids.shape[1]
    fill = {"input_ids": prefix.body.config.pad_token_id or 0, "attention_mask": 0, "token_type_ids": 0}
    wide = {name: torch.nn.functional.pad(tensor, (0, more), value=fill[name]) for name, tensor in inputs.items()}
    modes = [(module, module.training) for module in (*prefix.entry, *prefix.layers[: prefix.depth])]
    for module, _ in modes:
        module.eval()
    prefix.computing = True
    try:
        with torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
            states = prefix.body(**wide).last_hidden_state
    finally:
        prefix.computing = False
        for module, training in modes:
            module.train(training)
    found: Tensor = states[:, : ids.shape[1]] * mask.unsqueeze(-1)
    return found


def _wide(config: Any, tokens: int) -> int:
    """Return `tokens` rounded up to a multiple of WIDTH, within the positions that the encoder has."""
    # RoBERTa and its kin number positions from the padding index + 1.
    offset = (config.pad_token_id or 0) + 1 if "roberta" in config.model_type or config.model_type == "camembert" else 0
    wide = -(-tokens // WIDTH) * WIDTH
    return wide if wide <= config.max_position_embeddings - offset else tokens


def _digests(inputs: dict[str, Tensor], lengths: list[int]) -> list[bytes]:
    """Return for each row a digest of its token ids and segments, without padding."""
    arrays: list[NDArray[np.int64]] = [
        inputs[name].cpu().numpy() for name in ("input_ids", "token_type_ids") if name in inputs
    ]
    return [
        hashlib.blake2b(b"|".join(array[row, :length].tobytes() for array in arrays), digest_size=16).digest()
        for row, length in enumerate(lengths)
    ]


def _array(states: Tensor) -> NDArray[Any]:
    """Return `states` as an array of its own; half precision as the integers of its bits."""
    import torch

    own = states.detach().cpu().clone()
    array: NDArray[Any] = (own if own.dtype == torch.float32 else own.view(torch.int16)).numpy()
    return array


def _tensor(array: NDArray[Any], dtype: torch.dtype) -> Tensor:
    import torch

    return torch.from_numpy(np.array(array)).view(dtype)


def _about(found: Found, prefix: _Prefix, device: torch.device) -> dict[str, Any]:
    """Return everything on which the states of a text depend, but for its tokens."""
    import torch

    encoder, files = found.recipe.encoder, found.files
    if encoder is None or files is None:
        raise UserError("this run has no encoder")
    return {
        "encoder": files.used,
        "sha256": files.sha256,
        "layers": prefix.depth,
        "dtype": str(prefix.body.dtype).removeprefix("torch."),
        "load_in": encoder.load_in,
        "device": device.type,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
        "format": 1,
    }
