"""Whether an export is what its certificate says: its files, then its logits, computed again on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from peftlab.errors import MissingPackage, PeftlabError
from peftlab.runs.certificate import DECODING, FILE_NAME, broken_file, read_certificate
from peftlab.shipping.decoding import read_decoding, same_decoding
from peftlab.shipping.loading import load_forward, shown
from peftlab.shipping.reference import read_reference, reference_differences


@dataclass(frozen=True)
class Verdict:
    """One sentence, and what it rests on. Differences are None where the check ended before them.

    `from_export`: largest difference of a logit from what the export gave when it was made; `from_run`: from the run.
    """

    ok: bool
    sentence: str
    from_export: float | None = None
    from_run: float | None = None


def verify_export(folder: Path, run: Path | None = None) -> Verdict:
    """Check hashes, then logits on the export's own rows, then, with `run`, drift and metric on that run's test rows.

    What is wrong is a verdict. Raised are only RunError, without a certificate, and MissingPackage.
    """
    if not (folder / FILE_NAME).is_file():
        read_certificate(folder)
    try:
        broken = broken_file(folder)
        if broken is not None:
            return Verdict(False, f"{folder} is not whole: {broken}")
        return _logits(folder, run)
    except MissingPackage:
        raise
    except PeftlabError as error:
        return Verdict(False, f"{folder} does not verify: {error}")


def _logits(folder: Path, run: Path | None) -> Verdict:
    certificate = read_certificate(folder)
    exported, allowed = certificate.exported, certificate.reference.tolerance
    forward = load_forward(folder, exported)
    rows, decoding = read_reference(folder), read_decoding(folder)
    from_export, from_run = reference_differences(rows, forward)
    if not from_export <= allowed:
        sentence = (
            f"{folder} does not compute what it did when it was made: a logit of its reference rows is off by "
            f"{from_export:.3g}, allowed is {allowed:.3g}"
        )
        return Verdict(False, sentence, from_export, from_run)
    if not same_decoding(rows.decoding, decoding):
        return Verdict(False, f"{folder} does not decode as its run did: {DECODING} is another", from_export, from_run)
    also = ""
    if run is not None:
        from peftlab.shipping.exporting import compare_again

        drift, metric = compare_again(run, (forward, decoding), certificate)
        also = (
            f"; on {metric.rows:,} test rows of {run}: largest drift {drift.max:.3g}, {drift.flips} flips, "
            f"{metric.name} {metric.before:.4f} before and {metric.after:.4f} after"
        )
    files = len(certificate.files) + 1
    sentence = (
        f"{folder} verifies: {files} files as they were written, and {shown(exported.format)} gives its logits again, "
        f"off by {from_export:.3g} at most on {certificate.reference.rows} reference rows{also}"
    )
    return Verdict(True, sentence, from_export, from_run)
