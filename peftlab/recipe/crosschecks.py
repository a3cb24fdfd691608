"""Settings that are sound one by one and do not go together, found before any work.

Each check gives a Finding; nothing here reads data or loads an encoder.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from peftlab.recipe import plugins
from peftlab.recipe.expectations import as_toml
from peftlab.recipe.plugin_lists import Choices, curator_checks
from peftlab.recipe.pretraining import Architecture, Corpus, Masking
from peftlab.recipe.records import Budget, Choice, Data, Distill, Encoder, Evaluation, Head, Optimizer, Record, Train
from peftlab.recipe.source import Finding, Source

BUILTIN_TEXTS = ("tickets-en", "tickets-zh")
"""Names that may follow `builtin:` in `corpus.source`."""


@dataclass(frozen=True)
class Draft:
    """The sections of a recipe that may still hold mistakes; None stands for one that is absent or unusable."""

    encoder: Encoder | None
    task: Choice[Record] | None
    data: Data | None
    curate: Choices | None
    head: Head | None
    method: Choice[Record] | None
    train: Train | None
    optimizer: Optimizer | None
    evaluation: Evaluation | None
    budget: Budget | None
    distill: Distill | None


def cross_checks(draft: Draft, source: Source) -> Iterator[Finding]:
    """Yield what does not go together in `draft`; sections that are None are taken to be sound."""
    if draft.encoder is not None:
        yield from _encoder_names(draft.encoder)
    if draft.data is not None:
        yield from _data(draft.data, source, draft.task.name if draft.task is not None else None)
    if draft.curate is not None:
        yield from curator_checks(draft.curate, draft.task, draft.encoder)
    if draft.method is not None:
        yield from _method(draft, draft.method)
    if draft.task is not None and draft.evaluation is not None:
        yield from _metric(draft.evaluation.metric, draft.task.name)
    if draft.evaluation is not None and draft.budget is not None:
        yield from _targets(draft.evaluation.target, draft.budget.target)
    if draft.distill is not None:
        yield from _distill(draft.distill, draft.method, draft.task)
    if draft.data is not None and draft.data.entities is not None:
        yield from _entities(draft)
    if draft.task is not None:
        yield from _task(draft, draft.task.name)


def pretraining_checks(records: Mapping[str, Any], source: Source) -> Iterator[Finding]:
    """Yield what does not go together in the sections of a pretraining recipe."""
    corpus, encoder, architecture = records["corpus"], records["encoder"], records["architecture"]
    if encoder is not None:
        yield from _encoder_names(encoder)
        if encoder.load_in != "full":
            yield Finding(("encoder", "load_in"), "pretraining needs full weights", 'write "full"')
        for section in ("architecture", "vocabulary"):
            if section in source.values:
                yield Finding((section,), "describes a new encoder, and [encoder] names an existing one", "remove one")
    elif records["method"] is not None:
        yield Finding(("method",), "a method adapts an existing encoder", "add [encoder] with name, or remove [method]")
    if records["method"] is not None:
        yield from _pretraining_method(records["method"].name, records["train"])
    if corpus is not None:
        yield from _corpus(corpus)
    if encoder is None and architecture is not None and corpus is not None:
        yield from _architecture(architecture, corpus)
    if records["train"] is not None and records["train"].frozen_prefix != "dropout":
        yield Finding(("train", "frozen_prefix"), "pretraining runs every layer with dropout", "remove the key")
    if records["masking"] is not None:
        yield from _masking(records["masking"])


def _pretraining_method(name: str, train: Train | None) -> Iterator[Finding]:
    module = plugins.load_plugin("methods", name)
    if not module.NEEDS_ENCODER or module.SOLVER != "gradient":
        yield Finding(("method", "name"), f"{name} is not trained by gradient steps", 'use "lora", or remove [method]')
    elif not module.MERGES:
        expected = f"{name} cannot be merged, and the pretrained encoder takes the update into its weights"
        yield Finding(("method", "name"), expected, 'use "lora", or remove [method]')
    elif train is not None:
        yield from _learning_rate(train.learning_rate, name, module.LEARNING_RATE)


def _corpus(corpus: Corpus) -> Iterator[Finding]:
    if not corpus.files and corpus.source is None:
        yield Finding(("corpus",), "names no text; expected files or source", 'such as source = "builtin:tickets-zh"')
    if corpus.source is not None:
        prefix, _, name = corpus.source.partition(":")
        if prefix != "builtin":
            choices = ", ".join(as_toml(f"builtin:{other}") for other in BUILTIN_TEXTS)
            yield Finding(("corpus", "source"), f"expected one of {choices}, found {as_toml(corpus.source)}")
        else:
            yield from _listed_name(("corpus", "source"), prefix, name, BUILTIN_TEXTS)


def _architecture(architecture: Architecture, corpus: Corpus) -> Iterator[Finding]:
    if architecture.hidden_size % architecture.heads:
        found = f"{architecture.hidden_size} is not a multiple of heads = {architecture.heads}"
        yield Finding(("architecture", "hidden_size"), found)
    if architecture.start_layers is not None and architecture.start_from is None:
        expected = "are layers of an encoder that architecture.start_from does not name"
        yield Finding(("architecture", "start_layers"), expected, "name it, or remove the key")
    if architecture.max_positions is not None and architecture.max_positions < corpus.length:
        found = f"{architecture.max_positions} positions cannot hold corpus.length = {corpus.length}"
        yield Finding(("architecture", "max_positions"), found)


def _masking(masking: Masking) -> Iterator[Finding]:
    if masking.keep + masking.random > 1:
        found = (
            f"with random = {masking.random:g} the shares sum to {masking.keep + masking.random:g}, expected at most 1"
        )
        yield Finding(("masking", "keep"), found)
    if masking.whole_words == "jieba" and find_spec("rjieba") is None:
        expected = "Chinese words need the package rjieba, which is not installed"
        yield Finding(("masking", "whole_words"), expected, 'pip install "peftlab[pretrain]", or write "spaces"')


def _encoder_names(encoder: Encoder) -> Iterator[Finding]:
    for key in ("name", "stand_in"):
        prefix, colon, name = (getattr(encoder, key) or "").partition(":")
        if prefix == "bundled" and colon:
            yield from _listed_name(("encoder", key), prefix, name, tuple(_bundled_encoders()))


def _bundled_encoders() -> Any:
    # The encoders stand above recipes, so they are looked up by name, as plug-ins are.
    return importlib.import_module("peftlab.encoders.bundled").BUNDLED


def _data(data: Data, source: Source, task: str | None) -> Iterator[Finding]:
    given = source.values["data"]
    if not {"train", "source", "hub"} & given.keys():
        example = 'such as source = "builtin:tickets-en"'
        yield Finding(("data",), "names no rows; expected train (a file), source or hub", example)
    for split in ("validation", "test"):
        if split in given and "train" not in given:
            yield Finding(("data", split), "a file of its own needs data.train", "name the file of training rows too")
    if abs(sum(data.split) - 1) > 1e-6:
        yield Finding(("data", "split"), f"the shares sum to {sum(data.split):g}, expected 1")
    elif data.split[0] == 0:
        yield Finding(("data", "split"), "the share of train is 0; expected a share above 0")
    prefix, colon, name = (data.source or "").partition(":")
    if prefix == "builtin" and colon:
        # Without a known task, a set that no task has is a mistake all the same.
        tasks = plugins.plugin_names("tasks") if task is None else (task,)
        known = tuple(one for other in tasks for one in plugins.load_plugin("tasks", other).BUILTIN_SETS)
        yield from _listed_name(("data", "source"), prefix, name, known)


def _listed_name(path: tuple[str, str], prefix: str, name: str, known: tuple[str, ...]) -> Iterator[Finding]:
    if name not in known:
        choices = ", ".join(as_toml(f"{prefix}:{other}") for other in known)
        yield Finding(
            path, f"expected one of {choices}, found {as_toml(f'{prefix}:{name}')}", _nearest(name, known, prefix)
        )


def _nearest(name: str, known: tuple[str, ...], prefix: str = "") -> str | None:
    near = get_close_matches(name, known, n=1)
    return f"did you mean {as_toml(f'{prefix}:{near[0]}' if prefix else near[0])}?" if near else None


def _method(draft: Draft, method: Choice[Record]) -> Iterator[Finding]:
    module = plugins.load_plugin("methods", method.name)
    if draft.train is not None:
        yield from _learning_rate(draft.train.learning_rate, method.name, module.LEARNING_RATE)
    if draft.optimizer is not None and "lion" in draft.optimizer.name:
        yield from _lion(draft, module.LEARNING_RATE)
    if draft.optimizer is not None and draft.optimizer.lora_plus is not None and method.name != "lora":
        expected = f"LoRA+ sets the learning rate of LoRA's B matrices, and {method.name} has none"
        yield Finding(("optimizer", "lora_plus"), expected, "remove the key")
    if draft.head is not None and draft.head.init == "probe" and not module.NEEDS_ENCODER:
        expected = f"a probe starts from an encoder's embeddings, and {method.name} uses no encoder"
        yield Finding(("head", "init"), expected, "remove the key")
    if draft.encoder is not None and draft.encoder.load_in != "full":
        yield from _quantised(draft.encoder, method, module)
    if draft.data is not None and draft.data.train_on_validation:
        yield from _no_validation(draft, method.name, module)


def _no_validation(draft: Draft, method: str, module: ModuleType) -> Iterator[Finding]:
    """Refuse what chooses by validation rows that are trained on."""
    path = ("data", "train_on_validation")
    if module.SOLVER == "own":
        yield Finding(path, f"{method} is calibrated on validation rows, which it must not be trained on", "remove it")
    if draft.evaluation is not None and draft.evaluation.patience is not None:
        expected = "evaluation.patience stops by the validation rows, which are then trained on"
        yield Finding(path, expected, "remove one of both")


def _lion(draft: Draft, usual: plugins.LearningRate | None) -> Iterator[Finding]:
    """Refuse Lion at the default rate, which is AdamW's (Chen et al. 2023, arXiv 2302.06675, section 5)."""
    if usual is not None and draft.train is not None and draft.train.learning_rate == "auto":
        expected = f"Lion needs a rate 3 to 10 times below AdamW's, which is {_number(usual.default)} by default"
        yield Finding(("train", "learning_rate"), expected, f"write, say, {_number(usual.default / 5)}")


def _quantised(encoder: Encoder, method: Choice[Record], module: ModuleType) -> Iterator[Finding]:
    """Refuse what cannot train on quantised weights. A method names in `QUANTISED` the kinds that it is tested on.

    Its `unfit_for_quantised(config, encoder)`, if it has one, gives the key that stands against it, and why.
    """
    kind, path = encoder.load_in, ("encoder", "load_in")
    if module.TRAINS_ENCODER:
        bits = 8 if kind == "int8" else 4
        expected = f"{method.name} trains the encoder, which {bits}-bit weights do not allow"
        yield Finding(path, expected, 'write "full"')
    elif module.NEEDS_ENCODER and kind not in getattr(module, "QUANTISED", ()):
        yield Finding(path, f"{method.name} is not known to train rightly on {kind} weights", 'write "full"')
    elif find_spec("bitsandbytes") is None:
        yield Finding(path, f"{kind} needs bitsandbytes, which is not installed", 'pip install "peftlab[quantised]"')
    unfit = getattr(module, "unfit_for_quantised", None)
    found: tuple[str, str] | None = unfit(method.config, encoder) if unfit is not None else None
    if found is not None:
        expected = f"{found[1]}, and encoder.load_in is {as_toml(kind)}"
        yield Finding(tuple(found[0].split(".")), expected, "remove one of both")


def _learning_rate(rate: float | str, method: str, usual: plugins.LearningRate | None) -> Iterator[Finding]:
    """Refuse a rate outside the method's range: mostly one that was meant for another method."""
    if usual is None or isinstance(rate, str) or usual.low <= rate <= usual.high:
        return
    owners = [other for other in plugins.plugin_names("methods") if _in_range(rate, other)]
    found = (
        f"{_number(rate)} is a learning rate for {plugins.named(owners, 'or')}" if owners else f"found {_number(rate)}"
    )
    span = f"between {_number(usual.low)} and {_number(usual.high)}"
    advice = f"remove the key for the default {_number(usual.default)}"
    yield Finding(("train", "learning_rate"), f"{found}; {method} trains well {span}", advice)


def _in_range(rate: float, method: str) -> bool:
    usual = plugins.load_plugin("methods", method).LEARNING_RATE
    return usual is not None and usual.low <= rate <= usual.high


def _number(value: float) -> str:
    """Return `value` without the zero that Python puts into exponents: 2e-5."""
    return f"{value:g}".replace("e-0", "e-")


def _distill(distill: Distill, method: Choice[Record] | None, task: Choice[Record] | None) -> Iterator[Finding]:
    if task is not None and task.name not in plugins.tasks_in("distill"):
        able = ", ".join(plugins.tasks_in("distill"))
        yield Finding(("distill",), f"the task {task.name} cannot be taught by other runs; {able} can", "remove it")
    if method is not None and plugins.load_plugin("methods", method.name).SOLVER != "gradient":
        expected = f"{method.name} is not trained by gradient steps, so nobody can teach it"
        yield Finding(("distill",), expected, "remove the section, or choose another method")
    for key in ("confidence", "targets"):
        if not distill.unlabelled and getattr(distill, key) not in (None, "soft"):
            yield Finding(("distill", key), "is about unlabelled texts, and there are none", "add distill.unlabelled")


def _targets(asked: float | None, ceiling: float | None) -> Iterator[Finding]:
    if asked is not None and ceiling is not None and asked != ceiling:
        yield Finding(("budget", "target"), f"{ceiling:g} is not evaluation.target = {asked:g}", "remove one of both")


def _task(draft: Draft, task: str) -> Iterator[Finding]:
    """Refuse a method that the task cannot use, and what its `unfit(draft)` names: keys, each with the reason."""
    module = plugins.load_plugin("tasks", task)
    solvers: tuple[str, ...] = module.SOLVERS
    if draft.method is not None:
        solver = plugins.load_plugin("methods", draft.method.name).SOLVER
        if solver not in solvers:
            expected = f"{draft.method.name} makes one decision a text, which the task {task} has no use for"
            yield Finding(("method", "name"), expected, 'use "lora"')
    if draft.head is not None and draft.head.init == "probe" and "linear_probe" not in solvers:
        yield Finding(("head", "init"), f"the task {task} has no probe to start from", "remove the key")
    highest = getattr(module, "HIGHEST", 1.0)
    if draft.evaluation is not None and (draft.evaluation.target or 0.0) >= highest:
        expected = f"found {draft.evaluation.target:g}; {module.HEADLINE} goes up to {highest:g}, expected less"
        yield Finding(("evaluation", "target"), expected)
    for key, why in module.unfit(draft):
        yield Finding(tuple(key.split(".")), why)


def _entities(draft: Draft) -> Iterator[Finding]:
    """Refuse marked entities where the task has none, where texts are changed, and where some have no spans."""
    path = ("data", "entities")
    if draft.task is not None and draft.task.name not in plugins.tasks_in("entities"):
        yield Finding(path, f"the task {draft.task.name} marks no entities", "remove the key")
    if draft.curate:
        yield Finding(path, "curators change texts, and would move the marks", "remove one of both")
    if draft.distill is not None and draft.distill.unlabelled:
        yield Finding(path, "unlabelled texts have no entities to mark", "remove distill.unlabelled")


def _metric(metric: str, task: str) -> Iterator[Finding]:
    known = plugins.load_plugin("tasks", task).METRICS
    if metric != "auto" and metric not in known:
        choices = ", ".join(map(as_toml, ("auto", *known)))
        yield Finding(
            ("evaluation", "metric"), f"expected one of {choices}, found {as_toml(metric)}", _nearest(metric, known)
        )
