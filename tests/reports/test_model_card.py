"""The model card: valid metadata, figures with their intervals, and every limit that the run knows of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCardData

from peftlab.errors import RunError
from peftlab.reports.model_card import model_card
from peftlab.runs.result import Result
from peftlab.runs.result_parts import DataUsed, EncoderUsed, Parameters

REPORT: dict[str, Any] = {
    "notes": ["validation split off train"],
    "warnings": ["duplicates: 3 rows; keep one row of each text"],
    "splits": {
        "train": {"rows": 600, "truncated": {"max_length": 64, "rows": 12, "share": 0.02}},
        "test": {"rows": 200},
    },
}
RECIPE = '[method]\nname = "lora"\n'


def metadata(card: str) -> dict[str, Any]:
    _, head, _ = card.split("---\n", 2)
    values = yaml.safe_load(head)
    assert isinstance(values, dict)
    return values


def test_the_front_matter_is_metadata_that_the_hub_reads(make_result: Callable[..., Result]) -> None:
    result = make_result()
    values = metadata(model_card(result, RECIPE, REPORT))
    assert values["language"] == ["en"]
    assert values["license"] == "apache-2.0"
    assert values["base_model"] == "org/tiny"
    assert values["pipeline_tag"] == "text-classification"
    assert set(values["tags"]) == {"peftlab", "lora", "classification"}
    data = ModelCardData(**values)
    assert data.eval_results is not None
    accuracy = next(entry for entry in data.eval_results if entry.metric_name == "accuracy")
    assert (accuracy.metric_value, accuracy.dataset_name) == (result.metrics.test["accuracy"].value, "letters")


def test_every_test_metric_stands_with_its_interval_and_rows(make_result: Callable[..., Result]) -> None:
    result = make_result()
    card = model_card(result, RECIPE, REPORT)
    for name, estimate in result.metrics.test.items():
        assert f"| `{name}` | {estimate.value:.4f} | {estimate.low:.4f} to {estimate.high:.4f} | 200 |" in card
    assert "The target accuracy 0.5: reached" in card
    assert "`accuracy` 0.8100 at step 40, epoch 2" in card
    assert "on 200 rows no logit differed by more than 2e-07" in card


def test_the_card_shows_ranks_and_what_is_left_where_a_method_takes_parameters_away(
    make_result: Callable[..., Result],
) -> None:
    assert "ranks.png" not in model_card(make_result(), RECIPE, REPORT)
    parameters = Parameters(trainable=1200, surviving=900, total=10_000, shipped_bytes=3700, shipped=900)
    card = model_card(make_result(ranks={"a.layer.0.query": 3}, parameters=parameters), RECIPE, REPORT)
    assert "![Rank of each module after training, by layer](ranks.png)" in card
    assert "| trained, head included | 1,200 (12.000% of all) |" in card
    assert "| left in the end | 900 (75.0% of the trained) |" in card
    assert "| shipped | 3.70 kB, 900 parameters |" in card


def test_the_card_says_counts_use_data_recipe_and_versions(make_result: Callable[..., Result]) -> None:
    card = model_card(make_result(), RECIPE, REPORT)
    for part in (
        "73,728 (0.324% of all)",
        "11,917,824 (52.3% of all)",
        "412.35 kB",
        "`head`",
        'peftlab predict RUN --text "..."',
        "SHA-256 `c0ffee`",
        "600 train, 200 validation, 200 test",
        "validation split off train",
        f"```toml\n{RECIPE}```",
        "| torch | 2.13.0 |",
        "![Confusion matrix of the test split](confusion_matrix.png)",
        "(learning_curve.png)",
    ):
        assert part in card, part


def test_limits_name_what_the_run_found(make_result: Callable[..., Result]) -> None:
    limits = (
        model_card(make_result(notes=("the batch was halved",)), RECIPE, REPORT).split("## Limits")[1].split("\n## ")[0]
    )
    for part in (
        "one seed",
        "12 train rows (2.0%) were cut to 64 tokens",
        "duplicates: 3 rows",
        "the batch was halved",
        "calibration error",
        "also a text that none of them fits",
    ):
        assert part in limits, part
    assert "made up" not in limits


def test_a_stand_in_stands_in_a_box_with_both_names(make_result: Callable[..., Result]) -> None:
    encoder = EncoderUsed(requested="hfl/rbt3", used="bundled:minilm-en")
    card = model_card(make_result(encoder=encoder, stand_in=True), RECIPE, REPORT)
    before_results = card.split("## Results")[0]
    assert "> **STAND-IN ENCODER.**" in before_results
    assert "hfl/rbt3" in before_results
    assert "bundled:minilm-en" in before_results
    values = metadata(card)
    assert "base_model" not in values
    assert (values["peftlab"]["encoder_requested"], values["peftlab"]["stand_in"]) == ("hfl/rbt3", True)


def test_synthetic_rows_are_announced(make_result: Callable[..., Result]) -> None:
    source = {"requested": "builtin:tickets-zh", "used": "builtin", "about": "Made-up tickets."}
    data = DataUsed(fingerprint="0", source=source, rows={"test": 200}, synthetic=True, language="zh")
    card = model_card(make_result(data=data), RECIPE, {})
    assert "> **SYNTHETIC DATA.** Made-up tickets." in card
    assert "The texts are made up" in card
    assert "synthetic-data" in metadata(card)["tags"]


def test_labels_with_bars_newlines_or_backticks_do_not_break_the_table(make_result: Callable[..., Result]) -> None:
    card = model_card(make_result(("a|b", "c\nd", "e")), "# ```\n" + RECIPE, REPORT)
    assert "| 0 | a\\|b |" in card
    assert "| 1 | c d |" in card
    assert "````toml" in card


def test_a_method_without_encoder_or_steps_has_a_card_too(make_result: Callable[..., Result]) -> None:
    card = model_card(make_result(encoder=EncoderUsed(), best=None, method="tfidf", target=None), RECIPE, {})
    assert "which has no encoder" in card
    assert "learning_curve.png" not in card
    assert "None" not in card


def test_a_run_that_failed_has_no_card(make_result: Callable[..., Result]) -> None:
    with pytest.raises(RunError, match="status failed"):
        model_card(make_result(status="failed", reason="the disk is full"), RECIPE, {})
