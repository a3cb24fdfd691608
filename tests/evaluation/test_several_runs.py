"""Several runs behind one encoder: the same answers as each alone, mixed rows included."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_sentences import write_tiny_sentences

from peftlab import train
from peftlab.errors import RunError
from peftlab.evaluation.predictor import load_predictor
from peftlab.evaluation.several import Row, SeveralRuns

TEXTS = ["refund my card", "where is the parcel it is late why", "the screen is not a fits", "i was charged"]


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_encoder: Callable[..., Path],
    tiny_tickets: Callable[..., Path],
) -> dict[str, Path]:
    """Train tiny runs: three labels and two, LoRA and head, mean and cls; and some that do not belong."""
    folder = tmp_path_factory.mktemp("several")
    two = folder / "two"
    two.mkdir()
    for split in ("train", "validation", "test"):
        rows = [json.loads(line) for line in (tiny_tickets() / f"{split}.jsonl").read_text("utf-8").splitlines()]
        kept = [json.dumps(row) + "\n" for row in rows if row["label"] != "product"]
        (two / f"{split}.jsonl").write_text("".join(kept), encoding="utf-8")

    (folder / "sentences").mkdir()
    sentences = write_tiny_sentences(folder / "sentences", 9)

    def run(name: str, method: str, rows: Path, *settings: str, task: str = "classification") -> Path:
        recipe = folder / f"{name}.toml"
        files = "\n".join(f'{split} = "{rows / split}.jsonl"' for split in ("train", "validation", "test"))
        recipe.write_text(
            f'[encoder]\nname = "{tiny_encoder()}"\npooling = "{"native" if task == "tagging" else "mean"}"\n'
            "max_length = 16\n\n"
            f'[task]\nname = "{task}"\n\n[data]\n{files}\n\n[method]\nname = "{method}"\n\n'
            '[train]\nepochs = 2\nbatch_size = 8\nprecision = "fp32"\nthreads = 1\n\n[run]\ntrackers = []\n',
            encoding="utf-8",
        )
        assert train.main([str(recipe), *settings, f"run.dir={folder / 'runs' / name}"]) == 0
        return folder / "runs" / name

    def changed(name: str, file: str, pattern: str, new: str) -> Path:
        shutil.copytree(folder / "runs" / "head", folder / "runs" / name)
        path = folder / "runs" / name / file
        text, count = re.subn(pattern, new, path.read_text(encoding="utf-8"))
        assert count == 1
        path.write_text(text, encoding="utf-8")
        return folder / "runs" / name

    return {
        "lora": run("lora", "lora", tiny_tickets()),
        "two": run("two", "lora", two, "method.r=2", "encoder.pooling=cls", "encoder.max_length=8"),
        "head": run("head", "head", two, "train.seed=3"),
        "tfidf": run("tfidf", "tfidf", two),
        "tags": run("tags", "bottleneck", sentences, "task.crf=true", task="tagging"),
        "bf16": changed("bf16", "recipe.toml", 'dtype = "auto"', 'dtype = "bf16"'),
        "other": changed("other", "model.json", '"sha256": "...', '"sha256": "000'),
    }


@pytest.fixture
def several(runs: dict[str, Path]) -> SeveralRuns:
    """Return the three runs that share an encoder."""
    made = SeveralRuns()
    for name in ("lora", "two", "head"):
        made.add(name, runs[name])
    return made


def test_each_run_gives_exactly_its_own_logits(runs: dict[str, Path], several: SeveralRuns) -> None:
    for name in ("two", "lora", "head", "lora"):
        assert np.array_equal(several.logits(name, TEXTS), load_predictor(runs[name]).logits(TEXTS, None)), name
    assert [len(member.labels) for member in several.members.values()] == [3, 2, 2]
    assert len({id(member.tokenizer) for member in several.members.values()}) == 1  # the same files


def test_a_run_whose_tokenizer_differs_has_its_own(runs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(runs["head"], tmp_path / "head")
    file = tmp_path / "head" / "tokenizer" / "tokenizer.json"
    file.write_text(
        re.sub(r'"refund": (\d+),\s*"charged": (\d+)', r'"refund": \2, "charged": \1', file.read_text("utf-8"))
    )
    made = SeveralRuns()
    made.add("one", runs["head"])
    made.add("other", tmp_path / "head")
    one, other = made.logits("one", ["refund charged card"]), made.logits("other", ["charged refund card"])
    assert np.array_equal(one, other)
    assert not np.array_equal(one, made.logits("other", ["refund charged card"]))


def test_mixed_rows_get_the_logits_of_separate_predictions(runs: dict[str, Path], several: SeveralRuns) -> None:
    """In the order of the rows, whatever the order of the runs among them, heads of different sizes included."""
    names = [("lora", "two", "head")[index % 3] for index in range(len(TEXTS) * 3)]
    rows = [Row(name, TEXTS[index // 3]) for index, name in enumerate(names)]
    alone = {name: load_predictor(runs[name]).logits(TEXTS, None) for name in ("lora", "two", "head")}

    for index, values in enumerate(several.predict_mixed(rows)):
        assert np.allclose(values, alone[names[index]][index // 3], rtol=0, atol=1e-5)
    assert several.predict_mixed([]) == []


def test_runs_come_and_go(runs: dict[str, Path], several: SeveralRuns) -> None:
    several.remove("lora")
    with pytest.raises(RunError, match="there is no run named 'lora'; there are: 'two', 'head'"):
        several.logits("lora", TEXTS)
    several.add("again", runs["lora"])
    assert np.array_equal(several.logits("again", TEXTS), load_predictor(runs["lora"]).logits(TEXTS, None))


@pytest.mark.parametrize("order", [("tags", "lora"), ("lora", "tags")])
def test_a_tagger_and_a_classifier_share_an_encoder_whichever_comes_first(
    order: tuple[str, str], runs: dict[str, Path]
) -> None:
    """The answers of each are those that it gives alone, also between those of the other."""
    made = SeveralRuns()
    for name in order:
        made.add(name, runs[name])
    tags, alone = made.predictor("tags"), load_predictor(runs["tags"])
    expected = load_predictor(runs["lora"])
    assert any(row["entities"] for row in alone.rows(TEXTS))
    for _ in range(2):
        assert tags.rows(TEXTS) == alone.rows(TEXTS)
        assert np.array_equal(made.logits("lora", TEXTS), expected.logits(TEXTS, None))
    assert made.predictor("lora").rows(TEXTS) == expected.rows(TEXTS)
    assert not made.mixes("tags")
    with pytest.raises(RunError, match="a run of the task 'tagging': ask its predictor"):
        made.logits("tags", TEXTS)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tfidf", "has no encoder .method 'tfidf'.: there is nothing to share"),
        ("bf16", "was trained with encoder.dtype = 'bf16', the runs here with 'fp32'"),
        ("other", "was trained on the encoder .*runs share an encoder only if it is the same"),
    ],
)
def test_what_does_not_belong_is_refused(name: str, sentence: str, runs: dict[str, Path], several: SeveralRuns) -> None:
    with pytest.raises(RunError, match=sentence):
        several.add(name, runs[name])
    assert list(several.members) == ["lora", "two", "head"]
    assert np.array_equal(several.logits("lora", TEXTS), load_predictor(runs["lora"]).logits(TEXTS, None))


def test_a_taken_name_an_unknown_one_and_a_missing_second_text_are_refused(
    runs: dict[str, Path], several: SeveralRuns
) -> None:
    with pytest.raises(RunError, match="named 'head' already"):
        several.add("head", runs["two"])
    with pytest.raises(RunError, match="there is no run named 'haed'; there are: 'lora', 'two', 'head'"):
        several.predict_mixed([Row("lora", "a"), Row("haed", "a")])
    with pytest.raises(RunError, match="'lora' labels single texts"):
        several.predict_mixed([Row("lora", "refund", "my card")])
    with pytest.raises(RunError, match="there is no run named 'x'; there are: none yet"):
        SeveralRuns().remove("x")
