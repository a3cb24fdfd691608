"""`certificate.json`: what an export is, how far it is from the run it was made of, and the hash of every file.

Beside it lies `SHA256SUMS`, which also covers the certificate itself and is read by plain `sha256sum -c`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, ValidationError

from peftlab.errors import RunError
from peftlab.runs.files import write_text
from peftlab.runs.result import Moment
from peftlab.runs.result_parts import Amount, Count, Estimate, ResultRecord

SCHEMA_VERSION = 1
FILE_NAME = "certificate.json"
SUMS = "SHA256SUMS"
REFERENCE = "reference.safetensors"
"""Made-up token ids and the logits that run and export gave on them."""

DECODING = "decoding.safetensors"
"""What makes answers of logits, where the labels alone do not: a tagger's scores of one tag behind another."""

Dtype = Literal["fp32", "bf16", "fp16", "int8"]
Share = Annotated[float, Field(ge=0, le=1)]


class EncoderOfExport(ResultRecord):
    """The encoder that the run was trained on; `folder` only where it is a local one."""

    used: str
    revision: str | None
    sha256: str
    folder: str | None
    pooling: Literal["native", "mean", "cls"]
    dtype: str
    load_in: str
    license: str | None


class Exported(ResultRecord):
    """What lies in the folder and how texts are given to it."""

    format: str
    """Exporter, by its file's name."""
    dtype: Dtype
    """Type of the stored weights."""
    method: str
    """Method of the run."""
    task: str
    """Task of the run."""
    labels: tuple[str, ...]
    """Label names in the order of the logits."""
    multi_label: bool
    """A text may have any number of labels."""
    threshold: float
    """Multi-label: probability from which a label is predicted."""
    text_column: str
    """Column of the text in files given to `predict`."""
    pair_column: str | None
    """Column of the second text, for pairs; null for single texts."""
    max_length: Count
    """Tokens kept of each text, special tokens included."""
    batch_size: Count
    """Rows of a forward pass in `predict`."""
    merged: bool
    """The adapter was merged into the weights; false where there is none, or it is kept beside them."""
    loads_with: tuple[str, ...]
    """Packages that load it, besides the tokenizer's; `peftlab` among them where plain libraries cannot."""
    encoder: EncoderOfExport
    """The encoder of the run."""
    each_token: bool = False
    """It gives logits for every token, rather than for a text."""
    settings: dict[str, JsonValue] = Field(default={})
    """Settings of the task, which predicting may need."""


class Limits(ResultRecord):
    """What the export had to keep; null: not asked."""

    max_drift: Amount | None
    """Largest absolute difference of a logit, relative to the largest logit where that is above 1."""
    max_drop: Amount | None
    """Largest loss of the test metric."""


class Drift(ResultRecord):
    """Logits of the export against those of the run, on the test split."""

    max: Amount
    """Largest absolute difference of a logit."""
    mean: Amount
    """Mean absolute difference."""
    largest_logit: Amount
    """Largest absolute logit of the run, to read the differences by."""
    flips: Count
    """Rows whose prediction changed."""
    rows: Count
    """Rows compared."""


class MetricChange(ResultRecord):
    """The test metric before and after, with two paired tests.

    McNemar's, exact, on the rows that only one of both gets wholly right; the bootstrap of the metric's own difference.
    """

    name: str
    before: float
    after: float
    only_run_right: Count
    only_export_right: Count
    p_value: Share
    """Two-sided, of a difference as large as this where neither is better (McNemar 1947, exact binomial form)."""
    rows: Count
    difference: Estimate | None = None
    """`after` minus `before`, with its 95 % interval from resampling rows, both models' together."""


class Speed(ResultRecord):
    """Measured on this machine, forward pass and padding, without tokenising."""

    batch_1_p50_ms: Amount
    batch_1_p95_ms: Amount
    batch_1_calls: Count
    batch_32_rows_per_second: Amount
    batch_32_calls: Count
    mean_tokens: Amount
    threads: Count
    processor: str


class Reference(ResultRecord):
    """The rows that `verify` computes again: made-up token ids, so that no text of the data leaves with the export."""

    rows: Count
    from_run: Amount
    """Largest absolute difference between run and export on these rows."""
    tolerance: Amount
    """Largest difference from the export's own logits that `verify` lets pass, for other machines' arithmetic."""


class Certificate(ResultRecord):
    """One export."""

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    exported: Exported
    limits: Limits
    drift: Drift
    metric: MetricChange
    reference: Reference
    speed: Speed
    size_bytes: Count
    """Bytes of all files but certificate and sums."""
    recipe_name: str
    recipe_hash: str
    """SHA-256 of the resolved recipe."""
    data_fingerprint: str
    """SHA-256 over ids, texts, pairs and labels of the three splits."""
    versions: dict[str, str]
    notes: tuple[str, ...]
    files: dict[str, str]
    """SHA-256 of every file but certificate and sums, by its path in the folder."""
    created: Moment


def write_certificate(folder: Path, certificate: Certificate) -> None:
    """Write the certificate and, last, the sums of all files into `folder`."""
    values = json.dumps(certificate.model_dump(mode="json"), ensure_ascii=False, indent=2, allow_nan=False)
    write_text(folder / FILE_NAME, values + "\n")
    sums = {**certificate.files, FILE_NAME: file_hash(folder / FILE_NAME)}
    write_text(folder / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sums.items()))


def read_certificate(folder: Path) -> Certificate:
    """Return the certificate of the export in `folder`; RunError where there is none, or another version wrote it."""
    path = folder / FILE_NAME
    if not path.is_file():
        raise RunError(f"{folder} has no {FILE_NAME}: it is not an export of peftlab")
    try:
        return Certificate.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValueError, ValidationError) as error:
        first = str(error).splitlines()
        raise RunError(f"{path} is not a certificate of this version of peftlab: {' '.join(first[1:3])}") from error


def is_export(folder: Path) -> bool:
    """Say whether `folder` holds an export rather than a run."""
    return (folder / FILE_NAME).is_file() or (folder / SUMS).is_file()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below `folder` but certificate and sums, by its path; hidden files are left out.

    Hubs and file systems keep hidden files of their own (`.gitattributes`, `.cache`), which no loader reads.
    """
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    shown = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    return {name.as_posix(): file_hash(folder / name) for name in shown if name.as_posix() not in (FILE_NAME, SUMS)}


def broken_file(folder: Path) -> str | None:
    """Return a sentence naming the first file that is not as it was written, or None where all are."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    except (OSError, UnicodeDecodeError) as error:
        return f"{SUMS} cannot be read ({type(error).__name__})"
    found = file_hashes(folder)
    if (folder / FILE_NAME).is_file():
        found[FILE_NAME] = file_hash(folder / FILE_NAME)
    for name in sorted(sums.keys() | found.keys()):
        if name not in found:
            return f"{name} is missing"
        if name not in sums:
            return f"{name} is not one of the export's files"
        if found[name] != sums[name]:
            return f"{name} is not as it was written (SHA-256 {found[name][:12]}, expected {sums[name][:12]})"
    listed = read_certificate(folder).files
    strange = sorted(
        name for name in listed.keys() | sums.keys() if name != FILE_NAME and listed.get(name) != sums.get(name)
    )
    return f"{SUMS} and {FILE_NAME} disagree on {strange[0]}" if strange else None
