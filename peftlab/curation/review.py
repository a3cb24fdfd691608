"""Review files: rows for a person to judge, as a table to edit (CSV) and as a page to click through (HTML)."""

from __future__ import annotations

import csv
import hashlib
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peftlab.curation.rows import Bench, Change, Curated, ReviewRow, Rows
from peftlab.errors import DataError
from peftlab.runs.files import write_text

COLUMNS = ("row", "check", "id", "label", "suggested", "suspicion", "decision", "new_label", "text")
DECISIONS = ("keep", "drop", "relabel", "weight")


@dataclass(frozen=True)
class Decision:
    """What a person decided about a row. `line`: of the review file; `check`: see `text_check`."""

    line: int
    row: int
    check: str
    decision: str
    new_label: str
    suspicion: float


def text_check(text: str) -> str:
    """Return a short sign of `text`, by which a review file of other rows is noticed; no spreadsheet reads a number."""
    return "t" + hashlib.sha256(text.encode()).hexdigest()[:11]


def write_review(path: Path, rows: Sequence[ReviewRow], label_names: Sequence[str]) -> None:
    """Write `path`.csv and `path`.html, in the order of `rows`. The CSV begins with a byte order mark, for Excel."""
    made = [_fields(row) for row in rows]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *made])
    write_text(path.with_suffix(".csv"), "\ufeff" + text.getvalue())
    write_text(path.with_suffix(".html"), _page(path.stem, made, label_names))


def read_review(path: Path) -> list[Decision]:
    """Read a review file that a person has been through; DataError names the line of the first mistake."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the review file cannot be read: {error}; save it as CSV in UTF-8") from error
    reader = csv.DictReader(io.StringIO(text))
    lacking = [name for name in COLUMNS if name not in (reader.fieldnames or ()) and name not in ("id", "text")]
    if lacking:
        raise DataError(f"{path}:1: the review file lacks the column {lacking[0]!r}; keep all columns as written")
    found: dict[int, Decision] = {}
    for record in reader:
        one = _decision(path, reader.line_num, {name: (value or "").strip() for name, value in record.items() if name})
        if one.row in found:
            raise DataError(f"{path}:{one.line}: row {one.row} stands here twice; keep one of both lines")
        found[one.row] = one
    return list(found.values())


def decided(rows: Rows, name: str, bench: Bench) -> Curated:
    """Return what a person decided in the review file `name`, looked for beside the recipe and then from here.

    Raises DataError, with the line, where the file is of other rows or names a label that there is none of.
    """
    path = next((place for place in (bench.folder / name, Path(name)) if place.is_file()), None)
    if path is None:
        raise DataError(f'curate.review: no file "{name}"; looked for in {bench.folder} and {Path.cwd()}')
    place_of = {int(number): place for place, number in enumerate(rows.numbers)}
    changes: list[Change] = []
    decisions = read_review(path)
    for one in decisions:
        place = place_of.get(one.row)
        if place is None or text_check(rows.text(place)) != one.check:
            raise DataError(
                f"{path}:{one.line}: row {one.row} is not the row that was reviewed; the training rows have changed, "
                "so run peftlab curate again without review"
            )
        if one.decision == "relabel" and one.new_label not in bench.label_names:
            raise DataError(
                f"{path}:{one.line}: new_label is {one.new_label!r}; expected one of {', '.join(bench.label_names)}"
            )
        label = "|".join(bench.labels_of(rows, place))
        if one.decision == "keep" or (one.decision == "relabel" and one.new_label == label):
            continue
        row = ReviewRow(one.row, "", label, one.new_label, one.suspicion, one.decision, "")
        weight = float(rows.split.row_weights()[place])
        changes.append(change_of(row, one.decision, one.new_label, weight, "decided in the review file"))
    return Curated(changes, {"judge": "review", "reviewed": len(decisions)})


def change_of(row: ReviewRow, decision: str, label: str, weight: float, why: str) -> Change:
    """Return the change that `decision` means for a row of this `weight`: it then counts as its label is trusted."""
    score = round(1.0 - row.suspicion, 6)
    if decision == "relabel":
        return Change("relabel", row.row, why, labels=(label,), score=score)
    if decision == "drop":
        return Change("drop", row.row, why, score=score)
    return Change("weight", row.row, why, weight=weight * score, score=score)


def _decision(path: Path, line: int, record: dict[str, str]) -> Decision:
    word = record["decision"].lower()
    if word not in DECISIONS:
        raise DataError(f"{path}:{line}: decision is {word!r}; expected one of {', '.join(DECISIONS)}")
    try:
        row, suspicion = int(record["row"]), float(record["suspicion"])
    except ValueError as error:
        raise DataError(f"{path}:{line}: row and suspicion must be the numbers as written: {error}") from error
    return Decision(line, row, record["check"], word, record["new_label"], suspicion)


def _fields(row: ReviewRow) -> tuple[str, ...]:
    return (
        str(row.row),
        text_check(row.text),
        row.id,
        row.label,
        row.suggested,
        f"{row.suspicion:.4f}",
        row.decision,
        row.suggested,
        row.text,
    )


def _page(title: str, rows: Sequence[tuple[str, ...]], label_names: Sequence[str]) -> str:
    """Return a page that needs no network: a table with choices, and a button that saves the CSV to feed back."""
    data = json.dumps({"columns": COLUMNS, "rows": rows, "labels": list(label_names)}, ensure_ascii=False)
    # Inside a script element only an end tag or a comment could end the text.
    data = data.replace("<", "\\u003c")
    return (
        _PAGE.replace("@TITLE@", html.escape(title))
        .replace("@DECISIONS@", json.dumps(DECISIONS))
        .replace("@DATA@", data)
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>@TITLE@</title><style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#1b1f24}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.35rem .6rem;border-bottom:1px solid #d8dee4}
th{position:sticky;top:0;background:#fff}
td.number{text-align:right;font-variant-numeric:tabular-nums}
button{font:inherit;padding:.4rem 1rem}
</style></head><body>
<h1>@TITLE@</h1>
<p>The most suspicious rows come first. Choose what is to be done with each, then
<button id="save">save the CSV</button> and name it in the recipe as <code>review = "..."</code>.</p>
<table><thead><tr><th>row</th><th>text</th><th>label</th>
<th>suspicion</th><th>decision</th><th>new label</th></tr></thead>
<tbody id="rows"></tbody></table>
<script id="data" type="application/json">@DATA@</script>
<script>
const {columns, rows, labels} = JSON.parse(document.getElementById("data").textContent);
const at = Object.fromEntries(columns.map((name, place) => [name, place]));
const cell = (line, text, kind = "") => {
  const made = line.insertCell();
  made.textContent = text; made.className = kind;
  return made;
};
const choice = (line, row, column, words) => {
  const box = document.createElement("select");
  for (const word of words) box.add(new Option(word, word, false, word === row[at[column]]));
  box.onchange = () => { row[at[column]] = box.value; };
  cell(line, "").append(box);
};
const body = document.getElementById("rows");
for (const row of rows) {
  const line = body.insertRow();
  cell(line, row[at.row], "number"); cell(line, row[at.text]); cell(line, row[at.label]);
  cell(line, row[at.suspicion], "number");
  choice(line, row, "decision", @DECISIONS@); choice(line, row, "new_label", labels);
}
const quoted = value => '"' + String(value).replaceAll('"', '""') + '"';
document.getElementById("save").onclick = () => {
  const text = [columns, ...rows].map(row => row.map(quoted).join(",")).join("\\n") + "\\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["\\ufeff" + text], {type: "text/csv"}));
  link.download = document.title + ".csv"; link.click();
};
</script></body></html>
"""
