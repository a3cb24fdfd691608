"""The report of a suite: what it answers, that nothing vanishes, that bytes repeat, and that a browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up_suite import SUITE, write_suite

from peftlab.errors import RunError
from peftlab.report import main
from peftlab.reports import suite_tables
from peftlab.reports.suite_findings import Findings, answer, find
from peftlab.reports.suite_records import read_suite_records
from peftlab.reports.suite_report import report_files
from peftlab.runs.result import Result

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
# Names under which browsers of the Chromium family are installed.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def suite(tmp_path: Path, make_result: Callable[..., Result]) -> Path:
    return write_suite(tmp_path / "made_up", make_result)


@pytest.fixture
def found(suite: Path) -> Findings:
    return find(read_suite_records(suite))


def asking(folder: Path, make_result: Callable[..., Result], old: str, new: str) -> Findings:
    assert old in SUITE
    return find(read_suite_records(write_suite(folder, make_result, SUITE.replace(old, new))))


def test_the_first_sentence_names_the_cheapest_recipe_that_meets_the_target(suite: Path, found: Findings) -> None:
    first = answer(found)
    assert first.startswith("The cheapest recipe that meets the target accuracy of 0.93 is lora with 0.9")
    assert "n = 1,500 test rows, 2 seeds" in first
    assert re.search(r"the probability that it truly does is (above )?9\d\.\d %\.$", first)
    assert report_files(read_suite_records(suite))["REPORT.md"].split("\n\n")[1] == f"**{first}**"


def test_a_target_out_of_reach_is_said_to_be_met_by_none(tmp_path: Path, make_result: Callable[..., Result]) -> None:
    found = asking(tmp_path / "s", make_result, "target = 0.93", "target = 0.99")
    assert answer(found).startswith("No recipe meets the target accuracy of 0.99: even the best, ")
    assert {arm.target for arm in found.arms} == {"not_reached"}


def test_the_best_is_that_of_the_highest_accuracy_not_of_the_widest_interval(
    tmp_path: Path, make_result: Callable[..., Result]
) -> None:
    found = asking(tmp_path / "s", make_result, "target = 0.93", "target = 0.99")
    best = max(found.arms, key=lambda arm: arm.accuracy.value)
    wide = [replace(arm, chance=1e-9 if arm is best else 1e-6) for arm in found.arms]
    assert f"even the best, {best.name} with {best.accuracy.value:.4f}" in answer(replace(found, arms=tuple(wide)))


def test_a_target_within_the_intervals_stays_open(tmp_path: Path, make_result: Callable[..., Result]) -> None:
    found = asking(tmp_path / "s", make_result, "target = 0.93", "target = 0.95")
    assert answer(found).startswith(
        "No recipe is shown to meet the target accuracy of 0.95; the likeliest to meet it is "
    )


def test_a_recipe_over_a_ceiling_is_no_answer(tmp_path: Path, make_result: Callable[..., Result]) -> None:
    ceilings = 'reference = "full"\n[ceilings]\ntrainable_parameters = 10000\n'
    found = asking(tmp_path / "s", make_result, 'reference = "full"\n', ceilings)
    assert answer(found).startswith(
        "No recipe meets the target accuracy of 0.93 within the ceilings: even the best, head"
    )
    assert [arm.name for arm in found.arms if not arm.over] == ["head"]


def test_verdicts_are_of_the_recipes_with_the_reference(found: Findings) -> None:
    words = {arm.name: arm.comparison.words if arm.comparison is not None else arm.compared for arm in found.arms}
    assert words["full"] == "the reference itself"
    assert words["lora"] == "non-inferior"
    assert words["head"] == words["tfidf"] == "inferior"


def test_the_front_holds_what_nothing_cheaper_is_better_than(found: Findings) -> None:
    assert [arm.name for arm in found.arms] == ["head", "lora", "tfidf", "full"]
    assert found.front[:2] == ("head", "lora")
    assert "tfidf" not in found.front


def test_failed_and_missing_runs_are_in_both_reports(suite: Path) -> None:
    files = report_files(read_suite_records(suite))
    assert "| lora-s2 | failed | loss is NaN at step 7 |" in files["REPORT.md"]
    assert "| tfidf-s2 | no record |" in files["REPORT.md"]
    assert "lora-s2" in files["REPORT.html"]
    assert "tfidf-s2" in files["REPORT.html"]


def test_a_suite_of_which_every_run_failed_has_a_report(tmp_path: Path, make_result: Callable[..., Result]) -> None:
    folder = write_suite(tmp_path / "s", make_result)
    for path in folder.glob("*.json"):
        if path.name != "lora-s2.json":
            path.unlink()
    text = report_files(read_suite_records(folder))["REPORT.md"]
    assert "**No run of this suite came to its end, so no recipe can be said to meet a target.**" in text
    assert "loss is NaN at step 7" in text
    assert text.count("| no record |") == 11


def test_the_same_records_give_the_same_bytes_wherever_they_lie(suite: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(suite, tmp_path / "elsewhere" / "made_up")
    assert report_files(read_suite_records(suite)) == report_files(read_suite_records(copied))


def test_without_a_suite_file_and_predictions_the_report_says_what_is_not_known(suite: Path) -> None:
    for path in (suite / "suite.toml", *suite.glob("*.predictions.json.gz")):
        path.unlink()
    text = report_files(read_suite_records(suite))["REPORT.md"]
    assert text.startswith("# made_up\n\n**No target was set; the highest test accuracy is that of ")
    assert "per-example predictions were not kept" in text
    assert "the suite names no reference and margin" in text


def test_predictions_of_another_run_are_refused(suite: Path) -> None:
    shutil.copy(suite / "head-s0.predictions.json.gz", suite / "full-s0.predictions.json.gz")
    with pytest.raises(RunError, match=r"full-s0.predictions.json.gz is of another run"):
        read_suite_records(suite)


def test_a_folder_without_records_is_a_mistake_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert "holds no records" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_the_program_writes_the_files_and_prints_json(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(suite), "--out", str(tmp_path / "out"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["answer"].startswith("The cheapest recipe")
    assert said["recipes"]["lora"]["compared_with_reference"] == "non-inferior"
    assert said["not_done"] == {"lora-s2": "failed", "tfidf-s2": "no record"}
    assert all(Path(path).is_file() for path in said["files"])


def test_learning_curves_are_drawn_of_the_metric_lines_that_were_kept(suite: Path) -> None:
    assert "learning_curves.svg" not in report_files(read_suite_records(suite))
    lines = [{"step": n, "epoch": n / 2, "validation": {"accuracy": 0.8 + n / 100}} for n in (2, 4, 6)]
    (suite / "lora-s1.metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    drawn = report_files(read_suite_records(suite))["learning_curves.svg"]
    assert ET.fromstring(drawn).get("aria-label") == "Validation accuracy over epochs"
    assert "lora-s1" in drawn
    assert "full-s0" not in drawn


def test_the_risk_coverage_curve_ends_at_the_accuracy_of_all_rows_and_falls_with_coverage(suite: Path) -> None:
    """The made-up suite is surest where the rows are easiest, so that each curve only falls."""
    findings = find(read_suite_records(suite))
    drawn = {}
    for arm in findings.arms:
        points = suite_tables._risk_coverage(suite_tables._sure(arm))
        right = [hit for _, hit in suite_tables._sure(arm)]
        assert points[-1] == (1.0, pytest.approx(sum(right) / len(right)))
        assert 0.05 <= points[0][0] < 0.06
        assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
        drawn[arm.name] = points
    assert drawn["tfidf"][-1][1] < drawn["lora"][-1][1]


class Outside(HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, _: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]


def test_the_page_fetches_nothing_and_escapes_what_it_shows(suite: Path) -> None:
    files = report_files(read_suite_records(suite))
    reader = Outside()
    reader.feed(files["REPORT.html"])
    assert reader.fetched == ["data:,"]
    assert "url(" not in files["REPORT.html"]
    assert "<title>Made-up suite &lt;&amp;&gt; tickets</title>" in files["REPORT.html"]


def test_every_figure_is_sound_xml_and_named_in_the_markdown(suite: Path) -> None:
    files = report_files(read_suite_records(suite))
    figures = [name for name in files if name.endswith(".svg")]
    wanted = {"accuracy_by_parameters.svg", "accuracy_by_time.svg", "reliability.svg", "risk_coverage.svg"}
    assert wanted <= set(figures)
    for name in figures:
        ET.fromstring(files[name])
        assert f"({name})" in files["REPORT.md"]
    assert "target 0.93" in files["accuracy_by_parameters.svg"]
    assert "full, 95 % interval" in files["accuracy_by_parameters.svg"]


# A folder without it holds the record of a program in benchmarks/, not of a suite.
SUITES = sorted(path.parent for path in RESULTS.glob("*/suite.toml"))


def test_every_folder_of_runs_has_its_suite() -> None:
    assert {path.parent for path in RESULTS.glob("*/*-s?.json")} <= set(SUITES)


@pytest.mark.parametrize("folder", SUITES, ids=lambda path: path.name)
def test_the_committed_report_is_that_of_the_committed_records(folder: Path) -> None:
    """Stale? `peftlab report benchmarks/results/<suite>` writes it anew."""
    for name, text in report_files(read_suite_records(folder)).items():
        assert (folder / name).is_file(), f"{name} is missing: run peftlab report {folder}"
        assert (folder / name).read_text(encoding="utf-8") == text, f"{name} is stale: run peftlab report {folder}"


CLICKS = """
<script>
const table = document.querySelector("table"), head = table.tHead.rows[0].cells[1].querySelector("button");
const names = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent).join(" ");
const before = names(); head.click(); const up = names(); head.click(); const down = names();
document.querySelector(".point").dispatchEvent(new Event("pointerenter"));
const tip = document.getElementById("tip");
document.body.dataset.seen = JSON.stringify([before, up, down, tip.hidden ? "" : tip.textContent,
  document.querySelectorAll("svg.chart").length, document.documentElement.scrollWidth <= innerWidth]);
</script>
"""


@pytest.mark.slow
def test_a_browser_shows_the_page_sorts_it_and_has_nothing_to_complain_of(suite: Path, tmp_path: Path) -> None:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("absent: chromium")
    page = tmp_path / "page.html"
    page.write_text(report_files(read_suite_records(suite))["REPORT.html"] + CLICKS, encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=420,900", "--enable-logging=stderr"]
    done = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    shown = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert shown is not None
    before, up, down, tip, charts, fits = json.loads(shown[1].replace("&quot;", '"'))
    assert before == "head lora tfidf full"
    assert up.startswith("tfidf head ")
    assert down.split() == up.split()[::-1]
    assert re.match(r"\w+: 0\.\d{4} \(", tip)
    assert charts >= 3
    assert fits
