"""Every method in every format that takes it: found by themselves, loaded elsewhere, within the certificate."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_cases import ATTACHING, CASES, CORE, FORMATS, MATRIX, Case, Export, Run

from peftlab import export, predict, verify
from peftlab.encoders.merging import CannotMerge, merge
from peftlab.evaluation.forward import as_forward
from peftlab.evaluation.predictor import load_predictor
from peftlab.evaluation.run_model import load_run_model
from peftlab.recipe.plugins import load_plugin
from peftlab.runs.certificate import read_certificate
from peftlab.runs.folder import run_recipe

TEXTS = ["where is my parcel", "refund the invoice please", "screen"]

# Runs the Python of each export's own README in one process that cannot import peftlab.
PLAIN_PROCESS = """
import json, sys, warnings
warnings.simplefilter("ignore")
sys.modules["peftlab"] = None
for code in json.load(sys.stdin):
    names = {}
    exec(code, names)
    print(json.dumps([names["logits"].tolist(), names.get("tags")]))
assert sys.modules["peftlab"] is None
"""


def usable(case: Case, run: Path, to: str) -> bool:
    """Say whether the format takes the method: peft's format needs an adapter, a plain model one that merges."""
    takes = load_plugin("exporters", to).TAKES
    has_adapter = (run / "trained" / "adapter_config.json").is_file()
    return takes == "any" or (has_adapter if takes == "adapters" else not has_adapter or merges(case, run))


def merges(case: Case, run: Path) -> bool:
    """Say whether the adapter is a change of weights: as its file says, else as trying shows."""
    stated: bool | None = getattr(load_plugin("methods", case.method), "MERGES", None)
    if stated is not None:
        return stated
    try:
        merge(load_run_model(run, torch.device("cpu")).module)
    except CannotMerge:
        return False
    return True


def logits_of_run(run: Path) -> Any:
    """Return the run's own logits of TEXTS; of a tagger [texts, tokens, tags], zeros behind the end of a text."""
    if run_recipe(run).task.name == "classification":
        return load_predictor(run).logits(TEXTS, None)
    model = load_run_model(run, torch.device("cpu"))
    inputs = model.tokenizer(TEXTS, padding=True, return_tensors="np")
    logits = as_forward(model.module, torch.device("cpu"))(inputs)
    return logits * inputs["attention_mask"][..., None]


def tags_of_run(run: Path) -> list[list[str]]:
    """Return the tags that the run gives the words of TEXTS."""
    tagger = load_predictor(run).tagger
    return [list(tags) for tags in tagger([text.split() for text in TEXTS])]


def test_lora_merges(finished_run: Run) -> None:
    """What may be refused is not refused for all."""
    assert all(usable(case, finished_run(case), "merged") for case in CASES if case.method in ("lora", "full", "head"))


def test_methods_and_formats_are_found() -> None:
    assert {"adapter", "merged", "onnx", "onnx_int8", "openvino"} <= set(FORMATS)
    assert {"lora", "full", "head", "probe"} <= set(ATTACHING)


@pytest.mark.parametrize(("case", "to"), MATRIX, ids=str)
def test_an_export_is_within_its_certificate_and_verifies(
    case: Case, to: str, finished_run: Run, exported: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or the method has no such export, and the sentence says which formats it has."""
    if not usable(case, finished_run(case), to):
        capsys.readouterr()
        assert export.main([str(finished_run(case)), "--to", to, "--out", str(tmp_path / "x")]) == 2
        assert "formats that work: " in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []
        return
    folder = exported(case, to)
    certificate = read_certificate(folder)
    limit = {"adapter": 0.0, "merged": 1e-5, "onnx": 1e-4, "openvino": 1e-4}.get(to)

    assert certificate.exported.format == to
    assert certificate.drift.rows == certificate.metric.rows == (16 if case.task == "tagging" else 24)
    changed = certificate.metric.difference
    assert changed is not None
    assert changed.low <= changed.value <= changed.high
    assert changed.value == pytest.approx(certificate.metric.after - certificate.metric.before)
    # The certificate's limit grows with the logits; here it is nearly the absolute one, which is held below.
    assert 0 < certificate.drift.largest_logit < 2
    if limit is not None and certificate.exported.dtype == "fp32":
        assert certificate.drift.max <= limit
        assert certificate.reference.from_run <= limit
        assert certificate.drift.flips == 0
    assert certificate.size_bytes == sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("README.md", "SHA256SUMS", "certificate.json")
    )
    capsys.readouterr()
    assert verify.main([str(folder)]) == 0
    assert capsys.readouterr().out.startswith(f"{folder} verifies: ")


@pytest.fixture(scope="module")
def plain_logits(
    finished_run: Run, exported: Export, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[Case, str], Any]:
    """Return the logits of TEXTS that each export's README computes without peftlab, from another folder, and tags."""
    keys = [(case, to) for case, to in MATRIX if usable(case, finished_run(case), to)]
    keys = [key for key in keys if "peftlab" not in read_certificate(exported(*key)).exported.loads_with]
    codes = []
    for key in keys:
        folder = exported(*key)
        (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), flags=re.DOTALL)
        asked = code.replace('folder = "."', f"folder = {str(folder)!r}")
        codes.append(asked.replace('texts = ["...", "..."]', f"texts = {TEXTS!r}"))
        assert codes[-1].count(repr(TEXTS)) == 1
    done = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN_PROCESS],
        input=json.dumps(codes),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path_factory.mktemp("elsewhere"),
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(keys, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_format_loads_in_a_process_without_peftlab(
    case: Case, plain_logits: dict[tuple[Case, str], Any], finished_run: Run
) -> None:
    """By the code of its own README: fp32 weights within 1e-5, graphs within 1e-4, 8 bit within a tenth."""
    truth = logits_of_run(finished_run(case))
    formats = [to for other, to in plain_logits if other == case]

    assert set(formats) >= ({"onnx", "onnx_int8", "openvino"} if case.method in CORE else {"onnx"})
    for to in formats:
        logits, tags = plain_logits[case, to]
        drift = np.abs(np.asarray(logits)[truth != 0] - truth[truth != 0]).max()
        limit = {"merged": 1e-5, "adapter": 1e-5, "onnx": 1e-4, "openvino": 1e-4}.get(
            to, 0.1 * float(np.abs(truth).max())
        )
        assert drift <= limit, (to, drift)
        if case.task == "tagging" and to != "onnx_int8":
            assert tags == tags_of_run(finished_run(case)), to


@pytest.mark.parametrize("case", [Case("lora"), Case("full")], ids=str)
def test_predict_answers_the_same_from_a_run_and_from_every_format(
    case: Case,
    finished_run: Run,
    exported: Export,
    tiny_tickets: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One interface: the same labels; probabilities within 1e-4, in 8 bit within 0.02."""

    def answers(folder: Path) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert predict.main([str(folder), str(tiny_tickets() / "test.jsonl"), "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    of_run = answers(finished_run(case))
    assert len(of_run) == 24
    for to in FORMATS:
        if not usable(case, finished_run(case), to):
            continue
        folder = exported(case, to)
        within = 2e-2 if read_certificate(folder).exported.dtype == "int8" else 1e-4
        for before, after in zip(of_run, answers(folder), strict=True):
            assert set(after) == {"label", "probabilities"}
            assert after["probabilities"] == pytest.approx(before["probabilities"], abs=within)
            assert within > 1e-4 or after["label"] == before["label"]
