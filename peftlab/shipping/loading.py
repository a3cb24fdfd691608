"""An export as a function: from arrays to logits, and from texts to labels."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from peftlab.encoders.load import load_tokenizer
from peftlab.errors import MissingPackage, RunError, UserError
from peftlab.evaluation.export_source import comparable
from peftlab.evaluation.forward import Forward
from peftlab.evaluation.predictor import Predictor
from peftlab.recipe.plugins import load_plugin, plugin_names
from peftlab.runs.calibration import FILE_NAME as CALIBRATION
from peftlab.runs.calibration import export_calibration
from peftlab.runs.certificate import Exported, read_certificate
from peftlab.shipping.decoding import read_decoding


def find_format(name: str) -> ModuleType:
    """Return the exporter of this name, hyphens or underscores; UserError where there is none or a package is absent.

    Raises MissingPackage with the line that brings what it needs.
    """
    import difflib

    known = plugin_names("exporters")
    plain = name.replace("-", "_")
    if plain not in known:
        near = difflib.get_close_matches(plain, known, n=1)
        hint = f"; did you mean {shown(near[0])!r}?" if near else ""
        raise UserError(f"--to {name!r} is no format; expected one of {', '.join(map(shown, known))}{hint}")
    exporter = load_plugin("exporters", plain)
    absent = [package for package in exporter.PACKAGES if find_spec(package) is None]
    if absent:
        raise MissingPackage(
            f"the format {name} needs {' and '.join(absent)}, which is not installed; run: "
            f'pip install "peftlab[{exporter.EXTRA}]"'
        )
    return exporter


def shown(name: str) -> str:
    """Return a format's name as it is typed."""
    return name.replace("_", "-")


def load_forward(folder: Path, exported: Exported) -> Forward:
    """Load the model in `folder` fresh; RunError where its files are not what the format writes."""
    exporter = find_format(exported.format)
    try:
        forward: Forward = exporter.load(folder, exported)
        forward = comparable(forward, exported)
    except UserError:
        raise
    except Exception as error:
        # Whatever a library raises on a broken file is one thing to a reader: this file cannot be loaded.
        first = (str(error).strip().splitlines() or [""])[0]
        raise RunError(
            f"{folder} cannot be loaded as {shown(exported.format)}: {first or type(error).__name__}"
        ) from error
    return forward


def load_export(folder: Path, against: Path | None = None) -> Any:
    """Load the export in `folder`, of any format, as its task's predictor; RunError where it is none, or broken.

    `against`: the file of candidates for a task that ranks; UserError where another task is given one.
    """
    certificate = read_certificate(folder)
    exported = certificate.exported
    task = load_plugin("tasks", exported.task)
    if against is not None and "against" not in task.FEATURES:
        raise UserError(f"exports of the task {exported.task!r} rank nothing; leave out --against")
    calibration = export_calibration(folder, certificate.files.get(CALIBRATION))
    forward = load_forward(folder, exported)
    made = task.exported_predictor(exported, forward, load_tokenizer(folder), read_decoding(folder), against)
    return replace(made, calibration=calibration) if isinstance(made, Predictor) else made
