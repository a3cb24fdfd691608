"""The card of an export, its README.md: how it is loaded, how far it is from its run, what it was made of."""

from __future__ import annotations

import json
from collections.abc import Sequence

from peftlab.recipe.plugins import load_plugin
from peftlab.reports.model_card import HUB_ID, table
from peftlab.reports.wording import bytes_text, check_text, promise_text, stand_in_text
from peftlab.runs.calibration import FILE_NAME as CALIBRATION
from peftlab.runs.calibration import Calibration
from peftlab.runs.certificate import DECODING, FILE_NAME, REFERENCE, SUMS, Certificate, MetricChange
from peftlab.runs.result import Result


def export_card(certificate: Certificate, result: Result, usage: str, calibration: Calibration | None = None) -> str:
    """Return the card as Markdown with the hub's front matter; `usage` is Python that gives `logits` of `texts`."""
    exported = certificate.exported
    name = exported.format.replace("_", "-")
    into = f" into {len(exported.labels)} labels" if exported.labels else ""
    synthetic = ["The run was trained on made-up texts.", ""] if result.data and result.data.synthetic else []
    parts = [
        _front_matter(certificate, result),
        f"# {certificate.recipe_name}: {name}, {exported.dtype}",
        "",
        f"Text {exported.task}{into} by the method `{exported.method}` on the encoder "
        f"`{exported.encoder.used}`; written by peftlab {certificate.versions.get('peftlab', '')}.",
        "",
        *([stand_in_text(result), ""] if result.stand_in else []),
        *synthetic,
        *_use(certificate, usage),
        *(_routing(calibration) if calibration is not None else []),
        *_certificate(certificate),
        *_origin(certificate),
    ]
    return "\n".join(parts)


def _front_matter(certificate: Certificate, result: Result) -> str:
    exported = certificate.exported
    used = exported.encoder.used
    values = {
        "library_name": _library(certificate),
        "pipeline_tag": load_plugin("tasks", exported.task).PIPELINE,
        "language": [result.data.language] if result.data and result.data.language else None,
        "license": exported.encoder.license.lower() if exported.encoder.license else None,
        "base_model": used if HUB_ID.fullmatch(used) else None,
        "tags": ["peftlab", exported.method, exported.task, exported.format],
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items() if value is not None]
    return "\n".join(["---", *lines, "---", ""])


def _library(certificate: Certificate) -> str:
    """Return the library that the hub shows: the first that loads the export."""
    first = certificate.exported.loads_with[0]
    return "onnx" if first == "onnxruntime" else first


def _use(certificate: Certificate, usage: str) -> Sequence[str]:
    loads_with = ", ".join(f"`{name}`" for name in certificate.exported.loads_with)
    labels = ", ".join(f"{number} `{label}`" for number, label in enumerate(certificate.exported.labels))
    meaning = f"The logits stand for: {labels}." if labels else "What is called logits below are embeddings."
    return [
        "## Use",
        "",
        "```sh",
        f'peftlab predict . --text "..."{"" if labels else " --against candidates.txt"} --json',
        "peftlab verify .",
        "sha256sum -c SHA256SUMS",
        "```",
        "",
        f"In Python, with {loads_with}:",
        "",
        "```python",
        'folder = "."',
        'texts = ["...", "..."]',
        "",
        usage,
        "```",
        "",
        *_pairs(certificate),
        meaning,
        "",
        *_decoding(certificate),
    ]


def _decoding(certificate: Certificate) -> Sequence[str]:
    """Return how a tagger's logits become tags; nothing for other models."""
    exported = certificate.exported
    if not exported.each_token:
        return []
    settings = exported.settings
    how = "Each word gets the tag of its largest logit."
    if settings.get("decoding") == "constrained":
        learned = "those that the CRF learned" if settings.get("crf") else "zero"
        how = (
            "The tags of a text are those with the largest sum of logits and of scores for the first tag, each tag "
            f"behind another, and the last tag (Viterbi's algorithm). These scores are {learned}, and minus infinity "
            f"where IOB2 forbids a tag; they are no part of the model, and lie in `{DECODING}`: `start_transitions` "
            "[tags], `transitions` [tag before, tag], `end_transitions` [tags]."
        )
    return [
        "## From logits to tags",
        "",
        "The model gives logits for every word piece, [texts, pieces, tags]; a word is read at its first piece. " + how,
        "",
        f"`peftlab predict .` does this with the files here. It also cuts signs off words and reads texts of more than "
        f"{exported.max_length} pieces whole, in windows that overlap; the code above cuts texts at white space, and "
        "leaves out what is beyond that length.",
        "",
    ]


def _routing(made: Calibration) -> Sequence[str]:
    check = check_text(made)
    rule = "No text is routed."
    if made.threshold is not None:
        rule = (
            f"A text is routed where the largest of softmax(logits / {made.temperature:.6g}) is {made.threshold:.6g} "
        )
        rule += "or more."
    return [
        "## What is routed without people",
        "",
        f"**{promise_text(made)}**",
        "",
        *([check, ""] if check is not None else []),
        f"Fitted on this export's own logits, on the rows that the run was calibrated on. {rule} `{CALIBRATION}` has "
        "the exact figures; `peftlab predict` obeys them.",
        "",
    ]


def _pairs(certificate: Certificate) -> Sequence[str]:
    if certificate.exported.pair_column is None or not certificate.exported.labels:
        return []
    form = (
        "`[[text, pair], ...]`"
        if "sentence-transformers" in certificate.exported.loads_with
        else "`(texts, pairs, ...)`"
    )
    return [f"This model labels pairs of texts: give both, as {form}.", ""]


def _certificate(certificate: Certificate) -> Sequence[str]:
    drift, metric, speed = certificate.drift, certificate.metric, certificate.speed
    limits = certificate.limits
    drift_limit = "none" if limits.max_drift is None else f"{limits.max_drift:g} x max(1, largest logit)"
    rows = [
        (
            "largest drift of a logit",
            f"{drift.max:.3g} (mean {drift.mean:.3g}; largest logit {drift.largest_logit:.3g})",
        ),
        ("predictions that flipped", f"{drift.flips:,} of {drift.rows:,}"),
        (f"test {metric.name} of the run", f"{metric.before:.4f}"),
        (f"test {metric.name} of the export", f"{metric.after:.4f}"),
        ("rows wholly right in one only", f"run {metric.only_run_right:,}, export {metric.only_export_right:,}"),
        ("exact McNemar test", f"p = {metric.p_value:.3g}"),
        *_difference(metric),
        ("allowed drift", drift_limit),
        ("allowed loss of the metric", "any" if limits.max_drop is None else f"{limits.max_drop:g}"),
        ("size", bytes_text(certificate.size_bytes)),
        (
            "latency, one text",
            f"p50 {speed.batch_1_p50_ms:.2f} ms, p95 {speed.batch_1_p95_ms:.2f} ms (n = {speed.batch_1_calls})",
        ),
        (
            "throughput, batches of 32",
            f"{speed.batch_32_rows_per_second:,.0f} texts/s (n = {speed.batch_32_calls} batches)",
        ),
    ]
    return [
        "## Certificate",
        "",
        f"The export was loaded from disk and compared with the run on all {drift.rows:,} test rows.",
        "",
        table(("what", "measured"), rows),
        "",
        f"Times: {speed.processor}, {speed.threads} {'thread' if speed.threads == 1 else 'threads'}, texts of "
        f"{speed.mean_tokens:.1f} tokens on average, without tokenising.",
        "",
        *(f"- {note}" for note in certificate.notes),
        f"- `{FILE_NAME}` has all of this for programs; `{SUMS}` has the SHA-256 of every file. `{REFERENCE}` has "
        "made-up token ids with the logits of run and export, so that `peftlab verify` needs neither run nor data.",
        "",
    ]


def _difference(metric: MetricChange) -> Sequence[tuple[str, str]]:
    found = metric.difference
    if found is None:
        return []
    shown = f"{found.value:+.4f}, 95 % interval {found.low:+.4f} to {found.high:+.4f} (paired bootstrap over rows)"
    return [(f"difference of {metric.name}", shown)]


def _origin(certificate: Certificate) -> Sequence[str]:
    encoder = certificate.exported.encoder
    rows = [
        ("recipe", f"`{certificate.recipe_name}`, SHA-256 `{certificate.recipe_hash}`"),
        ("data", f"fingerprint `{certificate.data_fingerprint}`"),
        ("encoder", f"`{encoder.used}`, SHA-256 `{encoder.sha256}`"),
        *((name, version) for name, version in certificate.versions.items()),
    ]
    return ["## Made of", "", table(("what", "which"), rows), ""]
