"""`result.json`: what is written is read back, and what is not a result is said in a sentence."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import pytest
from pydantic import ValidationError

from peftlab.errors import RunError
from peftlab.evaluation.classification_scores import score_classification
from peftlab.runs.result import SCHEMA_VERSION, Result, read_result, scored, write_result
from peftlab.runs.result_parts import (
    DataUsed,
    EncoderUsed,
    Metrics,
    Parameters,
    RecipeUsed,
    ResultRecord,
    RoundTrip,
    Seconds,
)

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "result.md"
MOMENT = datetime(2026, 1, 31, 10, 15, tzinfo=UTC)


def fields_of_a_failure() -> dict[str, Any]:
    return {
        "status": "failed",
        "reason": "the disk is full",
        "recipe": RecipeUsed(name="lora_minilm", hash="0" * 64),
        "task": "classification",
        "method": "lora",
        "seconds": Seconds(total=1.5, cpu=1.0),
        "seeds": {"train": 0},
        "versions": {"python": "3.11.7"},
        "started": MOMENT,
        "finished": MOMENT,
    }


def fields_of_a_success() -> dict[str, Any]:
    logits = np.random.default_rng(0).normal(size=(30, 3))
    labels = np.random.default_rng(1).integers(0, 2, 30)
    told = scored(score_classification(logits, labels, ["a", "b", "c"], multi_label=False).to_dict())
    return fields_of_a_failure() | {
        "status": "ok",
        "reason": None,
        "encoder": EncoderUsed(requested="org/encoder", used="bundled:minilm-en"),
        "stand_in": True,
        "data": DataUsed(
            fingerprint="1" * 64, source={"used": "files"}, rows={"train": 9, "validation": 3, "test": 30}
        ),
        "metrics": Metrics(validation={"accuracy": 0.5}, test=told.metrics),
        "scores": told.scores,
        "parameters": Parameters(trainable=10, total=1000, embedding=600, shipped_bytes=4000),
        "round_trip": RoundTrip(max_logit_difference=0.0, rows=30),
    }


@pytest.mark.parametrize("fields", [fields_of_a_failure, fields_of_a_success])
def test_what_is_written_is_read_back(tmp_path: Path, fields: Any) -> None:
    result = Result(**fields())
    path = write_result(tmp_path, result)
    assert path == tmp_path / "result.json"
    assert read_result(tmp_path) == result


def test_scripts_find_the_documented_keys(tmp_path: Path) -> None:
    write_result(tmp_path, Result(**fields_of_a_success()))
    content = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert content["schema_version"] == SCHEMA_VERSION
    assert content["status"] == "ok"
    for name in ("accuracy", "macro_f1"):
        assert set(content["metrics"]["test"][name]) == {"value", "low", "high", "n"}
    assert content["parameters"]["trainable"] == 10
    assert {"total", "shipped_bytes", "embedding"} < set(content["parameters"])
    assert (content["encoder"]["requested"], content["encoder"]["used"]) == ("org/encoder", "bundled:minilm-en")
    assert "train" in content["seconds"]
    assert {"peak_rss_bytes", "peak_device_bytes"} == set(content["memory"])
    assert content["started"] == "2026-01-31T10:15:00Z"


def test_a_row_of_the_confusion_matrix_stands_on_one_line(tmp_path: Path) -> None:
    result = Result(**fields_of_a_success())
    assert result.scores is not None
    text = write_result(tmp_path, result).read_text(encoding="utf-8")
    for row in result.scores.confusion:
        assert f"[{', '.join(map(str, row))}]" in text


def test_ok_needs_proof_and_a_failure_needs_a_reason() -> None:
    with pytest.raises(ValidationError, match=r"status ok needs metrics\.test, round_trip"):
        Result(**fields_of_a_success() | {"round_trip": None, "metrics": Metrics()})
    with pytest.raises(ValidationError, match="status ok has no reason"):
        Result(**fields_of_a_success() | {"reason": "odd"})
    with pytest.raises(ValidationError, match="status interrupted needs a reason"):
        Result(**fields_of_a_failure() | {"status": "interrupted", "reason": None})


@pytest.mark.parametrize(
    "wrong",
    [
        {"finished": datetime(2026, 1, 31)},
        {"finished": MOMENT.astimezone(timezone(timedelta(hours=8)))},
        {"tokens_per_second": float("nan")},
        {"colour": "red"},
        {"seeds": {"train": "0"}},
    ],
    ids=["naive time", "time not in UTC", "NaN", "unknown field", "text for a number"],
)
def test_values_that_are_no_record_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Result(**fields_of_a_failure() | wrong)


def test_what_is_no_result_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no such folder"):
        read_result(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"has no result\.json"):
        read_result(tmp_path)
    path = write_result(tmp_path, Result(**fields_of_a_failure()))
    whole = path.read_text(encoding="utf-8")
    for text, sentence in (
        (whole[:100], "cannot be read as JSON"),
        ("\x00\x01", "cannot be read as JSON"),
        ("[1]", "no schema_version"),
        (whole.replace('"schema_version": 3', '"schema_version": 99'), "schema version 99; this peftlab reads up to 3"),
        (whole.replace('"failed"', '"fine"'), r"not a valid result:\n  status: "),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(RunError, match=sentence):
            read_result(tmp_path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunError, match="cannot be read as JSON"):
        read_result(tmp_path)


def records_in(annotation: Any) -> Iterator[tuple[str, type[ResultRecord]]]:
    """Yield the records inside a field's type, each with what stands between: nothing, `.<name>` or `[]`."""
    if isinstance(annotation, type) and issubclass(annotation, ResultRecord):
        yield "", annotation
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        for part in inner:
            yield from records_in(part)
    elif origin is dict:
        yield from ((f".<name>{rest}", record) for rest, record in records_in(inner[1]))
    elif origin is tuple:
        yield from ((f"[]{rest}", record) for rest, record in records_in(inner[0]))


def type_name(annotation: Any) -> str:
    """Return a field's type in the words of JSON."""
    plain = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null", datetime: "time"}
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_name(part) for part in inner))
    if origin in (tuple, dict):
        return "list" if origin is tuple else "object"
    if isinstance(annotation, type):
        return plain.get(annotation, "object")
    return type_name(inner[0])  # Annotated


def documented(record: type[ResultRecord], before: str = "") -> Iterator[str]:
    """Yield one table line for every key of `record`, nested ones after their parent."""
    for name, field in record.model_fields.items():
        yield f"| `{before}{name}` | {type_name(field.annotation)} | {' '.join((field.description or '').split())} |"
        for between, inner in records_in(field.annotation):
            yield from documented(inner, f"{before}{name}{between}.")


def test_the_document_lists_every_key_with_the_text_of_its_record() -> None:
    table = "\n".join(documented(Result))
    assert "| `metrics.test.<name>.low` | number |" in table
    assert " |  |" not in table, "a field without a description"
    assert table in DOCUMENT.read_text(encoding="utf-8"), f"docs/result.md needs this table:\n{table}"
