"""READMEs and guides say nothing that is not so: commands parse, paths exist, figures stand in a record."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from peftlab import (
    bench,
    cache,
    calibrate,
    check,
    combine,
    curate,
    doctor,
    export,
    label,
    listing,
    merge,
    plan,
    predict,
    pretrain,
    report,
    search,
    serve,
    show,
    train,
    verify,
)
from peftlab.errors import RecipeError
from peftlab.ladders.ladder import load_ladder
from peftlab.recipe.load import read_pretraining, read_recipe
from peftlab.suites.arms import load_suite

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh.md").read_text(encoding="utf-8")
GUIDE_FILES = sorted((ROOT / "docs" / "guides").glob("*.md"))
GUIDES = [path.read_text(encoding="utf-8") for path in GUIDE_FILES]
PARSERS = {
    "bench": bench.parser,
    "calibrate": calibrate.parser,
    "train": train.parser,
    "pretrain": pretrain.parser,
    "check": check.parser,
    "combine": combine.parser,
    "curate": curate.parser,
    "label": label.parser,
    "predict": predict.parser,
    "export": export.parser,
    "merge": merge.parser,
    "verify": verify.parser,
    "serve": serve.parser,
    "show": show.parser,
    "list": listing.parser,
    "doctor": doctor.parser,
    "cache": cache.parser,
    "report": report.parser,
    "search": search.parser,
    "plan": plan.parser,
}

SHOWN = {
    "mini_zh_thucnews": ("lora_rbt3", "full_rbt3", "full_random"),
    "mini_zh_hotel": ("tfidf", "lora_rbt3"),
}
"""Suites in the table of the encoders' guide, and the recipes whose accuracy stands there."""


def blocks(language: str, text: str = README) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands() -> list[list[str]]:
    """Return the words of every command line in the bash blocks of READMEs and guides, comments taken off."""
    found = [block for text in (README, CHINESE, *GUIDES) for block in blocks("bash", text)]
    lines = [line for block in found for line in block.splitlines()]
    split = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [words for words in split if words]


def test_every_command_of_the_readme_is_known() -> None:
    """Each starts with a program that this test knows how to check; none is passed over."""
    known = {"make", "peftlab", "accelerate", "python3", "pip", ".", "ACCELERATE_USE_CPU=true"}

    assert len(commands()) > 12
    assert {words[0] for words in commands()} <= known


@pytest.mark.parametrize("words", [words for words in commands() if words[0] == "peftlab"], ids=" ".join)
def test_peftlab_commands_parse_and_name_recipes_that_exist(words: list[str]) -> None:
    """By the verb's own parser."""
    asked = PARSERS[words[1]]().parse_intermixed_args(words[2:])
    read = read_pretraining if words[1] == "pretrain" else read_recipe
    for recipe in [word for word in words if word.endswith(".toml")]:
        if words[1] == "bench":
            load_suite(ROOT / recipe)
            continue
        if words[1] == "search":
            load_ladder(str(ROOT / recipe), asked.target)
            continue
        read(ROOT / recipe, [word for word in words[2:] if "=" in word and not word.startswith("--")])


@pytest.mark.parametrize("words", [words for words in commands() if "peftlab.train" in words], ids=" ".join)
def test_launch_lines_run_the_training_program(words: list[str]) -> None:
    """What stands behind `-m peftlab.train` parses."""
    arguments = words[words.index("peftlab.train") + 1 :]
    parsed = train.parser().parse_args(arguments)

    assert (ROOT / parsed.recipe).is_file()


def test_make_targets_exist() -> None:
    """Each `make TARGET` of the README is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = {words[1] for words in commands() if words[0] == "make"}

    assert {"train", "test"} <= named <= targets


@pytest.mark.parametrize("text", [README, CHINESE], ids=["en", "zh"])
def test_the_readmes_recipe_is_one(text: str, tmp_path: Path) -> None:
    """The TOML block reads without a mistake."""
    (tmp_path / "tickets.toml").write_text(blocks("toml", text)[0], encoding="utf-8")
    recipe = read_recipe(tmp_path / "tickets.toml")

    assert (recipe.method.name, recipe.data.label, recipe.evaluation.target) == ("lora", "queue", 0.95)


def test_the_tree_is_the_tree() -> None:
    """Every folder that the README draws exists, and every folder of the package is drawn."""
    tree = next(block for block in blocks("text") if block.startswith("peftlab/"))
    drawn = set(re.findall(r"^  (\w+)/", tree, flags=re.MULTILINE))
    packages = {path.parent.name for path in (ROOT / "peftlab").glob("*/__init__.py")}

    assert drawn == packages
    for name in re.findall(r"^(\w+)/", tree, flags=re.MULTILINE):
        assert (ROOT / name).is_dir(), name


@pytest.mark.parametrize("page", ["README.md", "README.zh.md", *(f"docs/guides/{path.name}" for path in GUIDE_FILES)])
def test_links_lead_somewhere(page: str) -> None:
    """Relative links are files."""
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]

    assert links or page.startswith("docs")
    for link in links:
        assert ((ROOT / page).parent / link).exists(), link


def test_every_guide_is_named_in_the_readme() -> None:
    assert [path.name for path in GUIDE_FILES if f"docs/guides/{path.name}" not in README] == []


@pytest.mark.parametrize("path", GUIDE_FILES, ids=lambda path: str(path.name))
def test_recipes_in_guides_are_recipes(path: Path, tmp_path: Path) -> None:
    """Each TOML block reads without a mistake."""
    for number, block in enumerate(blocks("toml", path.read_text(encoding="utf-8"))):
        (tmp_path / f"{number}.toml").write_text(block, encoding="utf-8")
        assert read_recipe(tmp_path / f"{number}.toml").task.name


def test_the_table_of_figures_is_that_of_the_records() -> None:
    """Accuracy, interval, parameters and bytes of each row come from the committed result of that run."""
    folders = [ROOT / "benchmarks" / "results" / name for name in ("banking77_recipes", "tickets_recipes")]
    files = [path for folder in folders for path in folder.glob("*-s0.json")]
    records = {path.stem.removesuffix("-s0"): json.loads(path.read_text("utf-8")) for path in files}
    table = README.partition("## How good, at what price")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", table, flags=re.MULTILINE)

    assert len(rows) == len(records) == 8
    for name, cells in rows:
        record = records[name]
        accuracy = record["metrics"]["test"]["accuracy"]
        parameters = record["parameters"]
        assert [cell.strip() for cell in cells.split("|")][:4] == [
            f"{accuracy['value']:.4f}",
            f"{accuracy['low']:.4f} to {accuracy['high']:.4f}",
            f"{parameters['trainable']:,} ({parameters['trainable'] / parameters['total']:.2%})",
            f"{parameters['shipped_bytes'] / 1e6:.2f} MB",
        ]


def test_the_worked_answer_says_what_the_records_say() -> None:
    """Every measured figure of the guide, written anew from the committed records."""
    guide = (ROOT / "docs" / "guides" / "no_budget.md").read_text(encoding="utf-8")
    folder = ROOT / "benchmarks" / "results"

    def read(name: str) -> Any:
        return json.loads((folder / name).read_text(encoding="utf-8"))

    def points(of: Any) -> str:
        return f"{100 * of['value']:+.2f} points ({100 * of['low']:.2f} to {100 * of['high']:.2f})"

    said = []
    for name in ("tfidf", "probe_rbt3", "lora_rbt3", "full_rbt3"):
        record = read(f"tickets_recipes/{name}-s0.json")
        accuracy, parameters = record["metrics"]["test"]["accuracy"], record["parameters"]
        share = parameters["trainable"] / parameters["total"]
        interval = f"{accuracy['value']:.4f} ({accuracy['low']:.4f} to {accuracy['high']:.4f})"
        said.append(f"| `{name}` | {interval} | {100 * share:.2f} % |")
        if name in ("lora_rbt3", "full_rbt3"):
            said.append(f"{parameters['shipped_bytes'] / 1e6:.2f} MB")
    curated = ("tickets-zh", "tickets-en", "banking77", "top_layers_tickets_en")
    said += [points(read(f"curation/{name}.json")["difference"]) for name in curated]
    seeds = read("curation/tickets-zh.json")["seeds"]
    recall, precision = (
        sum(seed[figure]["value"] for seed in seeds) / len(seeds) for figure in ("recall", "precision")
    )
    said += [f"{recall:.2f} of the flips", f"and {precision:.2f} of what"]
    said.append(f"with {read('active_learning/banking77.json')['reached']['ratio']:.2f} of them")
    taught = read("distillation/lora_minilm_sst2.json")
    said.append(points(taught["student_minus_single"]))
    said.append(f"gained {100 * (taught['ensemble']['value'] - taught['single']['value']):.2f}")
    routed = read("calibration/banking77_and_tickets.json")["runs"][0]["targets"][0]["test"]
    said += [f"{100 * routed['coverage']['value']:.1f} %", f"{100 * routed['accuracy']['value']:.1f} %"]
    small = read("export_latency/lora_minilm_banking77.json")["models"]
    lost = small["onnx_int8-int8"]["accuracy_minus_run"]
    said.append(f"{small['onnx_int8-int8']['p50_of_run']:.2f} of the time")
    said.append(f"lost {-100 * lost['value']:.2f} points ({-100 * lost['high']:.2f} to {-100 * lost['low']:.2f})")
    said.append(f"{small['run']['accuracy']['value']:.4f} accurate")
    search = json.loads((ROOT / "benchmarks" / "searches" / "tickets_zh" / "search.json").read_text(encoding="utf-8"))
    said.append(search["sentence"])
    for name in ("banking77", "online_shopping"):
        found = json.loads((ROOT / "benchmarks" / "searches" / name / "search.json").read_text(encoding="utf-8"))
        test = found["metric"]
        said.append(f"{test['value']:.4f} ({test['low']:.4f} to {test['high']:.4f}), where {found['target']:g} was")
    text = " ".join(guide.split())
    assert [figure for figure in said if figure not in text] == []


def test_what_the_bundled_encoder_is_worth_is_what_the_records_say() -> None:
    """Means over seeds, the lowest and the highest, and the share that LoRA trains."""
    guide = (ROOT / "docs" / "guides" / "encoders.md").read_text(encoding="utf-8")
    for suite, names in SHOWN.items():
        for name in names:
            files = [ROOT / "benchmarks" / "results" / suite / f"{name}-s{seed}.json" for seed in (0, 1, 2)]
            records = [json.loads(path.read_text(encoding="utf-8")) for path in files]
            reached = [record["metrics"]["test"]["accuracy"]["value"] for record in records]
            shown = f"{sum(reached) / 3:.4f} ({min(reached):.4f} to {max(reached):.4f})"
            if name == "lora_rbt3":
                parameters = records[0]["parameters"]
                shown += f", {100 * parameters['trainable'] / parameters['total']:.2f} %"
            (row,) = [line for line in guide.splitlines() if f"{suite}/REPORT.md" in line]
            assert f"| {shown if min(reached) < max(reached) else f'{reached[0]:.4f}'} |" in row


def test_the_mistakes_shown_are_what_such_a_recipe_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's recipe with two slips gives the two lines that stand there."""
    monkeypatch.chdir(tmp_path)
    slips = blocks("toml")[0].replace('name = "classification"', 'nmae = "classification"').replace("r = 8", 'r = "8"')
    Path("tickets.toml").write_text(slips, encoding="utf-8")
    with pytest.raises(RecipeError) as raised:
        read_recipe(Path("tickets.toml"))

    assert str(raised.value).splitlines() == blocks("text")[0].splitlines()
