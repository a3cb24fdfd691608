"""Translation from recipe to generated texts on a tiny encoder; its loss, its rows and its answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_runs import task_recipe, train_whole_and_stopped, write_rows, write_splits

from peftlab import export, predict, train
from peftlab.encoders.load import load_tokenizer
from peftlab.evaluation.generated_scores import COPY
from peftlab.recipe.load import read_recipe
from peftlab.recipe.resolve import resolved
from peftlab.runs.result import read_result
from peftlab.tasks import translation

WORDS = {"parcel": "courier", "battery": "warranty", "invoice": "account", "colour": "model"}
FILLER = {"the": "a", "my": "your", "is": "was", "it": "that", "when": "why"}


def pair_rows(rows: int, start: int) -> list[dict[str, str]]:
    """Return distinct sources with targets made of them word by word, the last word first."""
    words, filler = list(WORDS), list(FILLER)
    made = []
    for number in range(start, start + rows):
        source = [filler[number % 5], words[number % 4], filler[number // 5 % 5], words[number // 7 % 4]]
        target = [(WORDS | FILLER)[word] for word in (source[-1], *source[:-1])]
        made.append({"source": f"{' '.join(source)} {number}", "target": " ".join(target)})
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a file of train, validation and test rows each."""
    return write_splits(tmp_path_factory.mktemp("sentences"), pair_rows, (12, 16), write_rows)


@pytest.fixture
def recipe(tmp_path: Path, tiny_encoder: Callable[..., Path], files: dict[str, Path]) -> Callable[..., Path]:
    """Return `write(method, data, task, encoder)`: the path of a recipe of translation."""

    def write(method: str = "lora", data: str | None = None, task: str = "", encoder: Path | None = None) -> Path:
        reads = f'name = "{encoder or tiny_encoder()}"\nmax_length = 24'
        whole_task = f'name = "translation"\nmax_target_length = 12\nbeams = 2\n{task}'
        path = tmp_path / f"{method}.toml"
        return task_recipe(path, files, encoder=reads, task=whole_task, method=method, data=data)

    return write


def splits_of(path: Path, tokenizer: Any = None) -> Any:
    """Return the splits that the recipe at `path` asks for."""
    read = resolved(read_recipe(path, []))
    return translation.load_splits(read, read.task.config, tokenizer=tokenizer)  # type: ignore[arg-type]


def test_the_loss_is_the_smoothed_cross_entropy_of_the_tokens_that_there_are() -> None:
    """Szegedy et al. 2016: (1 - e) of the target's loss and e of the mean over the vocabulary; padding is left out."""
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 2, -100], [4, 5, 6]])
    found = translation.token_losses(logits, targets, smoothing=0.2)
    logs = logits.log_softmax(-1)
    for row, tokens in ((0, [1, 2]), (1, [4, 5, 6])):
        each = [0.8 * -logs[row, place, token] + 0.2 * -logs[row, place].mean() for place, token in enumerate(tokens)]
        assert float(found[row]) == pytest.approx(float(sum(each)) / len(tokens), rel=1e-5)


def test_the_decoder_reads_what_it_has_said_and_never_says_its_start(
    recipe: Callable[..., Path], tiny_encoder: Callable[..., Path]
) -> None:
    """[CLS] w1 w2 is read where w1 w2 [SEP] is said; rows count by the tokens that they say."""
    read = resolved(read_recipe(recipe(), []))
    splits, tokenizer = splits_of(recipe()), load_tokenizer(tiny_encoder())
    encoded = translation.encode(tokenizer, splits.train, read)
    model = translation.load_model(read, tiny_encoder(), ()).model
    objective = translation.objective(encoded, splits, read, model, torch.device("cpu"))
    batch = objective.batch(np.array([0, 3]), 0)
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    for row, place in enumerate((0, 3)):
        said = batch.targets[row][batch.targets[row] != -100].tolist()
        told = batch.inputs["decoder_input_ids"][row][batch.inputs["decoder_attention_mask"][row] == 1].tolist()
        assert said == [*tokenizer(splits.train.targets[place], add_special_tokens=False)["input_ids"], end]
        assert told == [start, *said[:-1]]
        assert objective.row_weights[place] == len(said)
    assert batch.inputs.keys() == {
        "input_ids",
        "attention_mask",
        "decoder_input_ids",
        "decoder_attention_mask",
    }


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
    whole, _ = train_whole_and_stopped(str(recipe(method)), tmp_path, monkeypatch)

    result = read_result(whole)
    assert result.status == "ok"
    assert result.round_trip is not None
    assert result.round_trip.max_logit_difference == 0.0
    assert result.parameters is not None
    assert [name.rpartition(".")[2] for name in result.parameters.newly_initialised] == [
        "crossattention",
        "crossattention",
        "transform",
    ]
    assert result.metrics.test.keys() == {"bleu", "chrf", f"{COPY}bleu", f"{COPY}chrf"}
    assert "case:lc" in result.facts["bleu"]
    capsys.readouterr()
    assert predict.main([str(whole), str(files["test"]), "--json"]) == 0
    told = [json.loads(line)["target"] for line in capsys.readouterr().out.splitlines()]
    scored = [json.loads(line) for line in (whole / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert told == [row["target"] for row in scored]
    assert [row["gold"] for row in scored] == [row["target"] for row in pair_rows(16, 200)]


def write_seq2seq(folder: Path, kind: str, tokenizer: Any) -> Path:
    """Write a random encoder-decoder of two layers a side, as `save_pretrained` does, with `tokenizer`."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    sizes: dict[str, Any] = {"d_model": 32, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if kind in ("t5", "mt5"):
        sizes |= {"d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "is_gated_act": kind == "mt5"}
        sizes |= {"feed_forward_proj": "gated-gelu" if kind == "mt5" else "relu"}
        start = tokenizer.pad_token_id
    else:
        sides = ("encoder", "decoder")
        sizes |= {f"{side}_layers": 2 for side in sides} | {f"{side}_attention_heads": 2 for side in sides}
        sizes |= {f"{side}_ffn_dim": 64 for side in sides} | {"max_position_embeddings": 64}
        sizes |= {"forced_eos_token_id": None}
        start = tokenizer.sep_token_id
    ids = {"eos_token_id": tokenizer.sep_token_id, "decoder_start_token_id": start, "bos_token_id": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(kind, **sizes, **ids))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "method"), [("t5", "lora"), ("mt5", "bottleneck"), ("bart", "adalora"), ("marian", "full")]
)
def test_an_encoder_decoder_of_a_local_folder_is_taken_as_it_is(
    kind: str, method: str, recipe: Callable[..., Path], tmp_path: Path, tiny_encoder: Callable[..., Path]
) -> None:
    """Nothing in it is new; the adapter goes into both sides and into cross-attention; it loads back the same."""
    folder = write_seq2seq(tmp_path / kind, kind, load_tokenizer(tiny_encoder()))
    run = tmp_path / "run"
    path = recipe(method, encoder=folder, task='prefix = "invoice "')
    assert train.main([str(path), f"run.dir={run}", "train.max_steps=24"]) == 0
    result = read_result(run)
    assert result.parameters is not None
    assert result.parameters.newly_initialised == ()
    assert result.round_trip is not None
    assert result.round_trip.max_logit_difference == 0.0
    if method != "full":
        from safetensors import safe_open

        with safe_open(run / "trained" / "adapter_model.safetensors", "np") as file:
            names = " ".join(file.keys())
        assert re.search(r"encoder\.(block|layers)", names)
        assert re.search(r"decoder\.(block|layers)", names)
        # A bottleneck adapter of this placement sits behind the feed-forward network.
        assert method == "bottleneck" or re.search("EncDecAttention|encoder_attn", names)


def test_roles_part_the_linear_layers_of_encoder_decoders_between_them(
    tmp_path: Path, tiny_encoder: Callable[..., Path]
) -> None:
    """-1 is the top layer of either side."""
    from peftlab.encoders.roles import ROLES, find_targets
    from peftlab.encoders.seq2seq import load_seq2seq
    from peftlab.recipe.records import Encoder

    for kind in ("t5", "mt5", "bart"):
        folder = write_seq2seq(tmp_path / kind, kind, load_tokenizer(tiny_encoder()))
        loaded = load_seq2seq(Encoder(name=str(folder)), folder)
        by_role = [find_targets(loaded.model, loaded.anatomy, [role]) for role in ROLES[kind]]
        everything = [name for names in by_role for name in names]
        assert len(everything) == len(set(everything))
        assert set(everything) == set(find_targets(loaded.model, loaded.anatomy, ["all-linear"]))
        top = find_targets(loaded.model, loaded.anatomy, ["query"], (-1,))
        assert len(top) == 3, "self-attention of both sides, and cross-attention"
        assert all(re.search(r"(block|layers)\.1\.", name) for name in top)


def test_one_table_of_embeddings_serves_source_target_and_output(tiny_encoder: Callable[..., Path]) -> None:
    from peftlab.encoders.seq2seq import load_seq2seq
    from peftlab.recipe.records import Encoder

    for kind in ("bert", "roberta", "electra"):
        folder = tiny_encoder(kind)
        loaded = load_seq2seq(Encoder(name=str(folder)), folder, decoder_layers=1)
        model: Any = loaded.model
        table = model.encoder.get_input_embeddings().weight
        assert model.decoder.get_input_embeddings().weight is table
        if kind != "electra":  # whose table is narrower than its layers
            assert model.decoder.get_output_embeddings().weight is table
        layers = {name.split(".layer.")[1][0] for name, _ in model.decoder.named_modules() if ".layer." in name}
        assert layers == {"0"}
        assert loaded.anatomy.decoder == "decoder"


REFUSED = {
    "distilbert": ((), "a distilbert encoder cannot be made a decoder, as it has no cross-attention"),
    "too many layers": (("task.decoder_layers=9",), "the encoder has 2 layers; found 9"),
    "bf16": (("encoder.dtype=bf16",), "does not go with a decoder whose new parts are in fp32"),
    "too long": (("task.max_target_length=65",), "decoder and encoder have 64 positions; lower the larger one"),
    "language": (("task.target_language=xx_XX",), 'the tokenizer knows no language "xx_XX"'),
    "pooling": (("encoder.pooling=mean",), "a decoder reads every token, so that nothing is pooled"),
    "virtual": (("method.name=prompt",), "puts virtual tokens before a text"),
    "frozen prefix": (("train.frozen_prefix=cache",), "layers are kept for texts with one decision only"),
    "rouge": (("evaluation.metric=rougeL",), "ROUGE is for summaries"),
    "target": (("evaluation.target=20",), None),
    "margin": (("evaluation.margin=0.1",), "known for accuracy only"),
    "probe": (("head.init=probe",), "has no probe to start from"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_apply_to_generated_texts_is_refused_in_a_sentence(
    case: str,
    recipe: Callable[..., Path],
    tmp_path: Path,
    tiny_encoder: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    from peftlab import check

    overrides, sentence = REFUSED[case]
    path = recipe(encoder=tiny_encoder("distilbert") if case == "distilbert" else None)
    assert check.main([str(path), *overrides]) == (0 if sentence is None else 2)
    shown = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in shown
    assert sentence is None or sentence in shown, shown


def test_a_target_of_accuracy_stays_below_one(
    recipe: Callable[..., Path], tiny_recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from peftlab import check

    assert check.main([str(tiny_recipe()), "evaluation.target=20"]) == 2
    assert "found 20; accuracy goes up to 1, expected less" in " ".join(capsys.readouterr().err.split())


def test_an_export_is_refused_until_there_is_one(
    recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And texts of one line each are printed before their sources."""
    run = tmp_path / "run"
    assert train.main([str(recipe()), f"run.dir={run}", "train.max_steps=1"]) == 0
    assert export.main([str(run), "--to", "merged", "--out", str(tmp_path / "out")]) == 2
    assert "runs of the task 'translation' have no merged export" in capsys.readouterr().err
    assert predict.main([str(run), "--text", "my parcel"]) == 0
    assert capsys.readouterr().out.rstrip("\n").endswith("\tmy parcel")
    assert predict.main([str(run), "--text", "my parcel", "--pair", "x"]) == 2


def test_an_adapter_loads_with_plain_peft_on_plain_transformers(
    recipe: Callable[..., Path], tmp_path: Path, tiny_encoder: Callable[..., Path]
) -> None:
    """Two encoders put together by transformers, and the run's adapter by peft, give the logits of the run."""
    from peft import PeftModel
    from transformers import EncoderDecoderModel

    from peftlab.evaluation.run_model import load_run_model

    run, folder = tmp_path / "run", str(tiny_encoder())
    assert train.main([str(recipe()), f"run.dir={run}", "train.max_steps=8"]) == 0
    bare: Any = EncoderDecoderModel.from_encoder_decoder_pretrained(folder, folder)
    theirs = PeftModel.from_pretrained(bare, str(run / "trained")).eval()
    ours = load_run_model(run, torch.device("cpu")).module
    ids = torch.randint(5, 100, (3, 6), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        made = [model(input_ids=ids, decoder_input_ids=ids).logits for model in (ours, theirs)]
    assert float((made[0] - made[1]).abs().max()) < 1e-6


def test_what_was_learnt_by_heart_is_said_again(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Teacher forcing, cross-attention and search together: eight pairs whose targets follow from the sources."""
    rows = [
        {"source": f"the {word} {number}", "target": f"{said} {number}"}
        for number in "12"
        for word, said in WORDS.items()
    ]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    run = tmp_path / "run"
    path = recipe("full", data="\n".join(f'{split} = "{data}"' for split in ("train", "validation", "test")))
    settings = ["train.learning_rate=3e-4", "optimizer.head_learning_rate=1e-2", "task.label_smoothing=0"]
    settings += ["train.max_steps=150", "train.epochs=150", "evaluation.every=150", "optimizer.weight_decay=0"]
    assert train.main([str(path), f"run.dir={run}", *settings]) == 0
    scored = [json.loads(line) for line in (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    right = [row["target"] == row["gold"] for row in scored]
    assert sum(right) >= 7, scored
