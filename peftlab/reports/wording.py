"""Figures as people read them: one wording for cards and screens."""

from __future__ import annotations

from peftlab.recipe.plugins import load_plugin
from peftlab.runs.calibration import Calibration
from peftlab.runs.result import Result
from peftlab.runs.result_parts import Estimate, Parameters, Quantised, Target

VERDICTS = {
    "reached": "reached: the whole interval is at or above it",
    "not_reached": "not reached: the whole interval is below it",
    "undecided": "undecided: it lies within the interval",
}


def estimate_text(estimate: Estimate) -> tuple[str, str, str]:
    """Return value, interval and number of rows, four decimals."""
    return f"{estimate.value:.4f}", f"{estimate.low:.4f} to {estimate.high:.4f}", f"{estimate.n:,}"


def share_text(value: float | None) -> str:
    """Return a figure between 0 and 1 with four decimals; a dash where it is undefined."""
    return "-" if value is None else f"{value:.4f}"


def bytes_text(count: int) -> str:
    """Return a number of bytes in decimal units, as disks and hubs count them."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} bytes"


def seconds_text(seconds: float) -> str:
    """Return a duration in the units that people use for its length."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def target_text(target: Target, task: str) -> str:
    """Return what was asked of the test score that is `task`'s own, and whether it was reached."""
    return f"target {load_plugin('tasks', task).HEADLINE} {target.asked:g}: {VERDICTS[target.verdict]}"


def predict_line(run: str, task: str) -> str:
    """Return the command that asks the run of this name, of the task `task`, for one text."""
    features = load_plugin("tasks", task).FEATURES
    more = " --against CANDIDATES.txt" if "against" in features else ' --pair "..."' if "pairs" in features else ""
    return f'peftlab predict {run} --text "..."{more}'


def cell_text(value: str | float | None) -> str:
    """Return a cell of a task's table: figures to four digits, `-` where there is none."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def parameter_rows(parameters: Parameters) -> list[tuple[str, str]]:
    """Return the counts of parameters, each with what it is."""
    rows = [
        ("trained, head included", f"{parameters.trainable:,} ({parameters.trainable_share:.3%} of all)"),
        ("all", f"{parameters.total:,}"),
        ("shipped", bytes_text(parameters.shipped_bytes) + _shipped_count(parameters)),
    ]
    if parameters.embedding is not None and parameters.embedding_share is not None:
        rows.insert(2, ("in embedding tables", f"{parameters.embedding:,} ({parameters.embedding_share:.1%} of all)"))
    if parameters.surviving is not None:
        left = f"{parameters.surviving:,} ({parameters.surviving / parameters.trainable:.1%} of the trained)"
        rows.insert(1, ("left in the end", left))
    return rows


def _shipped_count(parameters: Parameters) -> str:
    return "" if parameters.shipped is None else f", {parameters.shipped:,} parameters"


def quantised_rows(quantised: Quantised) -> list[tuple[str, str]]:
    """Return what 8-bit or 4-bit weights save, and how far they move the logits."""
    stored, before = bytes_text(quantised.linear_bytes), bytes_text(quantised.linear_bytes_fp32)
    share = f"{quantised.linear_share:.1%} of the {before} in fp32"
    drift = f"at most {quantised.logit_drift_max:.3g}, on average {quantised.logit_drift_mean:.3g}"
    changed = f"{quantised.changed_predictions:,} of {quantised.rows:,} predictions differ"
    return [
        (f"encoder, linear layers in {quantised.kind}", f"{stored} ({share})"),
        ("encoder, everything else", bytes_text(quantised.other_bytes)),
        ("logit drift against fp32", f"{drift}; {changed}"),
    ]


def cost_rows(result: Result) -> list[tuple[str, str]]:
    """Return time, memory and speed, as far as they were measured."""
    seconds, memory = result.seconds, result.memory
    rows = [("training", seconds_text(seconds.train))] if seconds.train is not None else []
    rows += [
        ("whole run", f"{seconds_text(seconds.total)} (processor time {seconds_text(seconds.cpu)})"),
    ]
    if result.encoder.quantised is not None:
        rows += quantised_rows(result.encoder.quantised)
    if memory.peak_rss_bytes is not None:
        rows.append(("peak memory", bytes_text(memory.peak_rss_bytes)))
    if memory.peak_device_bytes is not None:
        rows.append(("peak device memory", bytes_text(memory.peak_device_bytes)))
    if result.tokens_per_second is not None:
        rows.append(("speed", f"{result.tokens_per_second:,.0f} tokens/s"))
    if result.device is not None:
        device = result.device
        count = f"{device.processes} process{'es' if device.processes > 1 else ''} of {device.threads} threads"
        rows.append(("device", f"{device.type}: {device.name}, {count}"))
    return rows


def stand_in_text(result: Result) -> str:
    """Return the sentence that names both encoders of a run with a stand-in."""
    return (
        f"This run asked for the encoder {result.encoder.requested}, which could not be reached. It used the stand-in "
        f"{result.encoder.used} instead: every figure here is that of the stand-in."
    )


def percent_text(share: float) -> str:
    """Return a share that somebody chose, such as a target, without digits that nobody typed."""
    return f"{100 * share:.10g} %"


def percent_interval(estimate: Estimate) -> str:
    """Return a share with its 95 % interval and its rows, one decimal."""
    low, high = f"{100 * estimate.low:.1f}", f"{100 * estimate.high:.1f}"
    return f"{100 * estimate.value:.1f} % (95 % interval {low} to {high} %, n = {estimate.n:,})"


def promise_text(made: Calibration) -> str:
    """Return what is promised of the texts that are routed, and how many these are."""
    target, confidence = percent_text(made.target), percent_text(made.confidence)
    if made.threshold is None:
        rows = made.rows_fitted + made.rows_tested
        text = (
            f"No threshold keeps {target} accuracy with {confidence} confidence on these {rows:,} rows: no "
            "text is routed (coverage 0), all go to people."
        )
        if made.rows_needed is None:
            return f"{text} More rows would not help: even where the model is surest it is wrong too often."
        return f"{text} About {made.rows_needed:,} rows would probably do."
    return (
        f"{target} accuracy promised with {confidence} confidence on the texts that are routed; "
        f"{percent_interval(made.coverage)} of the texts are; the rest go to people."
    )


def check_text(made: Calibration) -> str | None:
    """Return how the promise fared on the test rows; None where they were put aside or nothing is routed."""
    check = made.test
    if check is None or check.accuracy is None or check.verdict is None:
        return None
    asked = f"{percent_text(made.target)}: {VERDICTS[check.verdict]}"
    return (
        f"Check on the test rows, which had no part in it: {percent_interval(check.coverage)} are routed, and "
        f"{percent_interval(check.accuracy)} of these are right ({asked})."
    )
