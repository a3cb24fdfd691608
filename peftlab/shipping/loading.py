"""An export as a function: from arrays to logits, and from texts to labels."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from peftlab.data.tokens import tokenise
from peftlab.encoders.load import load_tokenizer
from peftlab.errors import MissingPackage, RunError, UserError
from peftlab.evaluation.forward import Forward, logits_through
from peftlab.evaluation.predictor import Predictor
from peftlab.recipe.plugins import load_plugin, plugin_names
from peftlab.runs.certificate import Exported, read_certificate


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
    except UserError:
        raise
    except Exception as error:
        # Whatever a library raises on a broken file is one thing to a reader: this file cannot be loaded.
        first = (str(error).strip().splitlines() or [""])[0]
        raise RunError(
            f"{folder} cannot be loaded as {shown(exported.format)}: {first or type(error).__name__}"
        ) from error
    return forward


def load_export(folder: Path) -> Predictor:
    """Load the export in `folder`, whatever its format; RunError where it is none, or broken."""
    exported = read_certificate(folder).exported
    if not exported.labels:
        raise UserError(f"{folder} gives embeddings and no labels; load it as its README.md says, or name the run")
    forward = load_forward(folder, exported)
    tokenizer = load_tokenizer(folder)

    def logits(texts: Sequence[str], pairs: Sequence[str] | None) -> NDArray[np.float32]:
        return logits_through(forward, tokenise(tokenizer, texts, pairs, exported.max_length), exported.batch_size)

    return Predictor(
        labels=exported.labels,
        multi_label=exported.multi_label,
        threshold=exported.threshold,
        text_column=exported.text_column,
        pair_column=exported.pair_column,
        logits=logits,
    )
