"""A recipe is read whole, or every mistake in it is named with its place."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from peftlab.errors import RecipeError
from peftlab.recipe import plugins
from peftlab.recipe.load import read_recipe

Write = Callable[..., Path]

SIX_MISTAKES = """\
[encoder]
name = "bundled:minilm-en"
pooling = "men"

[task]
name = "clasification"

[data]
source = "builtin:tickets-en"
split = [
  0.6,
  "a",
  0.2,
]

[method]
name = "lora"
r = "16"
learning_rate = 3e-4

[train]
sed = 1
"""

SIX_LINES = """\
recipe.toml:3: encoder.pooling: expected one of "auto", "native", "mean", "cls", found "men"; did you mean "mean"?
recipe.toml:6: task.name: expected one of "classification", found "clasification"; did you mean "classification"?
recipe.toml:12: data.split: expected a list of 3 values, each a number of at least 0 and below 1, found "a" as value 2
recipe.toml:18: method.r: expected a whole number above 0, found "16"; write 16 without quotes
recipe.toml:19: method.learning_rate: unknown key in [method]; learning_rate belongs to [train]
recipe.toml:22: train.sed: unknown key in [train]; did you mean seed?"""


def refused(path: Path, *overrides: str) -> list[str]:
    """Return the lines with which reading `path` is refused."""
    with pytest.raises(RecipeError) as refusal:
        read_recipe(path, overrides)
    return str(refusal.value).splitlines()


def test_a_sound_recipe_becomes_typed_records(recipe_file: Write) -> None:
    recipe = read_recipe(recipe_file())
    assert recipe.name == "recipe"
    assert recipe.path == Path("recipe.toml")
    assert recipe.method.name == "lora"
    assert recipe.method.config.r == 4  # type: ignore[attr-defined]
    assert recipe.data.split == (0.6, 0.2, 0.2)
    assert recipe.train.learning_rate == "auto"


def test_six_different_mistakes_are_six_located_lines(recipe_file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    from peftlab.recipe import plugins

    # The list of tasks in the text must not change with every task that is added.
    names = plugins.plugin_names
    monkeypatch.setattr(
        plugins, "plugin_names", lambda folder: ("classification",) if folder == "tasks" else names(folder)
    )
    assert refused(recipe_file(SIX_MISTAKES)) == SIX_LINES.splitlines()


def test_mistakes_are_found_without_the_slow_imports(recipe_file: Write) -> None:
    path = recipe_file(SIX_MISTAKES)
    script = (
        "import sys\nfrom pathlib import Path\nfrom peftlab.recipe.load import read_recipe\n"
        "from peftlab.errors import RecipeError\n"
        "try:\n    read_recipe(Path(sys.argv[1]))\nexcept RecipeError as error:\n    print(len(error.mistakes))\n"
        "print(sorted({'torch', 'transformers', 'peft', 'sklearn', 'datasets', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["6", "[]"]


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("[train]\nbatch_size = true", "train.batch_size: expected a whole number above 0, found true"),
        ("[train]\nbatch_size = 8.0", "train.batch_size: expected a whole number above 0, found 8.0; write 8"),
        ("[train]\nbatch_size = 0", "train.batch_size: expected a whole number above 0, found 0"),
        (
            "[train]\nseed = 4294967296",
            "train.seed: expected a whole number of at least 0 and below 4294967296, found 4294967296",
        ),
        ("[train]\nepochs = nan", "train.epochs: expected a number above 0, found nan"),
        ("[train]\nepochs = inf", "train.epochs: expected a number above 0, found inf"),
        (
            "[train]\nwarmup = 1979-05-27",
            "train.warmup: expected a number of at least 0 and below 1, found 1979-05-27",
        ),
        ("[run]\ndir = 1979-05-27", 'run.dir: expected text, or "none", found 1979-05-27'),
        ("[run]\ntrackers = 1979-05-27", "run.trackers: expected a list in which each value is text, found 1979-05-27"),
        (
            "[run]\ntrackers = 'wandb'",
            'run.trackers: expected a list in which each value is text, found "wandb"; write ["wandb"]',
        ),
        (
            "[train]\nlearning_rate = '1e-4'",
            'train.learning_rate: expected a number above 0 and below 10, or "auto", found "1e-4"; '
            "write 0.0001 without quotes",
        ),
        (
            "[train]\nmax_steps = 0x10000000000000000",
            'train.max_steps: expected a whole number above 0, or "none", found a number beyond 64 bit',
        ),
        (
            "[optimizer]\nclip = ''",
            'optimizer.clip: expected a number above 0, or "none", found ""; write "none", or leave the key out',
        ),
        ("[budget]\nshipped_mb = { a = 1 }", 'budget.shipped_mb: expected a number above 0, or "none", found a table'),
    ],
)
def test_a_refused_value_says_what_was_expected_and_found(
    recipe_file: Write, with_sections: Callable[..., str], line: str, mistake: str
) -> None:
    assert refused(recipe_file(with_sections(line))) == [f"recipe.toml:15: {mistake}"]


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("[optimizer]\nlearning_rate = 1e-4", "unknown key in [optimizer]; learning_rate belongs to [train]"),
        ("[encoder.x]\ny = 1", "unknown key in [encoder]; its keys are name, stand_in, revision, pooling"),
        ("[train]\nBatch-Size = 1", "unknown key in [train]; did you mean batch_size?"),
        ("[train]\ntest_split_share = 1", "unknown key in [train]; its keys are epochs, max_steps"),
        ("[data.checks]\nduplicate = 'stop'", "unknown key in [data.checks]; did you mean duplicates?"),
        ("[run]\nimbalance = 'stop'", "unknown key in [run]; imbalance belongs to [data.checks]"),
        ("[run]\nlearning_rat = 1", "unknown key in [run]; did you mean learning_rate in [train]?"),
        ("[run]\nname = 'x'", "unknown key in [run]; its keys are dir, trackers"),
    ],
)
def test_an_unknown_key_comes_with_the_nearest_help(recipe_file: Write, line: str, mistake: str) -> None:
    # Keys are looked at with or without the rest of the recipe.
    lines = refused(recipe_file(line))
    assert any(mistake in found for found in lines), lines


def test_a_setting_of_another_method_is_named_as_such(recipe_file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"tasks": ("classification",), "methods": ("full", "lora")}
    monkeypatch.setattr(plugins, "plugin_names", known.__getitem__)
    text = recipe_file().read_text().replace('"lora"', '"full"')
    assert refused(recipe_file(text)) == [
        "recipe.toml:12: method.r: unknown key in [method]; r is a setting of lora, and this recipe's method is full"
    ]


def test_a_setting_of_many_other_methods_names_two_of_them(recipe_file: Write) -> None:
    (line,) = refused(recipe_file(recipe_file().read_text().replace('"lora"', '"full"')))
    assert re.search(r"; r is a setting of \w+, \w+ and \d+ others, and this recipe's method is full$", line)


def test_sections_that_are_missing_misspelt_or_no_tables_are_one_mistake_each(recipe_file: Write) -> None:
    lines = refused(recipe_file("seed = 1\ntrain = 3\n[metod]\nname = 'lora'\n[[run]]\ndir = 'x'\n"))
    assert [line.split(";")[0] for line in lines] == [
        "recipe.toml:1: seed: no section has this name",
        "recipe.toml:2: train: expected a section, written [train], found 3",
        "recipe.toml:3: metod: no section has this name",
        'recipe.toml:5: run: expected a section, written [run], found [{dir = "x"}]',
        "recipe.toml: task: the section is missing",
        "recipe.toml: data: the section is missing",
    ]
    assert lines[0].endswith("; seed belongs to [train]")
    assert lines[2].endswith("; did you mean [method]?")


@pytest.mark.parametrize(("method", "needed"), [("lora", True), ("tfidf", False)])
def test_an_encoder_is_needed_only_where_the_method_has_one(recipe_file: Write, method: str, needed: bool) -> None:
    path = recipe_file(f'task.name = "classification"\ndata.source = "banking77"\nmethod.name = "{method}"\n')
    if needed:
        assert refused(path)[0].startswith(
            "recipe.toml: encoder: the section is missing, and lora needs an encoder; add [encoder]"
        )
    else:
        assert read_recipe(path).encoder is None
        assert read_recipe(path, ["encoder.name=x"]).encoder is not None


def test_a_required_key_that_is_missing_or_misspelt_is_one_mistake(recipe_file: Write) -> None:
    sound = recipe_file().read_text()
    assert refused(recipe_file(sound.replace('name = "bundled', 'nmae = "bundled'))) == [
        "recipe.toml:2: encoder.nmae: unknown key in [encoder]; did you mean name?"
    ]
    assert refused(recipe_file(sound.replace('name = "bundled:minilm-en"', ""))) == [
        "recipe.toml:1: encoder.name: missing; expected text that is not empty"
    ]
    assert refused(recipe_file(sound.replace('name = "lora"', 'nam = "lora"')))[0].startswith(
        "recipe.toml:11: method.nam: name is missing; expected one of "
    )


def test_a_method_that_does_not_exist_is_met_with_the_list(recipe_file: Write) -> None:
    (line,) = refused(recipe_file(recipe_file().read_text().replace('"lora"', '"LoRa"')))
    assert line.startswith("recipe.toml:11: method.name: expected one of ")
    assert '"full", ' in line
    assert line.endswith('found "LoRa"; did you mean "lora"?')


def test_none_unsets_a_key_that_may_be_unset(recipe_file: Write, with_sections: Callable[..., str]) -> None:
    text = with_sections("[optimizer]\nclip = 'none'\n[run]\ndir = 'none'\n[task.class_weights]\na = 1\n")
    recipe = read_recipe(recipe_file(text))
    assert recipe.optimizer.clip is None
    assert recipe.run.dir is None


def test_none_stays_a_word_where_the_key_has_such_a_word(recipe_file: Write) -> None:
    text = recipe_file().read_text().replace('"classification"', '"classification"\nclass_weights = "none"')
    assert read_recipe(recipe_file(text)).task.config.class_weights == "none"  # type: ignore[attr-defined]


def test_a_wrong_value_in_a_table_of_free_keys_stands_on_its_own_line(
    recipe_file: Write, with_sections: Callable[..., str]
) -> None:
    (line,) = refused(recipe_file(with_sections("[task.class_weights]\na = 1\nb = -1\n")))
    assert line.startswith("recipe.toml:16: task.class_weights.b: expected ")
    assert line.endswith("found -1")


def test_a_finished_runs_recipe_is_read_without_judging_its_settings(recipe_file: Write) -> None:
    path = recipe_file(recipe_file().read_text() + "[train]\nlearning_rate = 2e-5\n")
    assert len(refused(path)) == 1
    assert read_recipe(path, cross_check=False).train.learning_rate == 2e-5
