"""Runs of tasks that suites do not compare (tagging, translation, matching), as records with a table.

    python benchmarks/tasks.py conll2003 runs/conll_lora runs/conll_full --reference full_minilm_conll2003

Writes `benchmarks/results/tasks/<name>/`: the result of each run as `<recipe>.json`, without folders of this machine,
its learning curve, and README.md, which is a function of the records. Of taggers the written predictions are scored
once more by a call of seqeval of our own, which must agree, sentences with invalid tags are counted, and entity F1
minus the reference's is given with its interval, paired by sentence (`peftlab/evaluation/entity_scores.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peftlab.data.tag_schemes import misplaced
from peftlab.evaluation.entity_scores import f1_difference
from peftlab.runs.files import write_json

RESULTS = Path(__file__).resolve().parent / "results" / "tasks"
SHOWN = {
    "tagging": ("entity_f1", "macro_entity_f1", "token_f1"),
    "translation": ("bleu", "chrf", "copy_source_bleu", "copy_source_chrf"),
    "matching": ("recall_at_1", "frozen_recall_at_1", "mrr", "frozen_mrr"),
    "classification": ("accuracy", "macro_f1"),
}
"""Metrics of each task in the table."""


def main(argv: Sequence[str] | None = None) -> int:
    """Record the runs of the command line `argv`; returns the exit code."""
    asked = parser().parse_args(argv)
    results = {run: json.loads(_without_places((run / "result.json").read_text("utf-8"))) for run in asked.runs}
    reference = next((run for run, one in results.items() if one["recipe"]["name"] == asked.reference), None)
    wrong = [
        f"{run}: its status is {one['status']}; expected ok" for run, one in results.items() if one["status"] != "ok"
    ]
    if asked.reference is not None and reference is None:
        wrong.append(f"--reference {asked.reference}: no run of this recipe is given; name its folder too")
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 2
    folder = RESULTS / asked.name
    folder.mkdir(parents=True, exist_ok=True)
    tagged = {run: _tags(run) for run, result in results.items() if result["task"] == "tagging"}
    checked = {}
    for run, result in results.items():
        name = result["recipe"]["name"]
        write_json(folder / f"{name}.json", result)
        shutil.copy(run / "metrics.jsonl", folder / f"{name}.metrics.jsonl")
        if run in tagged:
            checked[name] = _checked(result, *tagged[run])
            if reference is not None and run != reference:
                gold, own = tagged[run]
                difference = f1_difference(gold, tagged[reference][1], own)
                checked[name]["entity_f1_minus_reference"] = difference.to_dict()
    if checked:
        write_json(folder / "checked.json", {"reference": asked.reference, "runs": checked})
    (folder / "README.md").write_text(readme(folder), encoding="utf-8")
    print(folder / "README.md")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("name", help="folder of the records, such as the name of the set")
    made.add_argument("runs", nargs="+", type=Path, help="run folders, of one task and set")
    made.add_argument("--reference", help="recipe that taggers are held against")
    return made


def readme(folder: Path) -> str:
    """Return the page of the records in `folder`."""
    names = sorted(path.stem for path in folder.glob("*.json") if path.stem != "checked")
    records = {name: json.loads((folder / f"{name}.json").read_text("utf-8")) for name in names}
    first = records[names[0]]
    path = folder / "checked.json"
    checked: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {"runs": {}}
    shown = SHOWN[first["task"]]
    train, validation, test = (first["data"]["rows"][split] for split in ("train", "validation", "test"))
    lines = [
        f"# {folder.name}: {first['task']}",
        "",
        f"{train:,} training, {validation:,} validation and {test:,} test rows. Test figures with 95 % intervals, one "
        "seed. Written by `benchmarks/tasks.py` from the records here.",
        "",
        f"| recipe | encoder | trained | {' | '.join(shown)} | minutes |",
        "| --- " * (len(shown) + 4) + "|",
        *(_row(name, record, shown) for name, record in records.items()),
        "",
        "`minutes`: wall time of training on this processor, other runs beside it; no figure to compare by.",
        "",
        *(f"- {key}: {value}" for key, value in first["facts"].items()),
        *_checks(checked),
        *_commands(records),
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, record: dict[str, Any], shown: Sequence[str]) -> str:
    parts = record["parameters"]
    cells = [
        f"`{name}`",
        record["encoder"]["used"],
        f"{parts['trainable']:,} ({parts['trainable'] / parts['total']:.2%})",
        *(_interval(record["metrics"]["test"][metric]) for metric in shown),
        f"{record['seconds']['train'] / 60:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _interval(found: dict[str, float], sign: str = "") -> str:
    digits = 2 if abs(found["high"]) > 1 else 4  # BLEU and chrF go to 100
    value, low, high = (f"{found[key]:{sign}.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _checks(checked: dict[str, Any]) -> list[str]:
    lines = []
    for name, found in checked["runs"].items():
        lines.append(
            f"- `{name}`: seqeval, called on the written predictions, gives {found['entity_f1']:.4f} too; "
            f"{found['invalid_sentences']:,} sentences have a tag that IOB2 does not allow where it stands"
        )
        if "entity_f1_minus_reference" in found:
            difference = _interval(found["entity_f1_minus_reference"], sign="+")
            lines[-1] += f"; entity F1 minus that of `{checked['reference']}`, paired by sentence: {difference}"
    return lines


def _commands(records: dict[str, dict[str, Any]]) -> list[str]:
    return ["", "```sh", *(f"PEFTLAB_DATA=DATA peftlab train recipes/{name}.toml" for name in records), "```"]


def _without_places(text: str) -> str:
    """Return `text` without folders of this machine."""
    for place, instead in ((os.environ.get("PEFTLAB_DATA"), "$PEFTLAB_DATA"), (str(Path.home()), "~")):
        text = text.replace(place.rstrip("/"), instead) if place else text
    return text


def _tags(run: Path) -> tuple[list[list[str]], list[list[str]]]:
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text("utf-8").splitlines()]
    return [row["gold"] for row in rows], [row["predicted"] for row in rows]


def _checked(result: dict[str, Any], gold: list[list[str]], predicted: list[list[str]]) -> dict[str, Any]:
    from seqeval.metrics import f1_score
    from seqeval.scheme import IOB2

    found = float(f1_score(gold, predicted, mode="strict", scheme=IOB2))
    recorded = result["metrics"]["test"]["entity_f1"]["value"]
    if abs(found - recorded) > 1e-9:
        raise SystemExit(f"{result['recipe']['name']}: seqeval gives entity F1 {found}, the record has {recorded}")
    return {"entity_f1": found, "invalid_sentences": sum(misplaced(tags, "IOB2") is not None for tags in predicted)}


if __name__ == "__main__":
    sys.exit(main())
