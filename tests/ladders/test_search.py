"""`peftlab search`: the first rung that suffices, within every ceiling, and the same verdict after any kill."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from killing import fork_server, start_program
from made_up import MadeUp, in_this_process

from peftlab.errors import Interrupted, RecipeError, UserError
from peftlab.ladders import climb
from peftlab.search import search

RUNGS = """
[[rungs]]
name = "tfidf"
method = "tfidf"
[[rungs]]
name = "probe"
method = "probe"
[[rungs]]
name = "clean"
waits_for = "curators"
[[rungs]]
name = "lora"
method = "lora"
overrides = ["method.r=2"]
[[rungs]]
name = "full"
method = "full"
trials = 1
"""

WriteLadder = Callable[..., Path]


def found(ladder: Path, folder: Path, made: MadeUp, **changed: Any) -> dict[str, Any]:
    return search(str(ladder), folder / "records", folder / "runs", do=made.do, **changed)[0]


def states(record: dict[str, Any]) -> dict[str, str]:
    return {one["rung"]: one["state"] for one in record["rungs"]}


def core(record: dict[str, Any]) -> dict[str, Any]:
    """Return what does not depend on a clock."""
    trials = [
        [(one["name"], one["state"], one["validations"], one["last"]) for one in rung["trials"]]
        for rung in record["rungs"]
    ]
    kept = {key: record[key] for key in ("verdict", "rung", "metric", "what_would_change_it")}
    return {**kept, "trials": trials, "states": states(record), "chosen": [one["chosen"] for one in record["rungs"]]}


def test_the_ladder_stops_at_the_first_rung_that_suffices(
    write_ladder: WriteLadder, tmp_path: Path, made_up: MadeUp
) -> None:
    """Nothing dearer is begun, and the page says so."""
    made_up.accuracies = {"tfidf": 0.8, "probe": 0.96, "lora": 0.99}
    record = found(write_ladder(tmp_path, "target = 0.9\n" + RUNGS), tmp_path, made_up)
    assert (record["verdict"], record["rung"]) == ("reached", "probe")
    assert made_up.done == ["tfidf", "probe"]
    assert record["metric"]["low"] >= 0.9
    assert record["sentence"].startswith("reached by probe at ")
    assert states(record) == {
        "tfidf": "climbed",
        "probe": "climbed",
        "clean": "not begun",
        "lora": "not begun",
        "full": "not begun",
    }
    records = tmp_path / "records" / "tiny"
    page = (records / "SEARCH.md").read_text(encoding="utf-8")
    assert "| probe | probe | 0.9600 |" in page
    assert "+16.00 points (" in page
    assert "<svg" in (records / "SEARCH.html").read_text(encoding="utf-8")
    assert json.loads((records / "search.json").read_text(encoding="utf-8")) == record


def test_a_target_out_of_reach_says_by_how_much_and_what_would_change_it(
    write_ladder: WriteLadder, tmp_path: Path, made_up: MadeUp
) -> None:
    """The error of the probe halves with four times the rows, so it takes 15 times as many more for a quarter of it."""
    made_up.accuracies = {
        "tfidf": 0.7,
        "probe": 0.9,
        "probe-curve4": 0.8,
        "probe-curve2": 1 - 0.2 / 2**0.5,
        "lora": 0.92,
    }
    ladder = write_ladder(tmp_path, "target = 0.98\n" + RUNGS + '[[rungs]]\nname = "far"\nwaits_for = "a"\n')
    record = found(ladder, tmp_path, made_up)
    assert (record["verdict"], record["rung"]) == ("not_reachable", "lora")
    labels = record["what_would_change_it"]["labels"]
    assert labels["curve_of"] == "probe"
    assert labels["exponent"] == pytest.approx(0.5, abs=0.01)
    assert labels["rows"] == pytest.approx(60 * 15, rel=0.05)
    assert labels["low"] < labels["rows"] < labels["high"]
    assert "wholly below the target 0.98, by 6.00 points" in record["sentence"]
    assert "more labels" in record["sentence"]
    assert "the next dearer encoder" in record["sentence"]
    assert states(record)["clean"] == "left out"


def test_what_would_change_it_is_no_rung_that_stood_before_the_best_one(
    write_ladder: WriteLadder, tmp_path: Path, made_up: MadeUp
) -> None:
    whole = '[[rungs]]\nname = "whole"\nmethod = "full"\ntrials = 1\n'
    lora = '[[rungs]]\nname = "lora"\nmethod = "lora"\noverrides = ["method.r=2"]\n'
    more = "target = 0.98\n[ceilings]\ntrainable_parameters = 3000\n"
    made_up.accuracies = {"lora": 0.9}
    record = found(write_ladder(tmp_path, more + whole + lora), tmp_path, made_up)
    assert states(record) == {"whole": "left out", "lora": "climbed"}
    assert record["what_would_change_it"]["rung"].startswith("the next dearer encoder")


def test_a_finished_search_gives_its_verdict_again_without_doing_anything(
    write_ladder: WriteLadder, tmp_path: Path, made_up: MadeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where reading it all again would take more minutes than are left; the test rows are not looked at twice."""
    more = "target = 0.98\n[ceilings]\nminutes = 10\n" + RUNGS
    made_up.accuracies = {"tfidf": 0.7, "probe": 0.9, "lora": 0.92}
    made_up.seconds = {"lora": 100}
    ladder = write_ladder(tmp_path, more)
    record = found(ladder, tmp_path, made_up)
    page = (tmp_path / "records" / "tiny" / "SEARCH.html").read_bytes()
    assert (record["verdict"], record["rung"]) == ("not_reachable", "lora")
    done = list(made_up.done)

    state = tmp_path / "runs" / "tiny" / "search.state.json"
    state.write_text(json.dumps(json.loads(state.read_text(encoding="utf-8")) | {"spent": 599.0}), encoding="utf-8")
    monkeypatch.setattr("peftlab.ladders.verdict.score_once", lambda *_: pytest.fail("scored again"))
    assert found(ladder, tmp_path, made_up) == record
    assert made_up.done == done
    assert (tmp_path / "records" / "tiny" / "SEARCH.html").read_bytes() == page


def test_a_rung_above_a_ceiling_is_left_out_and_named(
    write_ladder: WriteLadder, tmp_path: Path, made_up: MadeUp
) -> None:
    more = "target = 0.98\n[ceilings]\ntrainable_parameters = 3000\n" + RUNGS
    record = found(write_ladder(tmp_path, more), tmp_path, made_up)
    assert states(record)["full"] == "left out"
    assert "the rung full (" in record["sentence"]
    assert "trainable parameters against budget.trainable_parameters = 3,000" in record["sentence"]
    assert not any(name.startswith("full") for name in made_up.done)


def test_validation_that_promises_too_much_is_not_believed(
    write_ladder: WriteLadder, tmp_path: Path, made_up: MadeUp
) -> None:
    """The verdict is taken on the test split, which is looked at once."""
    made_up.accuracies = {"tfidf": 0.96, "test": 0.9}
    record = found(write_ladder(tmp_path, "target = 0.92\n" + RUNGS), tmp_path, made_up)
    assert (record["verdict"], record["rung"], record["metric"]["value"]) == ("not_reachable", "tfidf", 0.9)


def test_hopeless_trials_are_cut_off_and_the_best_rate_is_chosen(
    write_ladder: WriteLadder, tmp_path: Path, made_up: MadeUp
) -> None:
    """The default rate comes first; the next one is worse after its first validation, the last one better."""
    made_up.values = {"lora-lr0": [0.6, 0.7, 0.8], "lora-lr1": [0.4, 0.9, 0.99], "lora-lr2": [0.7, 0.8, 0.9]}
    made_up.accuracies = {"lora-lr0": 0.8, "lora-lr1": 0.99, "lora-lr2": 0.9}
    record = found(write_ladder(tmp_path, "target = 0.97\n" + RUNGS), tmp_path, made_up)
    (lora,) = [one for one in record["rungs"] if one["rung"] == "lora"]
    assert [(one["state"], one["validations"]) for one in lora["trials"]] == [
        ("complete", 3),
        ("pruned", 1),
        ("complete", 3),
    ]
    assert lora["chosen"] == "lora-lr2"
    assert lora["trials"][0]["learning_rate"] == pytest.approx(5e-4, rel=0.6)


def test_the_rate_that_the_recipe_states_for_a_method_is_tried_first(
    write_ladder: WriteLadder, tmp_path: Path, made_up: MadeUp
) -> None:
    """In place of the nearest rate of the method's grid; it says nothing of other methods."""
    own = 'overrides = [\'method={name = "lora"}\', "train.learning_rate=3e-3"]\n'
    record = found(write_ladder(tmp_path, "target = 0.97\n" + own + RUNGS), tmp_path, made_up)
    rates = {one["rung"]: [trial["learning_rate"] for trial in one["trials"]] for one in record["rungs"]}
    assert rates["lora"] == pytest.approx([3e-3, 5.95e-4, 1.58e-4], rel=0.01)
    assert 3e-3 not in rates["full"]


def test_the_minutes_end_a_search_with_the_best_so_far(
    write_ladder: WriteLadder, tmp_path: Path, made_up: MadeUp
) -> None:
    """The run that was at work is stopped by its own ceiling, and what it had counts."""
    made_up.accuracies = {"tfidf": 0.7, "lora": 0.8}
    made_up.seconds = {"lora": 1000.0}
    more = "target = 0.95\n[ceilings]\nminutes = 5\n" + RUNGS
    ladder = write_ladder(tmp_path, more)
    record = found(ladder, tmp_path, made_up)
    assert (record["verdict"], record["rung"]) == ("out_of_budget", "lora")
    assert record["cost"]["minutes"] <= 5
    assert made_up.done == ["tfidf", "probe", "lora-lr0"]
    assert states(record)["full"] == "not begun"
    assert "out of budget: the minutes were used up" in record["sentence"]
    assert "the rung full (the minutes were used up)" in record["sentence"]
    assert found(ladder, tmp_path, made_up) == record
    assert len(made_up.done) == 3


def test_what_is_recorded_is_not_run_again(write_ladder: WriteLadder, tmp_path: Path, made_up: MadeUp) -> None:
    ladder = write_ladder(tmp_path, "target = 0.97\n" + RUNGS)
    first = found(ladder, tmp_path, made_up)
    before, made_up.done = list(made_up.done), []
    assert core(found(ladder, tmp_path, made_up)) == core(first)
    assert (len(before), made_up.done) == (8, [])


def test_a_rung_that_the_clock_cuts_short_does_not_undo_those_that_are_recorded(
    write_ladder: WriteLadder, tmp_path: Path, made_up: MadeUp
) -> None:
    """The first rung's record is lost, and the time left is not enough to do it again."""
    made_up.accuracies, made_up.seconds = {"lora": 0.9}, {"tfidf": 100}
    ladder = write_ladder(tmp_path, "target = 0.97\n[ceilings]\nminutes = 30\n" + RUNGS)
    assert found(ladder, tmp_path, made_up)["rung"] == "lora"
    before, made_up.done = list(made_up.done), []
    (tmp_path / "records" / "tiny" / "tfidf.trial.json").unlink()
    state = tmp_path / "runs" / "tiny" / "search.state.json"
    state.write_text(json.dumps(json.loads(state.read_text(encoding="utf-8")) | {"spent": 1740.0}), encoding="utf-8")

    record = found(ladder, tmp_path, made_up)
    assert made_up.done == ["tfidf"]
    assert "lora-lr0" in before
    assert (record["rung"], record["verdict"]) == ("lora", "out_of_budget")
    assert states(record)["probe"] == states(record)["lora"] == "climbed"


def test_an_interrupted_search_goes_on_to_the_same_verdict(
    write_ladder: WriteLadder, tmp_path: Path, made_up: MadeUp
) -> None:
    """Stopped before every run in turn, each sitting a new one; the time of all sittings counts."""
    made_up.values = {"lora-lr0": [0.6, 0.7], "lora-lr1": [0.4, 0.9], "lora-lr2": [0.7, 0.8]}
    made_up.accuracies = {"tfidf": 0.6, "probe": 0.7, "lora": 0.8}
    more = "target = 0.97\n[ceilings]\nminutes = 60\n" + RUNGS
    whole = found(write_ladder(tmp_path / "whole", more), tmp_path / "whole", made_up)
    ladder, seen = write_ladder(tmp_path / "cut", more), set[str]()

    def interrupt(name: str) -> None:
        if name not in seen:
            seen.add(name)
            raise Interrupted(15, "killed")

    made_up.before = interrupt
    record, sittings = None, 0
    while record is None:
        sittings += 1
        try:
            record = found(ladder, tmp_path / "cut", made_up)
        except Interrupted:
            continue
    assert sittings == 9
    assert core(record) == core(whole)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    minutes=some.floats(0.5, 20),
    seconds=some.dictionaries(some.sampled_from(["tfidf", "probe", "lora", "full", "test"]), some.floats(0.1, 600)),
    target=some.floats(0.3, 0.99),
)
def test_no_search_takes_longer_than_its_minutes(
    minutes: float, seconds: dict[str, float], target: float, write_ladder: WriteLadder, made_up: MadeUp
) -> None:
    """Whatever its runs take, since each is given what is left; the test split is as quick as validation was."""
    made_up.accuracies = {"tfidf": 0.6, "probe": 0.7, "lora": 0.8, "full": 0.9}
    made_up.seconds = {**seconds, "test": min(seconds.get("test", 1.0), 5.0)}
    more = f"target = {target}\n[ceilings]\nminutes = {minutes}\n" + RUNGS
    with tempfile.TemporaryDirectory() as name:
        record = found(write_ladder(Path(name), more), Path(name), made_up)
    assert record["cost"]["minutes"] <= minutes + 1e-3
    assert record["verdict"] in ("reached", "not_reachable", "out_of_budget")


REAL = """
trials = 1
[[rungs]]
name = "tfidf"
method = "tfidf"
[[rungs]]
name = "head"
[[rungs]]
name = "lora"
method = "lora"
overrides = ["train.max_steps=2"]
"""


@pytest.mark.slow
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ceilings=some.fixed_dictionaries(
        {},
        optional={
            "trainable_parameters": some.integers(50, 20_000),
            "shipped_mb": some.floats(0.001, 0.1),
            "labels": some.integers(6, 59),
        },
    )
)
def test_no_search_answers_with_a_run_above_a_ceiling(
    ceilings: dict[str, float], write_ladder: WriteLadder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """On real runs of tiny models, none of whose records is above either."""
    folder = tmp_path_factory.mktemp("search")
    listed = "".join(f"{name} = {value}\n" for name, value in ceilings.items())
    ladder = write_ladder(folder, f"target = 0.95\n{REAL}[ceilings]\n{listed}")
    record = search(str(ladder), folder / "records", folder / "runs", do=in_this_process)[0]
    cost = record["cost"]
    if record["rung"] is not None:
        assert cost["trainable_parameters"] <= ceilings.get("trainable_parameters", 1e9)
        assert cost["shipped_bytes"] <= 1e6 * ceilings.get("shipped_mb", 1e9)
        assert cost["labels"] <= ceilings.get("labels", 60)
        assert record["metric"]["n"] == 24
    for one in record["rungs"]:
        if one["state"] == "climbed":
            assert one["trainable_parameters"] <= ceilings.get("trainable_parameters", 1e9)
            assert one["shipped_bytes"] <= 1e6 * ceilings.get("shipped_mb", 1e9)


@pytest.mark.slow
def test_a_rung_is_taught_by_the_runs_of_those_before_it(write_ladder: WriteLadder, tmp_path: Path) -> None:
    """By those that were climbed; without any it is left out. On real runs of tiny models."""
    rungs = """
trials = 1
[[rungs]]
name = "probe"
method = "probe"
[[rungs]]
name = "taught"
overrides = ["train.max_steps=2", "distill.weight=0.9"]
teachers = ["probe"]
"""
    ladder = write_ladder(tmp_path, "target = 0.999\n" + rungs)
    record = search(str(ladder), tmp_path / "records", tmp_path / "runs", do=in_this_process)[0]
    assert states(record) == {"probe": "climbed", "taught": "climbed"}
    kept = json.loads((tmp_path / "records" / "tiny" / "taught.json").read_text(encoding="utf-8"))
    assert kept["distilled"]["teachers"] == [str((tmp_path / "runs" / "tiny" / "probe").resolve())]
    alone = rungs.replace('method = "probe"', 'method = "probe"\nwaits_for = "a reason"')
    ladder = write_ladder(tmp_path / "alone", "target = 0.999\n" + alone)
    record = search(str(ladder), tmp_path / "alone" / "records", tmp_path / "alone" / "runs", do=in_this_process)[0]
    assert (record["verdict"], record["rung"], record["metric"]) == ("not_reachable", None, None)
    assert record["rungs"][1]["reason"] == "none of its teachers was climbed"


SHORT = """
trials = 1
[[rungs]]
name = "head"
overrides = ["train.max_steps=1"]
[[rungs]]
name = "tfidf"
method = "tfidf"
[[rungs]]
name = "full"
method = "full"
"""


@pytest.mark.slow
def test_a_search_killed_at_random_and_run_again_gives_the_same_verdict(
    write_ladder: WriteLadder, tmp_path: Path
) -> None:
    """The real program, its runs processes of their own, killed with SIGKILL at two moments drawn by chance."""
    ladder = write_ladder(tmp_path, "target = 0.5\n" + SHORT)
    context = fork_server()
    words = [str(ladder), "--records", str(tmp_path / "records"), "--runs", str(tmp_path / "runs"), "--threads", "1"]
    draw = random.Random()
    for _ in range(2):
        child = context.Process(target=start_program, args=("peftlab.search", words, str(tmp_path / "log.txt")))
        child.start()
        child.join(draw.uniform(0.5, 9))
        child.kill()
        child.join()
    child = context.Process(target=start_program, args=("peftlab.search", words, str(tmp_path / "log.txt")))
    child.start()
    child.join(500)
    assert child.exitcode == 0, (tmp_path / "log.txt").read_text(encoding="utf-8")
    record = json.loads((tmp_path / "records" / "tiny" / "search.json").read_text(encoding="utf-8"))
    whole = search(str(ladder), tmp_path / "w-records", tmp_path / "w-runs", do=in_this_process, threads=1)[0]
    assert core(record) == core(whole)
    assert (record["verdict"], record["rung"]) == ("reached", "tfidf")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("target = 2.0\n", "tiny.toml:4: target: expected a number"),
        ("targett = 0.5\n", "tiny.toml:4: targett: unknown key; did you mean target?"),
        ("target = 0.5\n[ceilings]\nminute = 3\n", "unknown key in [ceilings]; did you mean minutes?"),
        ('target = 0.5\n[[rungs]]\nname = "a"\nmethod = "lorra"\n', 'there is no method "lorra"; did you mean "lora"?'),
        ('target = 0.5\n[[rungs]]\nname = "a"\nteachers = ["b"]\n', '"b" is no earlier rung; they are none'),
        ('target = 0.5\n[[rungs]]\nname = "a"\n[[rungs]]\nname = "a"\n', "there is a rung named a already"),
        ('target = 0.5\n[[rungs]]\nname = "a"\noverrides = ["train.epoch=3"]\n', "did you mean epochs?"),
        ('[[rungs]]\nname = "a"\n', "the ladder has no target"),
    ],
)
def test_a_mistake_in_a_ladder_is_a_sentence_before_the_first_run(
    more: str, sentence: str, write_ladder: WriteLadder, tmp_path: Path, made_up: MadeUp
) -> None:
    with pytest.raises((RecipeError, UserError)) as raised:
        found(write_ladder(tmp_path, more), tmp_path, made_up)
    assert sentence in str(raised.value)
    assert made_up.done == []


def test_a_training_recipe_is_climbed_by_the_default_ladder_within_its_own_budget(
    write_ladder: WriteLadder, tmp_path: Path, made_up: MadeUp
) -> None:
    write_ladder(tmp_path, "")
    recipe = tmp_path / "base.toml"
    with pytest.raises(UserError, match="a search needs a target"):
        found(recipe, tmp_path, made_up)
    budget = "\n[budget]\ntarget = 0.9\nminutes = 30\ntrainable_parameters = 5000\n"
    recipe.write_text(recipe.read_text(encoding="utf-8") + budget, encoding="utf-8")
    made_up.accuracies = {"probe": 0.95}
    record = found(recipe, tmp_path, made_up)
    assert (record["verdict"], record["rung"]) == ("reached", "probe")
    assert record["ceilings"] == {"trainable_parameters": 5000, "minutes": 30.0}


def test_a_target_of_the_command_line_is_enough(write_ladder: WriteLadder, tmp_path: Path, made_up: MadeUp) -> None:
    """For a recipe, and for a ladder, that says none of its own."""
    ladder = write_ladder(tmp_path, RUNGS)
    made_up.accuracies = {"probe": 0.95}
    for asked in (tmp_path / "base.toml", ladder):
        record = found(asked, tmp_path, made_up, target=0.9)
        assert (record["verdict"], record["rung"], record["target"]) == ("reached", "probe", 0.9)


def test_the_looks_at_validation_are_counted_as_the_page_says(
    write_ladder: WriteLadder, tmp_path: Path, made_up: MadeUp
) -> None:
    record = found(write_ladder(tmp_path, "target = 0.97\n" + RUNGS), tmp_path, made_up)
    assert record["looks_at_validation"] == 4
    page = (tmp_path / "records" / "tiny" / "SEARCH.md").read_text(encoding="utf-8")
    assert "looked at 4 times" in page
    assert "with a probability of up to 10 %" in page
    assert climb.LOOK_SECONDS > 0
