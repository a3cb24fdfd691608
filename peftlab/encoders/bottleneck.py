"""Bottleneck adapters as a method of HF peft, which has none.

`BottleneckConfig` is used as any other `peft.PeftConfig`: `get_peft_model`, several adapters, `set_adapter`,
`disable_adapter`, `modules_to_save`, `save_pretrained`. To load a saved adapter with plain peft, register the method
first::

    from peft import PeftModel
    from peftlab.encoders.bottleneck import register_bottleneck

    register_bottleneck()
    model = PeftModel.from_pretrained(encoder, "runs/.../trained")

Where an adapter sits and what it computes: `peftlab/methods/bottleneck.py`.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from peft import PeftConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import register_peft_method
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from peftlab.encoders.anatomy import Anatomy
from peftlab.encoders.peft_type import add_member
from peftlab.encoders.roles import ROLES, find_targets, in_a_layer
from peftlab.errors import EncoderError

NAME = "BOTTLENECK"
PLACEMENTS = {"houlsby": ("attention_output", "ffn_out"), "pfeiffer": ("ffn_out",), "parallel": ("ffn_out",)}
"""The linear layers, by role, whose output each placement adds to."""
NON_LINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "swish": functional.silu,
}
_SECOND_GATE = ".wi_1"
_BASE = "__base__"  # peft's own word for rows of a batch that no adapter changes


def register_bottleneck() -> Any:
    """Make peft know the method, once a process, and return its `PeftType`."""
    kind = add_member(PeftType, NAME)
    if kind not in PEFT_TYPE_TO_TUNER_MAPPING:
        register_peft_method(name=NAME.lower(), config_cls=BottleneckConfig, model_cls=BottleneckTuner)
    return kind


@dataclass
class BottleneckConfig(PeftConfig):
    """Settings of one adapter, as `adapter_config.json` keeps them.

    `target_modules` and `feed_forward_inputs` are found from `placement` and `layers` where they are not given: the
    linear layers whose output is added to, and for each of them, in the parallel placement, the linear layer whose
    input is read. `scaling` is a number or `learned`. Raises ValueError for a word or size that means nothing.
    """

    size: int = 16
    placement: Literal["houlsby", "pfeiffer", "parallel"] = "pfeiffer"
    layers: list[int] | Literal["all"] = "all"
    non_linearity: str = "relu"
    scaling: float | Literal["learned"] = 1.0
    dropout: float = 0.0
    bias_terms: bool = True
    init: Literal["zero", "small"] = "zero"
    target_modules: list[str] | str | None = None
    feed_forward_inputs: dict[str, str] = field(default_factory=dict)
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.peft_type = register_bottleneck()
        for key, known in (("placement", PLACEMENTS), ("non_linearity", NON_LINEARITIES), ("init", ("zero", "small"))):
            if getattr(self, key) not in known:
                raise ValueError(f"{key}: expected one of {', '.join(known)}, found {getattr(self, key)!r}")
        if self.size < 1:
            raise ValueError(f"size: expected at least 1, found {self.size}")


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A linear layer, and the adapters that add to its output; `add` says which.

    A parallel adapter reads what the feed-forward network reads. That network is several modules, so a hook on its
    first linear layer notes the input and this layer, its last, takes the note. The note is a weak reference of the
    thread that runs the network: it keeps no tensor alive, also when the network fails halfway, and two threads that
    share the model do not read each other's.
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up", "bottleneck_scale")
    other_param_names = ("settings",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self.bottleneck_scale = nn.ParameterDict()
        self.settings: dict[str, BottleneckConfig] = {}
        self._noted: weakref.WeakValueDictionary[int, Tensor] = weakref.WeakValueDictionary()
        self._hook: RemovableHandle | None = None
        self.merged_adapters: list[str] = []

    def add(self, name: str, settings: BottleneckConfig, feed_forward: nn.Module | None) -> None:
        """Add the adapter `name`; `feed_forward` is the first linear layer of the network, for a parallel adapter."""
        width: Any = self.get_base_layer().out_features
        down = nn.Linear(width, settings.size, bias=settings.bias_terms)
        up = nn.Linear(settings.size, width, bias=settings.bias_terms)
        _initialise(down, up, settings.init)
        self.bottleneck_down[name], self.bottleneck_up[name] = down, up
        if settings.scaling == "learned":
            self.bottleneck_scale[name] = nn.Parameter(torch.ones(1))
        for part in (self.bottleneck_down, self.bottleneck_up, self.bottleneck_scale):
            if not any(parameter.is_meta for parameter in part.parameters()):  # peft fills those in when loading
                part.to(self.weight.device)
        self.settings[name] = settings
        if feed_forward is not None and self._hook is None:
            self._hook = feed_forward.register_forward_pre_hook(self._note)
        self.set_adapter(self.active_adapters, inference_mode=settings.inference_mode)

    def forward(self, x: Tensor, *args: Any, adapter_names: Sequence[str] | None = None, **options: Any) -> Tensor:
        """Return [batch, tokens, hidden size]; `adapter_names`, where given, names the adapter of each row.

        Several active adapters act one after the other, in the order in which they were set.
        """
        read = self._noted.pop(threading.get_ident(), None)
        output: Tensor = self.base_layer(x, *args, **options)
        if self.disable_adapters:
            return output
        if adapter_names is None:
            for name in self.active_adapters:
                output = self._adapted(name, output, read)
            return output
        for name in dict.fromkeys(adapter_names):
            rows = [row for row, wanted in enumerate(adapter_names) if wanted == name]
            output[rows] = self._adapted(name, output[rows], None if read is None else read[rows])
        return output

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete the adapter, and the hook with the last one that needs it."""
        super().delete_adapter(adapter_name)
        if not any(settings.placement == "parallel" for settings in self.settings.values()):
            self.close()

    def close(self) -> None:
        """Take the hook off the feed-forward network."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:  # noqa: ARG002
        """Raise EncoderError: there is no weight that does what a bottleneck does."""
        raise _cannot_merge()

    def unmerge(self) -> None:
        """Do nothing: nothing is ever merged."""

    def _note(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:  # noqa: ARG002 the form of a hook
        self._noted[threading.get_ident()] = inputs[0]

    def _adapted(self, name: str, output: Tensor, read: Tensor | None) -> Tensor:
        """Return `output` with the adapter's part added, in its own dtype; unchanged where this layer has no `name`."""
        if name not in self.settings:
            return output
        settings = self.settings[name]
        down: Any = self.bottleneck_down[name]
        up: Any = self.bottleneck_up[name]
        source = output
        if settings.placement == "parallel":
            if read is None:
                raise RuntimeError("a parallel adapter runs within its feed-forward network; the last layer ran alone")
            source = read
        inner = NON_LINEARITIES[settings.non_linearity](down(source.to(down.weight.dtype)))
        inner = functional.dropout(inner, settings.dropout, self.training)
        scale = self.bottleneck_scale[name] if settings.scaling == "learned" else settings.scaling
        changed: Tensor = output + scale * up(inner)
        return changed.to(output.dtype)


class BottleneckTuner(BaseTuner):
    """Puts `BottleneckLayer`s into a model, as peft asks for."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 peft's own declaration; found by `find_targets`

    def _prepare_adapter_config(self, peft_config: Any, model_config: Any) -> Any:  # noqa: ARG002
        return peft_config

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        if not peft_config.target_modules:
            find_places(peft_config, model, _own_anatomy(model))

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,  # noqa: ARG002
    ) -> None:
        first = peft_config.feed_forward_inputs.get(current_key)
        if peft_config.placement == "parallel" and first is None:
            raise ValueError(
                f"feed_forward_inputs: no linear layer is named whose input the adapter at {current_key} reads; "
                "name it, or leave target_modules out and both are found"
            )
        feed_forward = None if first is None else self.model.get_submodule(first)
        if isinstance(target, BottleneckLayer):
            target.add(adapter_name, peft_config, feed_forward)
            return
        layer = BottleneckLayer(target)
        layer.set_adapter(self.active_adapters)
        layer.add(adapter_name, peft_config, feed_forward)
        self._replace_module(parent, target_name, layer, target)

    def _check_merge_allowed(self) -> None:
        raise _cannot_merge()

    def unload(self) -> Any:
        """Return the encoder without adapters."""
        for module in self.model.modules():
            if isinstance(module, BottleneckLayer):
                module.close()
        return super().unload()

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **options: Any) -> Iterator[None]:  # noqa: ARG002
        """Hand `adapter_names`, one name a row, to every layer and head of this one forward pass."""
        names = options.get("adapter_names")
        if names is None:
            yield
            return
        if self.training:
            raise ValueError("adapter_names is for prediction: call model.eval() first")
        if unknown := set(names) - {_BASE, *self.peft_config}:
            raise ValueError(f"adapter_names: no adapter is called {sorted(unknown)}; there are {[*self.peft_config]}")
        handles = [
            module.register_forward_pre_hook(partial(_with_names, names), with_kwargs=True)
            for module in self.model.modules()
            if isinstance(module, BottleneckLayer | AuxiliaryTrainingWrapper)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _with_names(
    names: Sequence[str], module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(module, BottleneckLayer) and len(names) != len(args[0]):
        raise ValueError(f"adapter_names: expected one name for each of the {len(args[0])} rows, found {len(names)}")
    return args, {**options, "adapter_names": names}


def _initialise(down: nn.Linear, up: nn.Linear, init: str) -> None:
    for layer in (down, up):
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    if init == "zero":
        nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
        nn.init.zeros_(up.weight)
    else:
        for layer in (down, up):
            nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)


def find_places(settings: BottleneckConfig, model: nn.Module, anatomy: Anatomy) -> None:
    """Fill in `target_modules` and `feed_forward_inputs`; raises EncoderError for an architecture without roles."""
    model_type = anatomy.model_type
    roles = (*PLACEMENTS[settings.placement], "ffn_in")
    if not set(roles) <= ROLES.get(model_type, {}).keys():
        known = ", ".join(name for name, named in ROLES.items() if set(roles) <= named.keys())
        raise EncoderError(
            f"method.placement: where a {settings.placement} adapter sits in a {model_type} encoder is not known; "
            f"expected one of {known}; use another encoder, or the method 'lora'"
        )
    chosen = [find_targets(model, anatomy, (role,), settings.layers) for role in PLACEMENTS[settings.placement]]
    settings.target_modules = [name for names in chosen for name in names]
    if settings.placement == "parallel":
        # A gated feed-forward network has two first layers, which read the same.
        first = [
            name
            for name in find_targets(model, anatomy, ("ffn_in",), settings.layers)
            if not name.endswith(_SECOND_GATE)
        ]
        settings.feed_forward_inputs = dict(zip(chosen[0], first, strict=True))


def _own_anatomy(model: nn.Module) -> Anatomy:
    """Return what a model without a recipe, such as one loaded by plain peft, lets be seen of its parts."""
    model_type = getattr(getattr(model, "config", None), "model_type", "unknown")
    encoder = next((name for name, _ in model.named_modules() if in_a_layer(name)), "").partition(".")[0]
    return Anatomy(model_type, encoder, (), (), ())


def _cannot_merge() -> EncoderError:
    return EncoderError(
        "a bottleneck adapter cannot be merged into the encoder: it has a non-linearity, and no weight does the same; "
        "keep it beside the encoder, or train with 'lora'"
    )
