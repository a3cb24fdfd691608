"""REPORT.html: one file with its style, script and figures inside; offline, light or dark, of any width."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Protocol

from peftlab.reports.suite_tables import Table
from peftlab.reports.svg_charts import STYLE as CHART_STYLE

_STYLE = """
:root{color-scheme:light dark;--ink:#1f2933;--faint:#616e7c;--line:#dde1e6;--back:#ffffff;--card:#f5f7fa;--mark:#0b5cad}
@media (prefers-color-scheme:dark){:root{--ink:#e4e7eb;--faint:#9aa5b1;--line:#323f4b;--back:#161b22;--card:#1f2630;
--mark:#7cc4fa}}
*{box-sizing:border-box}body{margin:0 auto;padding:1.2rem;max-width:62rem;color:var(--ink);background:var(--back);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
h1{font-size:1.6rem;line-height:1.25}h2{font-size:1.2rem;margin-top:2.4rem}
.answer{background:var(--card);border-left:4px solid var(--mark);padding:.9rem 1.1rem;font-size:1.08rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.4rem .6rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
th:first-child,td.words{text-align:left}th button{all:unset;cursor:pointer;font-weight:600}
th button:focus-visible{outline:2px solid var(--mark)}th[aria-sort=ascending] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}td.long{min-width:14rem}
td.figure{white-space:nowrap}.wide .chart{min-width:36rem}
summary{cursor:pointer;color:var(--mark);padding:.3rem 0}code{background:var(--card);padding:0 .25em}
#tip{position:absolute;max-width:18rem;padding:.4rem .6rem;background:var(--ink);color:var(--back);font-size:.85rem;
border-radius:4px;pointer-events:none}
""".strip()

# Sorts by a cell's number where it has one, else by its text; shows a mark's title beside the pointer, also on touch.
_SCRIPT = """
{
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = row => row.cells[column].dataset.number ?? "";
    const order = [...body.rows].sort((a, b) => {
      const x = key(a), y = key(b);
      const text = row => row.cells[column].textContent;
      if (x === "" && y === "") return text(a).localeCompare(text(b)) * (up ? 1 : -1);
      if (x === "" || y === "") return x === "" ? 1 : -1;
      return (x - y) * (up ? 1 : -1);
    });
    body.append(...order);
  }));
}
const tip = document.createElement("div");
tip.id = "tip"; tip.hidden = true; document.body.append(tip);
for (const title of document.querySelectorAll(".chart title")) {
  const mark = title.parentNode, text = title.textContent;
  mark.setAttribute("aria-label", text); title.remove();
  const show = event => {
    const box = mark.getBoundingClientRect();
    tip.textContent = text; tip.hidden = false;
    const x = event.pageX || box.right + scrollX, y = event.pageY || box.top + scrollY;
    const most = scrollX + document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = Math.max(8, Math.min(x + 12, most)) + "px";
    tip.style.top = (y + 14) + "px";
  };
  for (const name of ["pointerenter", "pointermove", "click", "focus"]) mark.addEventListener(name, show);
  for (const name of ["pointerleave", "blur"]) mark.addEventListener(name, () => { tip.hidden = true; });
}
}
""".strip()


class _Section(Protocol):
    @property
    def title(self) -> str: ...
    @property
    def texts(self) -> tuple[str, ...]: ...
    @property
    def chart(self) -> tuple[str, str] | None: ...
    @property
    def table(self) -> Table | None: ...
    @property
    def folded(self) -> bool: ...


def page(title: str, first: str, sections: Sequence[_Section]) -> str:
    """Return the whole page; it loads nothing and stores nothing."""
    body = "\n".join(_section(section) for section in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{_STYLE}
{CHART_STYLE}
</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="answer">{_text(first)}</p>
{body}
<script>
{_SCRIPT}
</script>
</body>
</html>
"""


def _section(section: _Section) -> str:
    parts = [f"<section><h2>{escape(section.title)}</h2>"]
    if len(section.texts) > 1:
        parts.append("<ul>" + "".join(f"<li>{_text(text)}</li>" for text in section.texts) + "</ul>")
    else:
        parts += [f"<p>{_text(text)}</p>" for text in section.texts]
    if section.chart is not None:
        parts.append(f'<div class="wide">{section.chart[1]}</div>')
    if section.table is not None:
        table = f'<div class="wide">{_table(section.table)}</div>'
        folded = f"<details><summary>{len(section.table.rows)} rows</summary>{table}</details>"
        parts.append(folded if section.folded else table)
    return "\n".join([*parts, "</section>"])


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col"><button type="button">{escape(head)}</button></th>' for head in table.heads)
    rows = []
    for row in table.rows:
        cells = []
        for cell in row:
            number = f' data-number="{cell.number:.12g}"' if cell.number is not None else ""
            kind = "figure" if cell.number is not None or cell.text == "-" else "words"
            words = f' class="{kind} long"' if kind == "words" and len(cell.text) > 24 else f' class="{kind}"'
            cells.append(f"<td{number}{words}>{escape(cell.text)}</td>")
        rows.append("<tr>" + "".join(cells) + "</tr>")
    return f"<table><thead><tr>{heads}</tr></thead><tbody>\n" + "\n".join(rows) + "\n</tbody></table>"


def _text(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
