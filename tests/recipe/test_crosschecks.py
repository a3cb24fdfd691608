"""Settings that do not go together are found before any work."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from peftlab.errors import RecipeError
from peftlab.recipe import crosschecks, plugins
from peftlab.recipe.load import read_recipe
from peftlab.recipe.records import Encoder, Record
from peftlab.tasks import classification

Write = Callable[..., Path]


def refused(path: Path, *overrides: str) -> list[str]:
    """Return the mistakes of `path` with `overrides`: the key or override, and what is said about it."""
    with pytest.raises(RecipeError) as refusal:
        read_recipe(path, overrides)
    return [str(mistake).removeprefix("recipe.toml: ") for mistake in refusal.value.mistakes]


FULL = 'method={name="full"}'
TFIDF = 'method={name="tfidf"}'


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fix the ranges of lora and full, whatever their files say."""
    full = plugins.LearningRate(low=1e-6, default=5e-5, high=3e-4)
    monkeypatch.setattr(plugins.load_plugin("methods", "lora"), "LEARNING_RATE", plugins.LearningRate(1e-4, 5e-4, 5e-3))
    monkeypatch.setattr(plugins.load_plugin("methods", "full"), "LEARNING_RATE", full)
    monkeypatch.setattr(
        plugins, "plugin_names", lambda folder: ("classification",) if folder == "tasks" else ("full", "lora")
    )


@pytest.mark.usefixtures("rates")
def test_a_learning_rate_of_another_method_is_refused_both_ways(recipe_file: Write) -> None:
    path = recipe_file()
    assert refused(path, "train.learning_rate=2e-5") == [
        "override 'train.learning_rate=2e-5': 2e-5 is a learning rate for full; lora trains well between 0.0001 and "
        "0.005; remove the key for the default 0.0005"
    ]
    assert refused(path, FULL, "train.learning_rate=1e-3") == [
        "override 'train.learning_rate=1e-3': 0.001 is a learning rate for lora; full trains well between 1e-6 and "
        "0.0003; remove the key for the default 5e-5"
    ]


@pytest.mark.usefixtures("rates")
def test_a_learning_rate_of_no_method_is_refused_and_the_edges_of_the_range_are_in_it(recipe_file: Write) -> None:
    path = recipe_file()
    (line,) = refused(path, "train.learning_rate=3")
    assert ": found 3; lora trains well between" in line
    for rate in ("1e-4", "5e-3", "auto"):
        read_recipe(path, [f"train.learning_rate={rate}"])


def test_a_method_without_a_learning_rate_judges_none(recipe_file: Write) -> None:
    assert read_recipe(recipe_file(), [TFIDF, "train.learning_rate=3"]).train.learning_rate == 3


def test_lora_plus_needs_lora(recipe_file: Write) -> None:
    path = recipe_file()
    assert read_recipe(path, ["optimizer.lora_plus=16"]).optimizer.lora_plus == 16
    assert refused(path, FULL, "optimizer.lora_plus=16") == [
        "override 'optimizer.lora_plus=16': LoRA+ sets the learning rate of LoRA's B matrices, and full has none; "
        "remove the key"
    ]


@pytest.mark.usefixtures("rates")
def test_lion_needs_a_rate_of_its_own(recipe_file: Write) -> None:
    path = recipe_file()
    assert refused(path, "optimizer.name=lion_8bit", "train.learning_rate=auto") == [
        "override 'train.learning_rate=auto': Lion needs a rate 3 to 10 times below AdamW's, which is 0.0005 by "
        "default; write, say, 0.0001"
    ]
    read_recipe(path, ["optimizer.name=lion_8bit", "train.learning_rate=1e-4"])


def test_a_head_starts_from_the_probe_only_with_an_encoder(recipe_file: Write) -> None:
    path = recipe_file()
    assert read_recipe(path, ["head.init=probe"]).head.init == "probe"
    (line,) = refused(path, TFIDF, "head.init=probe")
    assert line.startswith("override 'head.init=probe': a probe starts from an encoder's embeddings, and tfidf uses no")


@pytest.mark.parametrize(("kind", "bits"), [("int8", 8), ("nf4", 4)])
def test_quantised_weights_need_a_frozen_encoder(kind: str, bits: int, recipe_file: Write) -> None:
    (line,) = refused(recipe_file(), FULL, f"encoder.load_in={kind}")
    assert line == (
        f"override 'encoder.load_in={kind}': full trains the encoder, which {bits}-bit weights do not allow; "
        'write "full"'
    )


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_quantised_weights_need_bitsandbytes_and_the_install_line_is_named(
    kind: str, recipe_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe_file()
    monkeypatch.setattr(crosschecks, "find_spec", lambda _: None)
    assert refused(path, f"encoder.load_in={kind}") == [
        f"override 'encoder.load_in={kind}': {kind} needs bitsandbytes, which is not installed; "
        'pip install "peftlab[quantised]"'
    ]
    monkeypatch.setattr(crosschecks, "find_spec", lambda _: find_spec("json"))
    assert read_recipe(path, [f"encoder.load_in={kind}"]).encoder is not None


def test_a_method_that_is_not_known_to_fit_quantised_weights_is_refused(
    recipe_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe_file()
    monkeypatch.setattr(crosschecks, "find_spec", lambda _: find_spec("json"))
    monkeypatch.setattr(plugins.load_plugin("methods", "lora"), "QUANTISED", ("nf4",))
    assert refused(path, "encoder.load_in=int8") == [
        "override 'encoder.load_in=int8': lora is not known to train rightly on int8 weights; write \"full\""
    ]
    read_recipe(path, ["encoder.load_in=nf4"])


def test_a_method_may_need_the_other_weights_in_a_type_of_its_own(
    recipe_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe_file()
    monkeypatch.setattr(crosschecks, "find_spec", lambda _: find_spec("json"))

    def unfit(config: Record, encoder: Encoder) -> tuple[str, str] | None:
        return ("encoder.dtype", "lora multiplies in fp32") if encoder.dtype == "bf16" else None

    monkeypatch.setattr(plugins.load_plugin("methods", "lora"), "unfit_for_quantised", unfit)
    read_recipe(path, ["encoder.load_in=nf4"])
    assert refused(path, "encoder.load_in=nf4", "encoder.dtype=bf16") == [
        "override 'encoder.dtype=bf16': lora multiplies in fp32, and encoder.load_in is \"nf4\"; remove one of both"
    ]


@pytest.mark.parametrize(
    ("init", "reason"),
    [
        ("pissa", "pissa takes A and B from the frozen weight, which must be in full precision"),
        ("olora", "olora takes A and B from the frozen weight, which must be in full precision"),
        ("orthogonal", "orthogonal gives A and B the frozen weight's type (peft 0.21), which must be one of fractions"),
    ],
)
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_starts_of_lora_that_need_weights_in_full_precision_are_refused_on_others(
    init: str, reason: str, kind: str, recipe_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe_file()
    monkeypatch.setattr(crosschecks, "find_spec", lambda _: find_spec("json"))
    read_recipe(path, [f"method.init={init}"])
    assert refused(path, f"method.init={init}", f"encoder.load_in={kind}") == [
        f"override 'method.init={init}': {reason}, and encoder.load_in is \"{kind}\"; remove one of both"
    ]


def test_data_must_name_rows(recipe_file: Write) -> None:
    (line,) = refused(recipe_file(), "data={text = 'body'}")
    assert line.endswith(
        ': names no rows; expected train (a file), source or hub; such as source = "builtin:tickets-en"'
    ), line
    for overrides in (["data={train = 'a.csv'}"], ["data={hub = 'PolyAI/banking77'}"], ["data={source = 'banking77'}"]):
        read_recipe(recipe_file(), overrides)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_file_of_another_split_needs_one_of_training_rows(recipe_file: Write, split: str) -> None:
    path = recipe_file()
    (line,) = refused(path, f"data.{split}=a.csv")
    assert line.endswith(": a file of its own needs data.train; name the file of training rows too")
    read_recipe(path, [f"data.{split}=a.csv", "data.train=b.csv"])


def test_the_shares_of_a_split_sum_to_one(recipe_file: Write) -> None:
    path = recipe_file()
    assert refused(path, "data.split=[0.6, 0.2, 0.3]") == [
        "override 'data.split=[0.6, 0.2, 0.3]': the shares sum to 1.1, expected 1"
    ]
    assert refused(path, "data.split=[0, 0.5, 0.5]") == [
        "override 'data.split=[0, 0.5, 0.5]': the share of train is 0; expected a share above 0"
    ]
    assert read_recipe(path, ["data.split=[0.7, 0.1, 0.2]"]).data.split == (0.7, 0.1, 0.2)


def test_built_in_names_are_those_that_exist(recipe_file: Write) -> None:
    path = recipe_file()
    assert refused(path, "data.source=builtin:ticket-zh") == [
        'override \'data.source=builtin:ticket-zh\': expected one of "builtin:relations-en", "builtin:tickets-en", '
        '"builtin:tickets-zh", found "builtin:ticket-zh"; did you mean "builtin:tickets-zh"?'
    ]
    for name in classification.BUILTIN_SETS:
        read_recipe(path, [f"data.source=builtin:{name}"])


def test_the_built_in_sets_are_those_of_the_data_folder() -> None:
    from peftlab.data.sources import BUILTIN

    assert sorted(BUILTIN) == [f"builtin:{name}" for name in crosschecks.BUILTIN_TEXTS]


@pytest.mark.parametrize("key", ["name", "stand_in"])
def test_bundled_names_are_those_that_exist(recipe_file: Write, key: str) -> None:
    (line,) = refused(recipe_file(), f"encoder.{key}=bundled:minilm-on")
    assert '"bundled:minilm-en"' in line
    assert line.endswith('found "bundled:minilm-on"; did you mean "bundled:minilm-en"?')


def test_the_metric_is_one_of_the_tasks(recipe_file: Write) -> None:
    path = recipe_file()
    (line,) = refused(path, "evaluation.metric=macro-f1")
    assert line.startswith('override \'evaluation.metric=macro-f1\': expected one of "auto", "accuracy"')
    assert line.endswith('did you mean "macro_f1"?')
    assert read_recipe(path, ["evaluation.metric=macro_f1"]).evaluation.metric == "macro_f1"


def test_cross_checks_look_past_other_mistakes_and_draw_none_from_them(
    recipe_file: Write, with_sections: Callable[..., str]
) -> None:
    text = with_sections("[train]\nsed = 1\nlearning_rate = 3\n[optimizer]\nlora_plus = 'x'\n")
    path = recipe_file(text.replace('source = "builtin:tickets-en"', "source = 3"))
    with pytest.raises(RecipeError) as refusal:
        read_recipe(path)
    keys = [mistake.key for mistake in refusal.value.mistakes]
    assert keys == ["data.source", "train.sed", "train.learning_rate", "optimizer.lora_plus"]


def test_a_built_in_set_that_no_task_has_is_found_beside_a_mistaken_task(
    recipe_file: Callable[..., Path],
) -> None:
    lines = refused(recipe_file(), "task.name=classify", "data.source=builtin:tickets-xx")
    assert any("builtin:tickets-xx" in line for line in lines)
    assert any("classify" in line for line in lines)
