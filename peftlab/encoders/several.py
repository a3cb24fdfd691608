"""Several trained parts on one encoder in memory, of any method and any number of labels; one is in use at a time.

peft keeps several adapters in one model, but neither with heads of different sizes nor of different methods. Here each
trained part is loaded as if it were alone, onto the untouched encoder; which modules it put in place of which is noted,
and undone. To use it, they are put in again. So it computes exactly what it computes alone, and the frozen weights,
which the inserted modules hold by reference, are in memory once; while a part is added, twice, to see whether it
changed them. Not for use from several threads at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.encoders.load import LoadedEncoder
from peftlab.encoders.mixed import Change, Part, adapter_of, mixture
from peftlab.encoders.saved import load_trained, saved_names
from peftlab.errors import RunError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from peftlab.encoders.anatomy import Anatomy
    from peftlab.recipe.records import Encoder

_MOST = 0.5
"""Share of the encoder's parameters from which on a trained part is an encoder of its own."""
_TABLES = (
    "_modules",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)
"""Where a torch module keeps its children and what runs before and after it."""
_ABSENT = object()


class SharedEncoder:
    """One encoder, and the trained parts that have been added to it, by name."""

    def __init__(self, loaded: LoadedEncoder, encoder: Encoder) -> None:
        """Take over the encoder in `loaded`, which `encoder` describes; its own head is not used."""
        self._loaded = loaded
        self._encoder = encoder
        self._parts: dict[str, Part] = {}
        self._mixtures: dict[tuple[str, ...], Part] = {}
        self._in_use: str | tuple[str, ...] | None = None
        self._changed: tuple[Change, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parts, in the order in which they were added."""
        return tuple(self._parts)

    @property
    def device(self) -> torch.device:
        """Where the encoder's weights are."""
        found: torch.device = next(self._loaded.model.parameters()).device
        return found

    def add(
        self,
        name: str,
        folder: Path,
        around: Callable[[LoadedEncoder, Encoder], LoadedEncoder],
        attach: Callable[[nn.Module, Anatomy], nn.Module],
    ) -> None:
        """Load the trained part in `folder` under `name`; nothing is in use afterwards.

        `around` makes a model around the encoder that it is given, a head of its task's; `attach` is its method's own.
        Raises what `around` raises, and RunError where the name is taken, where the folder does not fit the
        encoder, and where the part would change the encoder's own weights (full fine-tuning, PiSSA, OLoRA).
        """
        if name in self._parts:
            raise RunError(f"there is an adapter named {name!r} already; remove it first, or choose another name")
        self.use(None)
        shell = around(self._loaded, self._encoder)

        def build(body: nn.Module) -> nn.Module:
            self._give_own(body, shell.anatomy, folder)
            return load_trained(shell.model, folder, lambda bare: attach(bare, shell.anatomy))

        self._parts[name] = self._part(build, folder)

    def mixed(self, names: tuple[str, ...]) -> nn.Module:
        """Return a model of the parts of these names together, put to use; see `peftlab.encoders.mixed`."""
        if self._in_use != names:
            if names not in self._mixtures:
                adapters = [adapter_of(self.use(name)) for name in names]
                self._mixtures = {names: self._part(lambda body: mixture(self._loaded, body, adapters), Path())}
            self._switch(names, self._mixtures[names])
        return self._mixtures[names].model

    def _part(self, build: Callable[[nn.Module], nn.Module], folder: Path) -> Part:
        """Let `build` change the bare encoder and make a model; note the changes, and undo them."""
        self.use(None)
        body = self._loaded.model.get_submodule(self._loaded.anatomy.encoder)
        before, weights = _tables(body), _weights(body)
        try:
            model = build(body)
            changes = tuple(_changes(before))
            for parameter in model.parameters():
                parameter.requires_grad_(False)
        finally:
            for table, entries in before:
                table.clear()
                table.update(entries)
            moved = _restore(weights)
        if moved:
            raise RunError(
                f"the trained part in {folder} changes {moved} of the encoder's own weights, so that it cannot share "
                "the encoder; load it by itself"
            )
        return Part(model, changes)

    def remove(self, name: str) -> None:
        """Forget the part of this name; RunError where there is none."""
        self.part(name)
        self.use(None)
        del self._parts[name]
        self._mixtures.clear()

    def part(self, name: str) -> Part:
        """Return the part of this name; RunError where there is none."""
        if name not in self._parts:
            known = ", ".join(map(repr, self._parts)) or "none yet"
            raise RunError(f"there is no adapter named {name!r}; there are: {known}")
        return self._parts[name]

    def use(self, name: str | None) -> nn.Module:
        """Put the part of this name into the encoder and return its model; None gives the bare encoder back."""
        wanted = self.part(name) if name is not None else None
        if name != self._in_use:
            self._switch(name, wanted)
        return wanted.model if wanted is not None else self._loaded.model.get_submodule(self._loaded.anatomy.encoder)

    def _switch(self, name: str | tuple[str, ...] | None, wanted: Part | None) -> None:
        for change in self._changed:
            _put(change.table, change.key, change.before)
        self._changed = wanted.changes if wanted is not None else ()
        for change in self._changed:
            _put(change.table, change.key, change.after)
        self._in_use = name

    def _give_own(self, body: nn.Module, anatomy: Anatomy, folder: Path) -> None:
        """Put copies in place of the modules whose weights the folder brings by name; loading writes into them."""
        prefix = f"{anatomy.encoder}."
        own = {name.removeprefix(prefix) for name in saved_names(folder) if name.startswith(prefix)}
        sizes = {name: parameter.numel() for name, parameter in body.named_parameters()}
        share = sum(sizes.get(name, 0) for name in own) / sum(sizes.values())
        if share > _MOST:
            raise RunError(
                f"the trained part in {folder} holds {share:.0%} of the encoder's parameters: it is an encoder of its "
                "own and cannot share one; load it by itself"
            )
        for path in sorted({name.rpartition(".")[0] for name in own}, key=lambda path: path.count(".")):
            if path and path in dict(body.named_modules()):
                parent, _, child = path.rpartition(".")
                body.get_submodule(parent)._modules[child] = _with_own(body.get_submodule(path))


def _with_own(module: nn.Module) -> nn.Module:
    """Return a copy of `module` with parameters and hooks of its own, and the same children."""
    import torch

    made: nn.Module = copy.copy(module)
    for name in ("_parameters", *_TABLES):
        setattr(made, name, copy.copy(getattr(module, name)))
    for name, parameter in module._parameters.items():
        if parameter is not None:
            made._parameters[name] = torch.nn.Parameter(parameter.detach().clone(), requires_grad=False)
    return made


def _tables(body: nn.Module) -> list[tuple[dict[Any, Any], dict[Any, Any]]]:
    """Return every table of the modules in `body`, each with a copy of its entries."""
    tables = [getattr(module, name) for module in body.modules() for name in _TABLES]
    return [(table, dict(table)) for table in tables]


def _changes(before: list[tuple[dict[Any, Any], dict[Any, Any]]]) -> Iterator[Change]:
    """Yield the entries that are no longer those of `before`."""
    for table, entries in before:
        for key in {**entries, **table}:
            was, now = entries.get(key, _ABSENT), table.get(key, _ABSENT)
            if was is not now:
                yield Change(table, key, was, now)


def _put(table: dict[Any, Any], key: Any, value: Any) -> None:
    if value is _ABSENT:
        table.pop(key, None)
    else:
        table[key] = value


@dataclass(frozen=True)
class _Weight:
    """A weight of the encoder: where it is, its memory, and a copy of its values."""

    module: nn.Module
    name: str
    parameter: nn.Parameter
    memory: Tensor
    values: Tensor


def _weights(body: nn.Module) -> list[_Weight]:
    """Return every weight in `body`."""
    return [
        _Weight(module, name, parameter, parameter.data, parameter.detach().clone())
        for module in body.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None
    ]


def _restore(weights: list[_Weight]) -> int:
    """Put every one of `weights` back in its place and its memory, and return how many had other values."""
    import torch

    moved = 0
    for weight in weights:
        now = weight.module._parameters.get(weight.name)
        same = now is not None and now.dtype == weight.values.dtype and torch.equal(now.data, weight.values)
        weight.module._parameters[weight.name] = weight.parameter
        weight.parameter.data = weight.memory
        if not same:
            weight.memory.copy_(weight.values)
            moved += 1
    return moved
