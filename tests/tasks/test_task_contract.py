"""Every task is one file that has what the rest of peftlab asks of it."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest

from peftlab.evaluation.predictor import Predictor
from peftlab.recipe.plugins import load_plugin, plugin_names
from peftlab.recipe.records import Record

PARAMETERS = {
    "unfit": ("draft",),
    "load_splits": ("recipe", "config", "tokenizer", "report_path"),
    "labels": ("splits",),
    "load_model": ("recipe", "folder", "names", "kept", "device"),
    "encode": ("tokenizer", "split", "recipe"),
    "objective": ("encoded", "splits", "recipe", "model", "device"),
    "logits": ("model", "encoded", "recipe", "passes"),
    "outputs": ("model", "encoded", "recipe", "passes"),
    "predicted": ("outputs", "splits", "config"),
    "point_metrics": ("outputs", "split", "splits", "config"),
    "score": ("outputs", "split", "splits", "config"),
    "write_predictions": ("path", "outputs", "split", "splits", "config"),
    "predictor": ("run", "device", "against"),
}
OF_EXPORTS = {
    "decoding": ("model", "config"),
    "tokens": ("encoded",),
    "read": ("logits", "encoded"),
    "outputs_of": ("read", "encoded", "splits", "config", "decoding"),
    "right": ("outputs", "split", "splits", "config"),
    "difference": ("before", "after", "split", "splits", "config"),
    "exported_predictor": ("exported", "forward", "tokenizer", "decoding", "against"),
}
OF_SEVERAL = {
    "keeps_pooler": ("pooling",),
    "around": ("loaded", "encoder", "recipe", "names"),
}
FEATURES = {"combine", "curate", "distill", "entities", "several", "suites", "against", "frozen", "pairs"}


@pytest.mark.parametrize("name", plugin_names("tasks"))
def test_a_task_has_every_function_with_the_parameters_that_it_is_called_with(name: str) -> None:
    task = load_plugin("tasks", name)
    wanted = PARAMETERS | (OF_EXPORTS if task.EXPORTS else {}) | (OF_SEVERAL if "several" in task.FEATURES else {})
    found = {one: tuple(inspect.signature(getattr(task, one)).parameters) for one in wanted}
    assert found == wanted


@pytest.mark.parametrize("name", plugin_names("tasks"))
def test_what_a_task_says_of_itself_goes_together(name: str) -> None:
    task = load_plugin("tasks", name)
    assert task.DEFAULT_METRIC in task.METRICS
    assert set(task.LOWER_IS_BETTER) <= set(task.METRICS)
    assert "gradient" in task.SOLVERS
    assert set(task.FEATURES) <= FEATURES
    assert task.EXPORTS == "all" or set(task.EXPORTS) <= set(plugin_names("exporters"))
    assert issubclass(task.Config, Record)
    assert task.Config() == task.Config(), "every setting has a default"
    assert task.PIPELINE
    assert task.ANSWER
    assert isinstance(task.HUB_METRICS, dict)


def test_the_line_of_a_classifier_is_label_probability_and_text() -> None:
    row = {"label": ["a", "b"], "probabilities": {"a": 0.75, "b": 0.5}}
    assert Predictor.line(SimpleNamespace(), "a text", row) == "a, b\t0.7500\ta text"  # type: ignore[arg-type]
