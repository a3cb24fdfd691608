"""What is particular to a tagger's export: its tags are decoded with what lies in the folder; `verify` knows that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from export_cases import FORMATS, Export, Run, tagger
from safetensors.numpy import load_file, save_file

from peftlab import predict, verify
from peftlab.encoders.onnx_graph import OPSET
from peftlab.evaluation.several import Row
from peftlab.runs.certificate import file_hash, read_certificate, write_certificate
from peftlab.serving.models import Models

LORA = tagger("lora")
TEXTS = ["Where is  my parcel, please?", "card refund", "...", "the parcel is late " * 40]


def entities(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[Any]:
    """Return what `predict` finds in TEXTS."""
    capsys.readouterr()
    texts = [word for text in TEXTS for word in ("--text", text)]
    assert predict.main([str(folder), *texts, "--json"]) == 0
    return [json.loads(line)["entities"] for line in capsys.readouterr().out.splitlines()]


def test_every_format_finds_the_entities_of_the_run_at_the_same_places(
    finished_run: Run, exported: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    """Text longer than a window included; an 8-bit graph may find others, but as many answers of the same form.

    A server answers the same from one.
    """
    of_run = entities(finished_run(LORA), capsys)
    models = Models()
    models.load("tags", exported(LORA, "onnx"))
    assert [row["entities"] for row in models.answer([Row("tags", text) for text in TEXTS])] == of_run
    assert any(of_run)
    for to in FORMATS:
        found = entities(exported(LORA, to), capsys)
        if to != "onnx_int8":
            assert found == of_run, to
        for text, some in zip(TEXTS, found, strict=True):
            assert all(text[one["start"] : one["end"]] == one["text"] for one in some)


def test_the_graph_gives_logits_of_any_number_of_pieces_and_states_its_opset(exported: Export) -> None:
    graph = onnx.load(exported(LORA, "onnx") / "model.onnx")
    assert [one.version for one in graph.opset_import if one.domain == ""] == [OPSET]
    sizes = [
        dimension.dim_param or dimension.dim_value for dimension in graph.graph.output[0].type.tensor_type.shape.dim
    ]
    assert sizes == ["batch", "tokens", 5]
    assert not [one.name for one in graph.graph.initializer if "crf" in one.name]


def test_the_folder_holds_what_the_crf_learned_with_infinities_where_iob2_forbids(
    finished_run: Run, exported: Export
) -> None:
    folder = exported(LORA, "adapter")
    (weights,) = (finished_run(LORA) / "trained").glob("*.safetensors")
    learned = load_file(weights)["base_model.model.crf.transitions"]
    shipped = load_file(folder / "decoding.safetensors")["transitions"]
    names = read_certificate(folder).exported.labels
    forbidden = np.isneginf(shipped)
    assert [(names[row], names[column]) for row, column in np.argwhere(forbidden)][:2] == [
        ("O", "I-logistics"),
        ("O", "I-payment"),
    ]
    assert np.array_equal(shipped[~forbidden], learned[~forbidden])
    assert not [name for name in load_file(folder / "adapter_model.safetensors") if "crf" in name]
    assert "decoding.safetensors" in read_certificate(folder).files


@pytest.mark.parametrize("to", ["merged", "onnx"])
def test_a_decoding_that_is_not_the_runs_is_caught_though_every_hash_fits(
    to: str, exported: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And one that is gone: `predict` refuses, rather than decode without it."""
    folder = tmp_path / "copy"
    shutil.copytree(exported(LORA, to), folder)
    path, certificate = folder / "decoding.safetensors", read_certificate(folder)
    whole = load_file(path)
    save_file(whole | {"transitions": np.minimum(whole["transitions"], 0)}, path)
    capsys.readouterr()
    assert verify.main([str(folder)]) == 1
    assert "decoding.safetensors is not as it was written" in capsys.readouterr().out
    files = certificate.files | {path.name: file_hash(path)}
    write_certificate(folder, certificate.model_copy(update={"files": files}))
    assert verify.main([str(folder)]) == 1
    assert "does not decode as its run did" in capsys.readouterr().out
    path.unlink()
    assert predict.main([str(folder), "--text", "parcel"]) == 2
    assert "lacks decoding.safetensors" in capsys.readouterr().err
