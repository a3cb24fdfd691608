"""Half precision, an 8-bit encoder, the pipeline, pairs of formats, changed data, the hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch
from export_cases import Case, Export, Run
from safetensors.torch import load_file

from peftlab import export, merge, train
from peftlab.runs.certificate import read_certificate

LORA = Case("lora", pooling="native")


@pytest.mark.parametrize(("to", "dtype"), [("merged", "bf16"), ("merged", "fp16"), ("onnx", "fp16")])
def test_half_precision_halves_the_weights_and_is_held_to_the_metric(
    to: str, dtype: str, finished_run: Run, exported: Export, tmp_path: Path
) -> None:
    """No drift limit by itself; the certificate says how far it is."""
    out = tmp_path / "half"
    assert export.main([str(finished_run(LORA)), "--to", to, "--dtype", dtype, "--out", str(out)]) == 0
    half, full = read_certificate(out), read_certificate(exported(LORA, to))

    assert (half.exported.dtype, half.limits.max_drift) == (dtype, None)
    assert 0 < half.drift.max < 0.02
    assert full.drift.max < half.drift.max
    assert half.size_bytes < full.size_bytes
    if to == "merged":
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
        assert {value.dtype for value in load_file(out / "model.safetensors").values()} == {kind}
    else:
        weights = onnx.load(out / "model.onnx").graph.initializer
        assert {value.data_type for value in weights} == {onnx.TensorProto.FLOAT16}


def test_merge_is_export_to_merged_and_the_pipeline_reads_it(finished_run: Run, tmp_path: Path) -> None:
    """Label names come from the configuration; the scores are the softmax of the run's logits."""
    from transformers import pipeline

    from peftlab.evaluation.predictor import load_predictor

    out = tmp_path / "merged"
    assert merge.main([str(finished_run(LORA)), "--out", str(out)]) == 0
    expected = load_predictor(finished_run(LORA)).rows(["where is my parcel"])[0]["probabilities"]
    answers = pipeline("text-classification", model=str(out), device="cpu", top_k=None)(["where is my parcel"])[0]

    assert {answer["label"]: answer["score"] for answer in answers} == pytest.approx(expected, abs=1e-5)
    assert read_certificate(out).exported.merged
    tensors = load_file(out / "model.safetensors")
    assert not [name for name in tensors if "lora" in name or "base_layer" in name]


def test_an_adapter_on_8_bit_weights_is_merged_into_what_they_are_read_back_as(
    tiny_recipe: Callable[..., Path], tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Merged weight minus the update is the 8-bit weight read back, not the encoder's own; the certificate says so."""
    from bitsandbytes.functional import int8_vectorwise_quant

    run, out = tmp_path / "run", tmp_path / "merged"
    words = ["encoder.load_in=int8", "train.learning_rate=5e-3", f"run.dir={run}"]
    assert train.main([str(tiny_recipe()), *words]) == 0
    assert merge.main([str(run), "--out", str(out), "--max-drop", "0.2"]) == 0
    name = "encoder.layer.0.attention.self.query"
    adapter = load_file(run / "trained" / "adapter_model.safetensors")
    down, up = (adapter[f"base_model.model.encoder.{name}.lora_{letter}.weight"] for letter in "AB")
    base = load_file(out / "model.safetensors")[f"{name}.weight"] - 2.0 * up @ down  # alpha 16 over r 8
    own = load_file(tiny_encoder() / "model.safetensors")[f"{name}.weight"]
    rounded, scale, _ = int8_vectorwise_quant(own.half())

    assert torch.allclose(base, rounded * scale.unsqueeze(1) / 127, atol=1e-6)
    assert not torch.allclose(base, own, atol=1e-6)
    certificate = read_certificate(out)
    assert "read back from int8" in certificate.notes[0]
    assert certificate.limits.max_drift is None
    assert certificate.drift.max < 0.1 * certificate.drift.largest_logit


def test_data_that_changed_since_the_run_are_refused(
    tiny_recipe: Callable[..., Path],
    tiny_tickets: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The metric before and after would be of other rows."""
    import shutil

    data = tmp_path / "data"
    shutil.copytree(tiny_tickets(), data)
    files = "\n".join(f'{split} = "{data / split}.jsonl"' for split in ("train", "validation", "test"))
    run = tmp_path / "run"
    assert train.main([str(tiny_recipe("head", data=files)), f"run.dir={run}"]) == 0
    rows = (data / "test.jsonl").read_text("utf-8").splitlines()
    (data / "test.jsonl").write_text("\n".join(rows[1:]) + "\n", encoding="utf-8")
    capsys.readouterr()

    assert export.main([str(run), "--to", "merged", "--out", str(tmp_path / "out")]) == 2
    assert "fingerprints differ" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_without_an_encoder_has_no_export(
    tiny_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train.main([str(tiny_recipe("tfidf")), f"run.dir={run}"]) == 0
    assert export.main([str(run), "--to", "onnx", "--out", str(tmp_path / "out")]) == 2
    assert "has no encoder" in capsys.readouterr().err


def test_an_upload_takes_the_whole_folder_to_a_private_repository(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against a stub of the hub; the card's front matter is what the hub reads."""
    asked: list[tuple[str, dict[str, object]]] = []

    class Hub:
        def create_repo(self, name: str, **options: object) -> object:
            asked.append((name, options))
            return SimpleNamespace(repo_id=name, __str__=lambda: name)

        def upload_folder(self, **options: object) -> None:
            asked.append(("upload", options))
            assert (Path(str(options["folder_path"])) / "certificate.json").is_file()

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    out = tmp_path / "out"
    words = ["--to", "merged", "--out", str(out), "--push-to-hub", "me/tickets"]
    assert export.main([str(finished_run(LORA)), *words]) == 0
    assert asked[0] == ("me/tickets", {"private": True, "exist_ok": True})
    assert asked[1][1]["repo_id"] == "me/tickets"
    front = (out / "README.md").read_text("utf-8").split("---")[1]
    values = {key: json.loads(value) for key, _, value in (line.partition(": ") for line in front.strip().splitlines())}
    assert (values["library_name"], values["pipeline_tag"]) == ("transformers", "text-classification")


def test_a_hub_that_refuses_leaves_the_export_and_says_so(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Hub:
        def create_repo(self, *_: object, **__: object) -> object:
            raise PermissionError("401 Unauthorized")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    out = tmp_path / "out"
    words = ["--to", "adapter", "--out", str(out), "--push-to-hub", "me/tickets"]
    assert export.main([str(finished_run(LORA)), *words]) == 2
    assert "401 Unauthorized" in capsys.readouterr().err
    assert read_certificate(out).exported.format == "adapter"
