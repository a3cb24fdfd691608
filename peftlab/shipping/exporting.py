"""A run written in another format, compared with the run, and refused where it is too far from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from peftlab.data.tokens import Tokens, tokenise
from peftlab.errors import DataError, ExportRefused, RunError, UserError
from peftlab.evaluation.agreement import Difference, logit_difference
from peftlab.evaluation.export_source import Source, Written, comparable
from peftlab.evaluation.forward import Forward, as_forward, logits_through
from peftlab.evaluation.run_model import RunModel, load_run_model
from peftlab.recipe.plugins import load_plugin, plugin_names
from peftlab.runs.calibration import run_calibration
from peftlab.runs.certificate import (
    Certificate,
    Drift,
    Dtype,
    EncoderOfExport,
    Exported,
    Limits,
    MetricChange,
    file_hashes,
    write_certificate,
)
from peftlab.runs.environment import versions
from peftlab.runs.files import whole_folder, write_text
from peftlab.runs.folder import now
from peftlab.runs.result import Result, read_result
from peftlab.shipping.calibrating import calibrate_export, rows_again
from peftlab.shipping.decoding import Decoding, read_decoding, write_decoding
from peftlab.shipping.loading import find_format, load_forward, shown
from peftlab.shipping.measuring import measure_drift, measure_metric, measure_speed
from peftlab.shipping.reference import made_up_tokens, write_reference

MAX_DROP = 0.005
"""Largest loss of the test metric where the user gives none: half a point."""
Answering = tuple[Forward, Decoding]
"""A model as a function to logits, and what makes answers of them."""
_CHOOSING_ROWS = 2000  # validation rows that an exporter may choose and calibrate by


@dataclass(frozen=True)
class Ask:
    """What is to be exported, and how. None: the format's own type and drift; an infinite limit asks nothing."""

    run: Path
    format: str
    out: Path
    dtype: str | None = None
    max_drift: float | None = None
    max_drop: float = MAX_DROP


@dataclass(frozen=True)
class _Rows:
    """Rows that run and export are compared on, with the task that scores them; `tokens` are those of `encoded`."""

    splits: Any
    task: ModuleType
    config: Any
    encoded: Any
    tokens: Tokens


def export_run(ask: Ask, say: Callable[[str], None]) -> Certificate:
    """Write the export that is asked for, with certificate and card, into `ask.out`: whole, or not at all.

    Raises UserError where the format does not take the run's method, ExportRefused where drift or loss exceed the
    limits, RunError where the run is not finished, DataError where its data are no longer those it was tested on.
    """
    import torch

    from peftlab.reports.export_card import export_card

    exporter = find_format(ask.format)
    dtype = _dtype(exporter, ask)
    if ask.out.exists() and (not ask.out.is_dir() or any(ask.out.iterdir())):
        raise UserError(f"--out {ask.out} already holds files; name another folder, or remove it")
    result, promised = _finished(ask.run), run_calibration(ask.run)
    run = load_run_model(ask.run, torch.device("cpu"))
    _check_taken(exporter, run)
    _check_task(exporter, run)
    tests, validation = _rows(run, result)
    exported = _describe(exporter, dtype, run, result)
    limits = _limits(exporter, exported, ask)
    decoding = tests.task.decoding(run.module, tests.config)
    source = Source(ask.run, run, exported, validation.tokens, dtype, partial(_apart, validation, decoding))
    with whole_folder(ask.out) as folder:
        say(f"writing {shown(exported.format)} ({dtype}) of {ask.run}")
        written = _write(exporter, source, folder)
        write_decoding(folder, decoding)
        exported = exported.model_copy(update={"merged": written.merged, "loads_with": written.loads_with})
        forward = load_forward(folder, exported)
        before = comparable(as_forward(run.module, torch.device("cpu")), exported)
        say(f"comparing it with the run on {len(tests.encoded):,} test rows")
        drift, metric, tested = _compared((before, decoding), (forward, read_decoding(folder)), exported, tests)
        if (reason := beyond(limits, drift, metric)) is not None:
            raise ExportRefused(f"the export is refused and nothing was written: {reason}")
        calibration = None
        if promised is not None:
            rows = rows_again(promised, run.recipe.data, tests.splits)
            say(f"calibrating it on {len(rows):,} rows, with the promise of the run")
            tokens = tokenise(run.tokenizer, rows.texts, rows.pairs, exported.max_length)
            own = logits_through(forward, tokens, exported.batch_size), rows.labels
            calibration = calibrate_export(folder, promised, own, tested, tests.splits)
        vocabulary = run.module.config.vocab_size  # type: ignore[union-attr] # a transformers configuration
        made_up = made_up_tokens(run.tokenizer, int(vocabulary), exported.max_length)  # type: ignore[arg-type]
        reference = write_reference(folder, made_up, (before, forward), decoding, dtype)
        hashed = file_hashes(folder)
        certificate = Certificate(
            exported=exported,
            limits=limits,
            drift=drift,
            metric=metric,
            reference=reference,
            speed=measure_speed(forward, tests.tokens),
            size_bytes=sum((folder / name).stat().st_size for name in hashed),
            recipe_name=result.recipe.name,
            recipe_hash=result.recipe.hash,
            data_fingerprint=tests.splits.fingerprint,
            versions=_versions(exporter),
            notes=written.notes,
            files={},
            created=now(),
        )
        write_text(folder / "README.md", export_card(certificate, result, exporter.usage(exported), calibration))
        certificate = certificate.model_copy(update={"files": file_hashes(folder)})
        write_certificate(folder, certificate)
    return certificate


def compare_again(folder: Path, export: Answering, certificate: Certificate) -> tuple[Drift, MetricChange]:
    """Compare an export with the run in `folder` once more; ExportRefused where it exceeds the certificate's limits.

    Raises RunError where it is another run, by its recipe.
    """
    import torch

    result = _finished(folder)
    if result.recipe.hash != certificate.recipe_hash:
        raise RunError(f"the run in {folder} is not the one that was exported: its recipe has another hash")
    run = load_run_model(folder, torch.device("cpu"))
    tests, _ = _rows(run, result)
    forward = comparable(as_forward(run.module, torch.device("cpu")), certificate.exported)
    before = forward, tests.task.decoding(run.module, tests.config)
    drift, metric, _ = _compared(before, export, certificate.exported, tests)
    if (reason := beyond(certificate.limits, drift, metric)) is not None:
        raise ExportRefused(reason)
    return drift, metric


def beyond(limits: Limits, drift: Drift, metric: MetricChange) -> str | None:
    """Return what is beyond the limits, and what to do; None where nothing is."""
    scale = max(1.0, drift.largest_logit)
    if limits.max_drift is not None and not drift.max <= limits.max_drift * scale:
        times = f", which is --max-drift {limits.max_drift:g} times the largest logit" if scale > 1 else ""
        return (
            f"its logits are up to {drift.max:.3g} from the run's, allowed is {limits.max_drift * scale:.3g}{times}; "
            "raise --max-drift, or export in fp32"
        )
    if limits.max_drop is not None and not metric.before - metric.after <= limits.max_drop:
        return (
            f"test {metric.name} falls from {metric.before:.4f} to {metric.after:.4f} on {metric.rows:,} rows, by more "
            f"than --max-drop {limits.max_drop:g}; raise --max-drop, or choose another format"
        )
    return None


def _dtype(exporter: ModuleType, ask: Ask) -> Dtype:
    known: tuple[Dtype, ...] = exporter.DTYPES
    if ask.dtype is None:
        return known[0]
    for dtype in known:
        if ask.dtype == dtype:
            return dtype
    raise UserError(f"--dtype {ask.dtype}: the format {ask.format} is written in {' or '.join(known)}")


def _finished(folder: Path) -> Result:
    result = read_result(folder)
    if result.status != "ok":
        raise RunError(f"the run in {folder} has the status {result.status}; only a finished run is exported")
    return result


def _check_taken(exporter: ModuleType, run: RunModel) -> None:
    if exporter.TAKES == "adapters" and not hasattr(run.module, "peft_config"):
        raise UserError(_refusal(exporter, run, "trains no adapter of peft", {"mergeable", "any"}))


def _check_task(exporter: ModuleType, run: RunModel) -> None:
    own, task = exporter.__name__.rpartition(".")[2], run.recipe.task.name
    known: tuple[str, ...] | Literal["all"] = load_plugin("tasks", task).EXPORTS
    if known != "all" and own not in known:
        instead = f"formats that work: {', '.join(map(shown, known))}" if known else "ship the run folder itself"
        raise UserError(f"runs of the task {task!r} have no {shown(own)} export; {instead}")
    if run.recipe.data.entities is not None:
        raise UserError(
            f"the run in {run.recipe.path.parent} has no export: it reads texts with marked entities (data.entities), "
            "which no export marks; ship the run folder itself"
        )


def _write(exporter: ModuleType, source: Source, folder: Path) -> Written:
    from peftlab.encoders.merging import CannotMerge

    try:
        written: Written = exporter.write(source, folder)
    except CannotMerge as error:
        why = f"cannot be merged into the encoder's weights ({error})"
        raise UserError(_refusal(exporter, source.run, why, {"adapters", "any"})) from error
    return written


def _refusal(exporter: ModuleType, run: RunModel, why: str, takes: set[str]) -> str:
    names = [name for name in plugin_names("exporters") if load_plugin("exporters", name).TAKES in takes]
    own = shown(exporter.__name__.rpartition(".")[2])
    return (
        f"the method {run.recipe.method.name!r} {why}, so it has no {own} export; formats that work: "
        f"{', '.join(map(shown, names))}"
    )


def _rows(run: RunModel, result: Result) -> tuple[_Rows, _Rows]:
    """Return the test rows, which must be those of the run, and the first validation rows."""
    task, config = load_plugin("tasks", run.recipe.task.name), run.recipe.task.config
    splits = task.load_splits(run.recipe, config)
    if result.data is None or splits.fingerprint != result.data.fingerprint:
        raise DataError(
            f"the data of {run.recipe.path} are not those that the run was trained and tested on (their fingerprints "
            "differ), so the export cannot be compared with it; restore the files"
        )
    again = run.recipe.model_copy(update={"encoder": run.encoder})
    test = task.encode(run.tokenizer, splits.test, again)
    validation = task.encode(run.tokenizer, splits.validation, again).first(_CHOOSING_ROWS)
    return (
        _Rows(splits, task, config, test, task.tokens(test)),
        _Rows(splits, task, config, validation, task.tokens(validation)),
    )


def _describe(exporter: ModuleType, dtype: Dtype, run: RunModel, result: Result) -> Exported:
    recipe, known = run.recipe, run.record.encoder
    if known is None:
        raise AssertionError("a run model has an encoder")
    return Exported(
        format=exporter.__name__.rpartition(".")[2],
        dtype=dtype,
        method=recipe.method.name,
        task=recipe.task.name,
        labels=run.record.labels,
        multi_label=run.record.multi_label,
        threshold=getattr(recipe.task.config, "threshold", 0.5),
        text_column=recipe.data.text,
        pair_column=recipe.data.pair,
        max_length=run.encoder.max_length,
        batch_size=recipe.evaluation.batch_size,
        merged=False,
        loads_with=(),
        encoder=EncoderOfExport(
            used=known.used,
            revision=known.revision,
            sha256=known.sha256,
            folder=known.folder if known.kind == "local" else None,
            pooling=known.pooling,
            dtype=run.encoder.dtype,
            load_in=run.encoder.load_in,
            license=result.encoder.license,
        ),
        each_token=load_plugin("tasks", recipe.task.name).EACH_TOKEN,
        settings=recipe.task.config.model_dump(mode="json"),
    )


def _limits(exporter: ModuleType, exported: Exported, ask: Ask) -> Limits:
    """Return what the user asked; else the format's own drift, where run and export both compute in fp32."""
    exact = (
        exported.dtype == "fp32" and exported.encoder.load_in == "full" and exported.encoder.dtype in ("auto", "fp32")
    )
    drift = ask.max_drift if ask.max_drift is not None else (exporter.MAX_DRIFT if exact else None)
    return Limits(max_drift=_asked(drift), max_drop=_asked(ask.max_drop))


def _asked(limit: float | None) -> float | None:
    return None if limit is None or limit == float("inf") else limit


def _compared(
    before: Answering, after: Answering, exported: Exported, tests: _Rows
) -> tuple[Drift, MetricChange, NDArray[np.float32]]:
    """Return how `after` differs from `before` on the test rows, and what the task reads from its logits there."""
    (first, told, one), (second, telling, other) = (
        _answers(tests, logits_through(forward, tests.tokens, exported.batch_size), decoding)
        for forward, decoding in (before, after)
    )
    metric = measure_metric(told, telling, tests.splits, tests.task, tests.config)
    return measure_drift(first, second, (one, other)), metric, second


def _apart(rows: _Rows, decoding: Decoding, before: NDArray[np.float32], after: NDArray[np.float32]) -> Difference:
    """Return how far two models' logits of the tokens of `rows` are apart, and what is decided otherwise."""
    (first, _, one), (second, _, other) = (_answers(rows, logits, decoding) for logits in (before, after))
    return logit_difference(first, second, (one, other))


def _answers(
    rows: _Rows, logits: NDArray[np.float32], decoding: Decoding
) -> tuple[NDArray[np.float32], Any, Sequence[Any]]:
    """Return what the task reads of a model's logits, what it scores, and what it decides."""
    read = rows.task.read(logits, rows.encoded)
    outputs = rows.task.outputs_of(read, rows.encoded, rows.splits, rows.config, decoding)
    return read, outputs, rows.task.predicted(outputs, rows.splits, rows.config)


def _versions(exporter: ModuleType) -> dict[str, str]:
    from importlib import metadata

    return versions() | {package: metadata.version(package) for package in exporter.PACKAGES}
