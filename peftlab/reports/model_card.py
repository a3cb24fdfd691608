"""The model card of a run, its README.md: what the model is, how it scored, on what, at what cost, and its limits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from peftlab.errors import RunError
from peftlab.recipe.plugins import load_plugin
from peftlab.reports.figures import CONFUSION_MATRIX, LEARNING_CURVE, RANKS
from peftlab.reports.risk_coverage import RISK_COVERAGE
from peftlab.reports.wording import (
    cell_text,
    check_text,
    cost_rows,
    estimate_text,
    parameter_rows,
    predict_line,
    promise_text,
    share_text,
    stand_in_text,
    target_text,
)
from peftlab.runs.calibration import Calibration
from peftlab.runs.result import Result

FEW_TEST_ROWS = 30
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def model_card(
    result: Result, recipe_text: str, data_report: Mapping[str, Any], calibration: Calibration | None = None
) -> str:
    """Return the card as Markdown with the hub's YAML front matter.

    `recipe_text` is the resolved recipe as TOML, `data_report` the content of `data_report.json`. Raises RunError for a
    run without a scored model: only a finished one, or the best one at the minute ceiling, has a card.
    """
    if result.status not in ("ok", "stopped"):
        raise RunError(f"a model card needs a finished run; this one has the status {result.status}")
    parts = [
        _front_matter(result),
        f"# {result.recipe.name}\n",
        *([_box("STAND-IN ENCODER", stand_in_text(result))] if result.stand_in else []),
        _what_it_is(result),
        _results(result),
        *([_routing(calibration)] if calibration is not None else []),
        _use(result, calibration),
        _cost(result),
        _data(result, data_report),
        _limits(result, data_report),
        _per_class(result),
        _figures(result),
        _making(result, recipe_text),
    ]
    return "\n".join(parts)


def _front_matter(result: Result) -> str:
    """Return the hub's metadata. Values are written as JSON, which YAML takes as it is."""
    known: Mapping[str, str] = load_plugin("tasks", result.task).HUB_METRICS
    tags = [
        "peftlab",
        result.method,
        result.task,
        *(["synthetic-data"] if result.data and result.data.synthetic else []),
    ]
    values: dict[str, Any] = {
        "library_name": "peftlab",
        "pipeline_tag": load_plugin("tasks", result.task).PIPELINE,
        "language": [result.data.language] if result.data and result.data.language else None,
        "license": result.encoder.license.lower() if result.encoder.license else None,
        "base_model": result.encoder.used if HUB_ID.fullmatch(result.encoder.used or "") else None,
        "tags": tags,
        "metrics": sorted({known[name] for name in result.metrics.test if name in known}),
        "model-index": [_index_entry(result)],
        "peftlab": {
            "version": result.versions.get("peftlab"),
            "recipe": result.recipe.name,
            "recipe_hash": result.recipe.hash,
            "encoder_requested": result.encoder.requested,
            "encoder_used": result.encoder.used,
            "stand_in": result.stand_in,
        },
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items() if value is not None]
    return "\n".join(["---", *lines, "---", ""])


def _index_entry(result: Result) -> dict[str, Any]:
    task = load_plugin("tasks", result.task)
    metrics = [
        {"type": task.HUB_METRICS[name], "name": name, "value": estimate.value}
        for name, estimate in result.metrics.test.items()
        if name in task.HUB_METRICS
    ]
    dataset = _source_name(result)
    entry = {
        "task": {"type": task.PIPELINE},
        "dataset": {"name": dataset, "type": dataset, "split": "test"},
        "metrics": metrics,
    }
    return {"name": result.recipe.name, "results": [entry]}


def _what_it_is(result: Result) -> str:
    labels = f" into {len(result.scores.per_class)} labels" if result.scores else ""
    if result.encoder.used is None:
        how = f"by the method `{result.method}`, which has no encoder"
    elif result.stand_in:
        how = f"by the method `{result.method}` on the encoder `{result.encoder.used}`, in place of "
        how += f"`{result.encoder.requested}`"
    else:
        how = f"by the method `{result.method}` on the encoder `{result.encoder.used}`"
    revision = f" Encoder revision: `{result.encoder.revision}`." if result.encoder.revision else ""
    return f"Text {result.task}{labels}, trained {how}. Made by peftlab.{revision}\n"


def _results(result: Result) -> str:
    rows = [(f"`{name}`", *estimate_text(estimate)) for name, estimate in result.metrics.test.items()]
    lines = ["## Results on the test split", "", table(("metric", "value", "95 % interval", "rows"), rows), ""]
    if result.target is not None:
        lines += [f"**The {target_text(result.target, result.task)}.**", ""]
    best = result.best
    chosen = "The test split was scored once, by the model that was saved."
    if result.data is not None and "validation" not in result.data.rows:
        chosen += " It was trained on the validation rows too, and chosen by nothing."
    if best is not None:
        chosen = (
            f"The test split was scored once, after the best checkpoint was chosen on validation: `{best.metric}` "
            f"{best.value:.4f} at step {best.step:,}, epoch {best.epoch:g}."
        )
    lines.append(chosen)
    if result.round_trip is not None:
        proof = result.round_trip
        same = f"no logit differed by more than {proof.max_logit_difference:.2g}"
        if proof.max_logit_difference == 0:
            same = "every logit was the same"
        lines.append(f"What was saved was loaded back in fresh objects: on {proof.rows:,} rows {same}.")
    return "\n".join([*lines, ""])


def _routing(made: Calibration) -> str:
    check = check_text(made)
    threshold = "none" if made.threshold is None else f"{made.threshold:.4f}"
    rows = [
        ("temperature", f"{made.temperature:.4f}"),
        ("routed from this probability on", threshold),
        ("rows", "the validation rows" if made.rows is None else f"`{made.rows.path}`, SHA-256 `{made.rows.sha256}`"),
        ("rows for temperature and start", f"{made.rows_fitted:,}"),
        ("rows that tested thresholds", f"{made.rows_tested:,}"),
        ("of these routed, and wrong", f"{made.routed:,}, {made.wrong:,}"),
    ]
    chose = ""
    if made.candidates > 1:
        chose = (
            f" The same rows chose this model among {made.candidates} (checkpoints, strengths of a probe), so each was "
            f"tested at a confidence of {1 - (1 - made.confidence) / made.candidates:.6g} (Bonferroni)."
        )
    return "\n".join(
        [
            "## What is routed without people",
            "",
            f"**{promise_text(made)}**",
            "",
            *([check, ""] if check is not None else []),
            f"![Accuracy of what is routed, by coverage]({RISK_COVERAGE})",
            "",
            table(("calibration", "value"), rows),
            "",
            "The promise is for texts drawn as these rows were, and for the accuracy over all of them, not "
            f"for each label.{chose} Thresholds were tested from the surest texts on, each on the rows that reach it "
            "(binomial test), until one failed; so the choice among them is part of the confidence. What people chose "
            "by these rows, such as settings of the recipe, is not.",
            "",
        ]
    )


def _use(result: Result, calibration: Calibration | None) -> str:
    routed = ", and `routed`" if calibration is not None else ""
    return f"""## Use

```sh
{predict_line("RUN", result.task)}
```

`RUN` is this folder; peftlab {result.versions.get("peftlab", "")} made it. `--json` prints one object a text with
{load_plugin("tasks", result.task).ANSWER}{routed}; a file, or `-` for standard input, takes many texts.
What is shipped is in `trained/`.
"""


def _cost(result: Result) -> str:
    rows = parameter_rows(result.parameters) if result.parameters else []
    new = result.parameters.newly_initialised if result.parameters else ()
    listed = ", ".join(f"`{name}`" for name in new)
    lines = ["## Parameters and cost", "", table(("parameters", "count"), rows), ""]
    if new:
        lines += [f"Newly initialised, trained and saved, as the checkpoint lacked them: {listed}.", ""]
    return "\n".join([*lines, table(("cost", "measured"), cost_rows(result)), ""])


def _data(result: Result, report: Mapping[str, Any]) -> str:
    data = result.data
    if data is None:
        raise RunError("a model card needs the data of the run")
    lines = ["## Training data", ""]
    if data.synthetic:
        lines += [_box("SYNTHETIC DATA", str(data.source.get("about") or "These rows are made up."))]
    rows = ", ".join(f"{count:,} {split}" for split, count in data.rows.items())
    lines += [
        f"- source: `{_source_name(result)}`",
        f"- rows: {rows}",
        f"- fingerprint of all rows: `{data.fingerprint}`",
    ]
    for file in data.source.get("files") or ():
        lines.append(f"- {file.get('split')}: `{file.get('path')}`, SHA-256 `{file.get('sha256')}`")
    lines += [f"- {note}" for note in report.get("notes") or ()]
    return "\n".join([*lines, ""])


def _limits(result: Result, report: Mapping[str, Any]) -> str:
    return "\n".join(["## Limits", "", *(f"- {limit}" for limit in _found_limits(result, report)), ""])


def _found_limits(result: Result, report: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "The intervals are those of the test rows, taken as independent draws. They say nothing of the spread between "
        "training seeds: this is one seed."
    )
    yield "The test rows come from the same source as the training rows; other texts may score otherwise."
    if result.stand_in:
        yield stand_in_text(result)
    if result.data is not None and result.data.synthetic:
        yield "The texts are made up. The figures compare methods; they do not foretell the accuracy on real texts."
    scores = result.scores
    if scores is not None and scores.threshold is None:
        yield "Every text is given one of the labels, also a text that none of them fits."
    if scores is not None:
        few = [score.label for score in scores.per_class if score.support < FEW_TEST_ROWS]
        if few:
            yield f"Labels with fewer than {FEW_TEST_ROWS} test rows, whose own figures are loose: {_some(few)}."
        for entry in scores.undefined:
            yield f"`{entry.metric}` is undefined for {_some(entry.labels)}: {entry.reason}."
    error = result.metrics.test.get("expected_calibration_error")
    if error is not None:
        yield f"Stated probabilities miss the share that is right by {error.value:.3f} on average (calibration error)."
    for split, summary in (report.get("splits") or {}).items():
        cut = summary.get("truncated") or {}
        if cut.get("rows"):
            yield f"{cut['rows']:,} {split} rows ({cut['share']:.1%}) were cut to {cut['max_length']} tokens."
    for warning in report.get("warnings") or ():
        yield f"Found in the data: {warning}"
    yield from (f"Said during the run: {note}" for note in result.notes)


def _per_class(result: Result) -> str:
    if result.scores is None:
        return "\n".join(_own_tables(result))
    rows = [
        (
            str(number),
            score.label,
            share_text(score.precision),
            share_text(score.recall),
            share_text(score.f1),
            f"{score.support:,}",
        )
        for number, score in enumerate(result.scores.per_class)
    ]
    return f"## Per class\n\n{table(('number', 'label', 'precision', 'recall', 'F1', 'test rows'), rows)}\n"


def _own_tables(result: Result) -> Iterator[str]:
    """Yield the task's own tables, and what its metrics depend on."""
    for shown in result.tables:
        yield f"## {shown.title}\n\n{table(shown.columns, [list(map(cell_text, row)) for row in shown.rows])}\n"
    if result.facts:
        yield "\n".join([*(f"- {name}: `{fact}`" for name, fact in result.facts.items()), ""])


def _figures(result: Result) -> str:
    lines = ["## Figures", ""] if result.scores is not None or result.best is not None else []
    if result.scores is not None:
        lines += [f"![Confusion matrix of the test split]({CONFUSION_MATRIX})", ""]
    if result.best is not None:
        lines += [f"![Training loss, validation metric and learning rate over steps]({LEARNING_CURVE})", ""]
    if result.ranks:
        lines += [f"![Rank of each module after training, by layer]({RANKS})", ""]
    return "\n".join(lines)


def _making(result: Result, recipe_text: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", recipe_text)), default=0))
    versions = table(("package", "version"), list(result.versions.items()))
    commit = f"\npeftlab commit: `{result.git_commit}`\n" if result.git_commit else ""
    seeds = ", ".join(f"{use} {seed}" for use, seed in result.seeds.items())
    return f"""## How it was made

Recipe `{result.recipe.name}`, every default filled in, SHA-256 `{result.recipe.hash}`; seeds: {seeds}.
Started {result.started:%Y-%m-%d %H:%M:%S} UTC, finished {result.finished:%Y-%m-%d %H:%M:%S} UTC.
{commit}
{fence}toml
{recipe_text.strip()}
{fence}

{versions}
"""


def _source_name(result: Result) -> str:
    source = result.data.source if result.data else {}
    return str(source.get("requested") or source.get("used") or "files")


def _box(title: str, text: str) -> str:
    return f"> [!WARNING]\n> **{title}.** {' '.join(text.split())}\n"


def _some(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"`{name}`" for name in names[:most]) + more


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(' '.join(cell.replace('|', chr(92) + '|').split()) for cell in cells)} |"

    return "\n".join([line(head), line(["---"] * len(head)), *(line(row) for row in rows)])
