"""Matching from recipe to ranked candidates on a tiny encoder; its loss and its metrics against plain computations."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_runs import task_recipe, train_whole_and_stopped, write_rows, write_splits

from peftlab import predict, train
from peftlab.data.match_rows import Candidates, MatchSplit, false_negatives
from peftlab.data.questions.generate import generate_questions
from peftlab.evaluation.match_scores import METRICS, Embedded, point_metrics, score_matching
from peftlab.recipe.load import read_recipe
from peftlab.recipe.resolve import resolved
from peftlab.runs.result import read_result
from peftlab.tasks import matching

FAQ = {
    "parcel": "courier delivery tracking",
    "battery": "warranty manual screen",
    "invoice": "account refund bank",
    "colour": "model material size",
}
FILLER = ["the", "my", "a", "is", "was", "it", "please", "when", "why"]


def pair_rows(rows: int, start: int) -> list[dict[str, str]]:
    """Return distinct questions of four topics in turn, each with its answer."""
    topics = list(FAQ)
    made = []
    for number in range(start, start + rows):
        words = [FILLER[number % 9], topics[number % 4], FILLER[number // 9 % 9], FILLER[number // 4 % 9]]
        made.append({"text": " ".join(words) + f" {number}", "pair": FAQ[topics[number % 4]]})
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a file of train, validation and test rows each."""
    return write_splits(tmp_path_factory.mktemp("pairs"), pair_rows, (16, 20), write_rows)


@pytest.fixture
def recipe(tmp_path: Path, tiny_encoder: Callable[..., Path], files: dict[str, Path]) -> Callable[..., Path]:
    """Return `write(method, data, task)`: the path of a recipe of matching."""

    def write(method: str = "lora", data: str | None = None, task: str = "") -> Path:
        encoder = f'name = "{tiny_encoder()}"\nmax_length = 24'
        whole_task = f'name = "matching"\n{task}'
        path = tmp_path / f"{method}.toml"
        return task_recipe(path, files, encoder=encoder, task=whole_task, method=method, data=data)

    return write


def splits_of(path: Path, *overrides: str) -> Any:
    """Return the splits that the recipe at `path` asks for."""
    read = resolved(read_recipe(path, overrides))
    return matching.load_splits(read, read.task.config)  # type: ignore[arg-type]


def made_up_split(relevant: list[tuple[int, ...]], groups: list[int], candidates: int) -> MatchSplit:
    """Return a split of which only groups matter."""
    texts = [str(row) for row in range(len(groups))]
    pool = Candidates([str(place) for place in range(candidates)], np.arange(candidates))
    return MatchSplit("test", texts, texts, texts, np.asarray(groups), relevant, pool)


def unit(rows: int, size: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    values = np.random.default_rng(seed).normal(size=(rows, size)).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)


def test_the_loss_is_the_cross_entropy_of_the_right_answer_among_those_of_the_batch() -> None:
    """Henderson et al. 2017: -log of exp(s_ii / t) over the sum of exp(s_ij / t), false negatives left out."""
    embeddings = torch.from_numpy(unit(10, 6, seed=1))
    left_out = torch.zeros(5, 5, dtype=torch.bool)
    left_out[0, 3] = left_out[4, 1] = True
    found = matching.ranking_losses(embeddings, left_out, temperature=0.1)
    for row in range(5):
        scores = [float(embeddings[row] @ embeddings[5 + other]) / 0.1 for other in range(5)]
        counted = [math.exp(score) for other, score in enumerate(scores) if not left_out[row, other]]
        assert float(found[row]) == pytest.approx(-math.log(math.exp(scores[row]) / sum(counted)), rel=1e-5)


def test_answers_of_other_rows_that_are_known_to_be_right_are_no_negatives() -> None:
    """Row 0 and 2 have the same answer; the query of row 1 is also answered by group 7, the answer of row 3."""
    split = made_up_split([(5,), (6, 7), (5,), (7,)], [5, 6, 5, 7], 8)
    expected = np.zeros((4, 4), bool)
    expected[0, 2] = expected[2, 0] = expected[1, 3] = True
    assert (false_negatives(split, np.arange(4)) == expected).all()
    assert (false_negatives(split, np.array([3, 1])) == [[False, False], [True, False]]).all()


def test_the_batch_holds_queries_then_their_answers_and_masks_rows_of_one_answer(
    recipe: Callable[..., Path], tiny_encoder: Callable[..., Path]
) -> None:
    from peftlab.encoders.load import load_tokenizer

    read = resolved(read_recipe(recipe(), []))
    splits = splits_of(recipe())
    tokenizer = load_tokenizer(tiny_encoder())
    encoded = matching.encode(tokenizer, splits.train, read)
    objective = matching.objective(encoded, splits, read, torch.nn.Identity(), torch.device("cpu"))
    rows = np.array([0, 1, 4])
    batch = objective.batch(rows, 0)
    decoded = tokenizer.batch_decode(batch.inputs["input_ids"], skip_special_tokens=True)
    assert decoded[3] == decoded[5] == FAQ["parcel"]
    assert decoded[4] == FAQ["battery"]
    assert decoded[0].startswith("the parcel")
    assert batch.targets.tolist() == [[False, False, True], [False, False, False], [True, False, False]]


def test_metrics_equal_a_direct_computation() -> None:
    """Ranks counted one by one, ties against the query; nDCG by scikit-learn where there are no ties."""
    from sklearn.metrics import ndcg_score

    relevant = [(0,), (3,), (1, 2), (6,), (0, 1, 2, 3, 4, 5, 6)]
    split = made_up_split(relevant, [row[0] for row in relevant], 7)
    embedded = Embedded(unit(5, 4, seed=2), unit(7, 4, seed=3))
    scores = embedded.queries @ embedded.candidates.T
    recalls: dict[int, list[float]] = {1: [], 5: []}
    reciprocal, gains = [], []
    for row, right in enumerate(relevant):
        ranks = sorted(1 + sum(scores[row] > scores[row, place]) for place in right)
        for k, found in recalls.items():
            found.append(sum(rank <= k for rank in ranks) / min(k, len(right)))
        reciprocal.append(1 / ranks[0])
        gains.append(ndcg_score([[place in right for place in range(7)]], scores[row : row + 1]))
    expected = [np.mean(recalls[1]), np.mean(recalls[5]), np.mean(reciprocal), np.mean(gains)]
    assert point_metrics(embedded, split) == pytest.approx(dict(zip(METRICS, expected, strict=True)))
    same = Embedded(embedded.queries, np.repeat(embedded.candidates[:1], 7, axis=0))
    assert point_metrics(same, made_up_split([(0,)] * 5, [0] * 5, 7))["mrr"] == pytest.approx(1 / 7)


def test_intervals_are_those_of_a_bootstrap_over_queries() -> None:
    split = made_up_split([(row % 3,) for row in range(60)], [row % 3 for row in range(60)], 3)
    embedded = Embedded(unit(60, 4, seed=4), unit(3, 4, seed=5))
    scores = score_matching(embedded, split, "three")
    share = scores.metrics["recall_at_1"]
    assert share.value == point_metrics(embedded, split)["recall_at_1"]
    wide = 1.96 * math.sqrt(share.value * (1 - share.value) / 60)
    assert share.high - share.low == pytest.approx(2 * wide, rel=0.2)
    assert scores.to_dict()["facts"]["candidates"] == "three"


@pytest.mark.parametrize("method", ["lora", "adalora", "bottleneck", "full"])
def test_a_run_goes_on_after_a_stop_in_the_same_bits_and_predicts_as_it_was_scored(
    method: str,
    recipe: Callable[..., Path],
    tmp_path: Path,
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Trained whole, and stopped in step 16 and continued: equal files; saved, loaded back, and asked again."""
    whole, stopped = train_whole_and_stopped(str(recipe(method)), tmp_path, monkeypatch)
    for name in ("trained", "."):
        for file in sorted((whole / name).glob("adapter*" if name == "trained" and method != "full" else "*.s*")):
            assert file.read_bytes() == (stopped / name / file.name).read_bytes(), file.name

    result = read_result(whole)
    assert result.status == "ok"
    assert result.round_trip is not None
    assert result.round_trip.max_logit_difference == 0.0
    assert result.parameters is not None
    assert result.parameters.newly_initialised == ()
    assert result.metrics.test.keys() == {*METRICS, *(f"frozen_{name}" for name in METRICS)}
    candidates = tmp_path / "candidates.txt"
    candidates.write_text("".join(f"{answer}\n" for answer in FAQ.values()), encoding="utf-8")
    capsys.readouterr()
    arguments = [str(whole), str(files["test"]), "--against", str(candidates), "--json"]
    assert predict.main(arguments) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    scored = [json.loads(line) for line in (whole / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    for answer, row in zip(told, scored, strict=True):
        assert [one["text"] for one in answer["candidates"]] == [one["text"] for one in row["candidates"]]
        assert [one["score"] for one in answer["candidates"]] == pytest.approx(
            [one["score"] for one in row["candidates"]], abs=1e-5
        )
    hits = [row["candidates"][0]["text"] in row["gold"] for row in scored]
    assert result.metrics.test["recall_at_1"].value == pytest.approx(np.mean(hits))


def test_frozen_metrics_are_those_of_the_encoder_before_training(
    recipe: Callable[..., Path], tmp_path: Path, tiny_encoder: Callable[..., Path]
) -> None:
    """Embedded by transformers alone: mean of the last layer over the tokens of a text, then ranked by cosine."""
    from transformers import AutoModel, AutoTokenizer

    run = tmp_path / "run"
    assert train.main([str(recipe()), f"run.dir={run}", "train.max_steps=1"]) == 0
    splits = splits_of(recipe())
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_encoder()), AutoModel.from_pretrained(tiny_encoder()).eval()

    def embed(texts: Any) -> Any:
        rows = []
        for text in texts:
            with torch.inference_mode():
                inputs = tokenizer(text, truncation=True, max_length=24, return_tensors="pt")
                rows.append(model(**inputs).last_hidden_state[0].mean(0).numpy())
        return np.stack([row / np.linalg.norm(row) for row in rows])

    embedded = Embedded(embed(splits.test.texts), embed(splits.test.candidates.texts))
    found = read_result(run).metrics.test
    for name, value in point_metrics(embedded, splits.test).items():
        assert found[f"frozen_{name}"].value == pytest.approx(value, abs=1e-6)


def test_a_labelled_set_becomes_pairs_of_one_label_with_a_training_row_of_each_as_candidates(
    recipe: Callable[..., Path], tiny_tickets: Callable[..., Path]
) -> None:
    tickets = tiny_tickets()
    named = "\n".join(f'{split} = "{tickets / split}.jsonl"' for split in ("train", "validation", "test"))
    path = recipe(data=named + "\nsplit_seed = 3", task='pairs = "by_label"')
    splits = splits_of(path)
    labels = {
        row["text"]: row["label"]
        for split in ("train", "validation", "test")
        for row in map(json.loads, (tickets / f"{split}.jsonl").read_text(encoding="utf-8").splitlines())
    }
    training = set(splits.train.texts)
    for split in (splits.train, splits.validation, splits.test):
        assert all(labels[text] == labels[pair] for text, pair in zip(split.texts, split.pairs, strict=True))
        assert set(split.pairs) <= training
    assert sorted(splits.train.pairs) == sorted(splits.train.texts), "every training row answers another one"
    assert all(text != pair for text, pair in zip(splits.train.texts, splits.train.pairs, strict=True))
    assert set(splits.test.candidates.texts) <= training
    assert [labels[text] for text in splits.test.candidates.texts] == sorted(set(labels.values()))
    other = splits_of(path, "train.seed=5")
    assert other.test.candidates.texts == splits.test.candidates.texts, "candidates follow data.split_seed"
    assert other.train.pairs != splits.train.pairs


def test_a_query_with_several_answers_counts_them_all(recipe: Callable[..., Path], tmp_path: Path) -> None:
    rows = [*pair_rows(40, 0), {"text": "Where is it?", "pair": "one"}, {"text": "where is it?", "pair": "two"}]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    splits = splits_of(recipe(data=f'train = "{data}"'))
    texts = splits.train.candidates.texts
    parts = (splits.train, splits.validation, splits.test)
    found = [(part.name, part.relevant[row]) for part in parts for row in range(len(part)) if "it?" in part.texts[row]]
    assert len(found) == 2
    assert found[0] == found[1], "rows of one query stay in one split and share their answers"
    assert sorted(texts[group] for group in found[0][1]) == ["one", "two"]


def test_joined_rows_keep_their_answers(recipe: Callable[..., Path]) -> None:
    """What `data.train_on_validation` trains on."""
    splits = splits_of(recipe())
    both = splits.train.joined(splits.validation)
    assert len(both) == 72
    for row in (0, 55, 56, 71):
        topic = both.texts[row].split()[1]
        assert both.pairs[row] == FAQ[topic]
        assert both.candidates.texts[both.groups[row]] == FAQ[topic]
        assert both.relevant[row] == (both.groups[row],)


BROKEN = {
    "unpaired": ([{"text": "where is it"}], r"1 row has an empty or non-string text \(no pair: 1\).*\(bad.jsonl:41\)"),
    "empty query": ([{"text": " ", "pair": "a"}], r"the text is empty: 1.*\(bad.jsonl:41\)"),
    "empty answer": ([{"text": "a", "pair": ""}], r"the pair is empty: 1.*\(bad.jsonl:41\)"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_row_without_a_query_or_an_answer_stops_the_run_and_is_named(
    case: str, recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, sentence = BROKEN[case]
    data = write_rows(tmp_path / "bad.jsonl", [*pair_rows(40, 0), *rows])
    assert train.main([str(recipe(data=f'train = "{data}"')), f"run.dir={tmp_path / 'run'}"]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in shown
    assert re.search(sentence, shown), shown


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["courier delivery tracking"], "holds 1 candidate; expected at least two"),
        (["a b", " ", "c"], "candidates without a text: pool.txt:2;"),
        (["a b", "c", "A  B"], "candidates that stand twice: pool.txt:3 = pool.txt:1;"),
        (list(FAQ.values())[:3], r"lacks the answers of 23 rows (train.jsonl:4, train.jsonl:8"),
    ],
)
def test_a_file_of_candidates_that_cannot_be_ranked_is_refused_with_its_rows(
    lines: list[str], sentence: str, recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = tmp_path / "pool.txt"
    pool.write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = recipe(task=f'candidates = "{pool}"')
    assert train.main([str(path), f"run.dir={tmp_path / 'run'}"]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_pairs_that_stand_twice_are_said_with_their_rows(recipe: Callable[..., Path], tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [*pair_rows(40, 0), pair_rows(1, 0)[0]])
    warnings = splits_of(recipe(data=f'train = "{data}"')).report["warnings"]
    assert len(warnings) == 1
    assert "(rows.jsonl:41 = rows.jsonl:1)" in warnings[0]


def test_one_answer_for_all_rows_and_labels_of_one_row_are_refused(recipe: Callable[..., Path], tmp_path: Path) -> None:
    from peftlab.errors import DataError

    same = write_rows(tmp_path / "same.jsonl", [{**row, "pair": "yes"} for row in pair_rows(20, 0)])
    with pytest.raises(DataError, match=r"all 20 rows have the same answer.*\(such as same.jsonl:\d+\)"):
        splits_of(recipe(data=f'train = "{same}"'))
    rows = [{"text": f"{row['text']}", "label": row["pair"]} for row in pair_rows(20, 0)] + [
        {"text": "alone", "label": "single"}
    ]
    single = write_rows(tmp_path / "single.jsonl", rows)
    with pytest.raises(DataError, match="labels with fewer than two training rows: single; a text must find"):
        splits_of(recipe(data=f'train = "{single}"', task='pairs = "by_label"'))


def test_what_does_not_apply_to_embeddings_is_refused_with_the_recipe(
    recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(recipe("head", task='pairs = "by_label"\ncandidates = "x.txt"'))
    assert (
        train.main(
            [
                path,
                'encoder.pooling="native"',
                "data.pair=pair",
                "head.dropout=0.3",
                "train.max_tokens=512",
                "--dry-run",
            ]
        )
        == 2
    )
    shown = capsys.readouterr().err
    for sentence in (
        "an embedding has no head, so that nothing would be trained",
        "an embedding is pooled and has no head",
        "an embedding has no head; remove the key",
        "with by_label the candidates are training rows",
        "with by_label the pairs are made of labels",
        "a row is told from the others of its forward pass",
    ):
        assert sentence in shown
    assert train.main([str(recipe("probe")), "--dry-run"]) == 2


def test_predict_asks_for_the_candidates(
    recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train.main([str(recipe()), f"run.dir={run}", "train.max_steps=1"]) == 0
    assert predict.main([str(run), "--text", "my parcel"]) == 2
    assert "name their file by --against FILE" in capsys.readouterr().err
    pool = write_rows(tmp_path / "pool.jsonl", [{"pair": answer} for answer in FAQ.values()])
    assert predict.main([str(run), "--text", "my parcel", "--against", str(pool)]) == 0
    answer, score, text = capsys.readouterr().out.rstrip("\n").split("\t")
    assert answer in FAQ.values()
    assert -1 <= float(score) <= 1
    assert text == "my parcel"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_built_in_questions_are_the_same_each_time_and_hold_wordings_out(language: Any) -> None:
    questions = generate_questions(language)
    assert questions == generate_questions(language)
    assert len({one.text for one in questions}) == len(questions)
    answers = [{one.answer for one in questions if one.split == split} for split in ("train", "validation", "test")]
    assert len(answers[0]) == 24
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("method", ["prefix", "prompt", "ptuning"])
def test_virtual_tokens_are_not_pooled(method: str, recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Such methods work on embeddings too, and load back to the same ones."""
    run = tmp_path / "run"
    assert train.main([str(recipe(method)), f"run.dir={run}", "train.max_steps=2"]) == 0
    proof = read_result(run).round_trip
    assert proof is not None
    assert proof.max_logit_difference == 0.0


def test_embeddings_are_exported_for_sentence_transformers_and_proved(
    recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder loads there and gives the run's embeddings, and ranks as the run does; other formats are refused."""
    from sentence_transformers import SentenceTransformer

    from peftlab import export, verify
    from peftlab.evaluation.predictor import load_predictor

    run, out, pool = tmp_path / "run", tmp_path / "out", tmp_path / "pool.txt"
    pool.write_text("".join(f"{answer}\n" for answer in FAQ.values()), encoding="utf-8")
    assert train.main([str(recipe()), f"run.dir={run}", "train.max_steps=8"]) == 0
    assert export.main([str(run), "--to", "merged", "--out", str(out)]) == 0
    texts = ["where is my parcel", "battery"]
    ours = load_predictor(run, pool).embed(texts)
    theirs = SentenceTransformer(str(out), device="cpu").encode(texts)
    assert np.abs(ours - theirs).max() < 1e-5
    assert np.linalg.norm(theirs, axis=1) == pytest.approx([1.0, 1.0], abs=1e-5)
    assert verify.main([str(out)]) == 0
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "embeddings = SentenceTransformer(folder" in card
    assert "test mrr of the run" in card
    capsys.readouterr()
    assert predict.main([str(out), "--text", "x"]) == 2
    assert "name their file by --against FILE" in capsys.readouterr().err
    answers = []
    for model in (run, out):
        assert predict.main([str(model), "--text", "where is my parcel", "--against", str(pool), "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out)["candidates"])
    assert [one["text"] for one in answers[0]] == [one["text"] for one in answers[1]]
    assert [one["score"] for one in answers[0]] == pytest.approx([one["score"] for one in answers[1]], abs=1e-5)
    assert export.main([str(run), "--to", "onnx", "--out", str(tmp_path / "graph")]) == 2
    assert "runs of the task 'matching' have no onnx export; formats that work: merged" in capsys.readouterr().err
