"""What is not as it was written is caught and named: by its hash, and by what it computes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from export_cases import FORMATS, Case, Export, Run, tagger
from safetensors.torch import load_file, save_file

from peftlab import export, verify
from peftlab.runs.certificate import file_hash, read_certificate, write_certificate

LORA = Case("lora", pooling="native")


@pytest.fixture
def copy_of(exported: Export, tmp_path: Path) -> Export:
    """Return `make(case, format)`, a copy of an export that may be changed."""

    def make(case: Case, to: str) -> Path:
        folder = tmp_path / f"copy-{to}"
        shutil.copytree(exported(case, to), folder)
        return folder

    return make


def verdict(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Return exit code and sentence of `verify`."""
    capsys.readouterr()
    code = verify.main([str(folder), *words])
    return code, capsys.readouterr().out.strip()


def sign_anew(folder: Path, name: str) -> None:
    """Write certificate and sums as if the file had been made so: only its logits can tell."""
    certificate = read_certificate(folder)
    files = {**certificate.files, name: file_hash(folder / name)}
    write_certificate(folder, certificate.model_copy(update={"files": files}))


def without_layer(path: Path, layer: int, like: Path | None) -> None:
    """Put a layer's adapter to nothing: zeros in an adapter file, the encoder's own weights in a whole model."""
    tensors = load_file(path)
    own = load_file(like) if like is not None else {}
    changed = [name for name in tensors if f"layer.{layer}." in name]
    assert changed
    for name in changed:
        tensors[name] = own[name.removeprefix("bert.")] if like is not None else tensors[name] * 0
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(("case", "to"), [*((LORA, to) for to in FORMATS), (tagger("lora"), "onnx")], ids=str)
def test_one_flipped_byte_in_any_file_is_caught_and_the_file_named(
    case: Case, to: str, copy_of: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the weights, the tokenizer, the card, the reference rows, the certificate and the sums themselves."""
    folder = copy_of(case, to)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        code, sentence = verdict(folder, capsys)
        assert code == 1, path
        assert path.name in sentence or path.name == "SHA256SUMS"
        assert len(sentence.splitlines()) == 1
        path.write_bytes(whole)

    assert verdict(folder, capsys)[0] == 0


def test_a_missing_and_an_added_file_are_named(copy_of: Export, capsys: pytest.CaptureFixture[str]) -> None:
    """Files that hubs add under hidden names are none of the export's."""
    folder = copy_of(LORA, "merged")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n", encoding="utf-8")
    assert verdict(folder, capsys)[0] == 0
    (folder / "pytorch_model.bin").write_bytes(b"?")
    assert "pytorch_model.bin is not one of the export's files" in verdict(folder, capsys)[1]
    (folder / "pytorch_model.bin").unlink()
    (folder / "config.json").unlink()

    assert verdict(folder, capsys) == (1, f"{folder} is not whole: config.json is missing")


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize(("to", "file"), [("adapter", "adapter_model.safetensors"), ("merged", "model.safetensors")])
def test_a_layers_adapter_left_out_shows_in_the_logits(
    to: str, file: str, layer: int, copy_of: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even where all hashes are those of the wrong file, and without run or data."""
    folder = copy_of(LORA, to)
    encoder = Path(str(read_certificate(folder).exported.encoder.folder)) / "model.safetensors"
    without_layer(folder / file, layer, encoder if to == "merged" else None)
    sign_anew(folder, file)
    code, sentence = verdict(folder, capsys)

    assert code == 1
    assert "does not compute what it did when it was made" in sentence


WITHOUT_A_LAYER = (
    *((Case("lora"), to) for to in ("adapter", "merged", "onnx", "openvino")),
    *((Case("lora", settings=("method.dora=true",)), to) for to in ("adapter", "merged", "onnx")),
    *((Case("adalora", settings=("train.learning_rate=2e-2",)), to) for to in ("adapter", "merged", "onnx")),
    *((Case("ia3"), to) for to in ("adapter", "merged", "onnx")),
    *((Case("bottleneck"), to) for to in ("adapter", "onnx")),
    *((Case("full"), to) for to in ("merged", "onnx")),
    *((tagger("lora"), to) for to in ("adapter", "merged", "openvino")),
    (tagger("bottleneck"), "onnx"),
)


@pytest.mark.parametrize(("case", "to"), WITHOUT_A_LAYER, ids=str)
def test_an_export_made_without_a_layers_adapter_does_not_compute_what_the_certificate_says(
    case: Case,
    to: str,
    finished_run: Run,
    copy_of: Export,
    tiny_encoder: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whole and well formed, with hashes to match, but made of a run whose second layer has no adapter."""
    run = tmp_path / "run"
    shutil.copytree(finished_run(case), run)
    (path,) = (run / "trained").glob("*.safetensors")
    tensors = load_file(path)
    own = load_file(tiny_encoder() / "model.safetensors")
    names = [name for name in tensors if "layer.1." in name and "magnitude" not in name]
    assert names
    for name in names:
        if case.method == "full":
            tensors[name] = own[name[name.index("encoder.layer") :]]
        else:
            tensors[name] = tensors[name] * 0 + (1.0 if case.method == "ia3" else 0.0)  # IA3 multiplies
    save_file(tensors, path, metadata={"format": "pt"})
    wrong, folder = tmp_path / "wrong", copy_of(case, to)
    assert export.main([str(run), "--to", to, "--out", str(wrong), "--max-drop", "inf", "--max-drift", "inf"]) == 0
    certificate = read_certificate(folder)
    for name in certificate.files:
        if name not in ("README.md", "reference.safetensors"):
            shutil.copy2(wrong / name, folder / name)
            sign_anew(folder, name)
    code, sentence = verdict(folder, capsys)

    assert code == 1
    assert "does not compute what it did when it was made" in sentence


def test_an_adapter_file_that_lacks_a_layer_does_not_load(copy_of: Export, capsys: pytest.CaptureFixture[str]) -> None:
    """Instead, peft would warn and go on with random weights."""
    folder = copy_of(LORA, "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    kept = {name: value for name, value in tensors.items() if "layer.1." not in name}
    save_file(kept, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    sign_anew(folder, "adapter_model.safetensors")
    code, sentence = verdict(folder, capsys)

    assert code == 1
    assert "does not fit the encoder" in sentence


def test_verify_prints_json_and_compares_with_the_run(
    exported: Export, finished_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --run drift and metric are measured again on the run's own test rows; another run is refused."""
    folder = exported(LORA, "onnx")
    code, text = verdict(folder, capsys, "--json", "--run", str(finished_run(LORA)))
    found = json.loads(text)

    assert (code, found["ok"]) == (0, True)
    assert found["from_export"] <= 1e-5
    assert found["from_run"] <= 1e-4
    assert "on 24 test rows" in found["sentence"]
    code, text = verdict(folder, capsys, "--run", str(finished_run(Case("lora"))))
    assert code == 1
    assert "is not the one that was exported" in text


def test_the_sums_are_those_that_sha256sum_reads(exported: Export) -> None:
    """Hash, two spaces, name; every file but the sums, the certificate included."""
    folder = exported(LORA, "merged")
    sums = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text("utf-8").splitlines())
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    assert set(sums) == files - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_no_text_of_the_data_leaves_with_an_export(exported: Export, finished_run: Run) -> None:
    """The reference rows are made-up tokens; no test row is among them, and no file quotes one."""
    folder = exported(LORA, "onnx")
    rows = (finished_run(LORA).parent / "tiny.toml").read_text("utf-8")
    tickets = Path(rows.partition('test = "')[2].partition('"')[0])
    texts = [json.loads(line)["text"] for line in tickets.read_text("utf-8").splitlines()]
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())

    assert not [text for text in texts if text.encode() in content]
    reference = load_file(folder / "reference.safetensors")
    assert {"input_ids", "run_logits", "export_logits"} <= set(reference)
    assert len(reference["starts"]) == 17


def test_a_folder_that_is_no_export_is_the_users_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(tmp_path)]) == 2
    assert "is not an export of peftlab" in capsys.readouterr().err
    assert verify.main([str(tmp_path / "gone")]) == 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--to", "merged", "--max-drift", "0"], "its logits are up to "),
        (["--to", "onnx", "--dtype", "bf16"], "fp32 or fp16"),
        (["--to", "onx"], "did you mean 'onnx'?"),
        (["--to", "onnx-int8", "--max-drift", "1e-9"], "raise --max-drift"),
    ],
)
def test_a_refused_export_leaves_nothing_behind(
    words: list[str], reason: str, finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, exit code 2, and a folder as empty as before."""
    assert export.main([str(finished_run(LORA)), *words, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_metric_below_the_threshold_refuses(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An export whose predictions are all of one label loses accuracy; drift alone is let pass here."""
    import numpy as np

    from peftlab.exporters import merged

    def broken(folder: Path, exported: object) -> object:
        return lambda inputs: np.repeat(np.asarray([[0.0, 0.0, 9.0]], np.float32), len(inputs["input_ids"]), 0)

    monkeypatch.setattr(merged, "load", broken)
    run = finished_run(Case("probe"))
    assert export.main([str(run), "--to", "merged", "--out", str(tmp_path / "out"), "--max-drift", "inf"]) == 2
    assert "test accuracy falls from" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_export_never_overwrites(finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "note.txt").write_text("mine", encoding="utf-8")
    assert export.main([str(finished_run(LORA)), "--to", "merged", "--out", str(tmp_path)]) == 2
    assert "already holds files" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_an_absent_package_is_no_verdict(
    exported: Export, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says nothing of the export; the sentence has the line that installs it."""
    folder = exported(LORA, "onnx")
    monkeypatch.setattr("peftlab.shipping.loading.find_spec", lambda name: None if name == "onnxruntime" else True)
    assert verify.main([str(folder)]) == 2
    assert 'pip install "peftlab[onnx]"' in capsys.readouterr().err
