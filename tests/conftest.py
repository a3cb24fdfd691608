"""What every test shares: no network, few threads, honest skips, a tiny encoder and a tiny ticket set."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from tiny_words import FILLER, TOPICS

TESTS = Path(__file__).resolve().parent

# Set before torch is imported anywhere: several test processes share a small machine.
os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        # A program that a test starts takes the cores it may use; its idle threads must not spin on them.
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "MPLBACKEND": "Agg",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "NO_COLOR": "1",
        "COLUMNS": "120",
        # Interpreters started by a test get the network refused too: see tests/no_network/sitecustomize.py.
        "PYTHONPATH": os.pathsep.join(filter(None, (str(TESTS / "no_network"), os.environ.get("PYTHONPATH", "")))),
    }
)
# What a launcher or a shell around pytest may have set must not reach the tests.
for _name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "PEFTLAB_DATA", "FORCE_COLOR", "HF_HUB_OFFLINE"):
    os.environ.pop(_name, None)


# Skips -----------------------------------------------------------------------------------------------------------

ABSENT = "absent: "


def _skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str | None:
    """Return why a test was skipped; None where it was not, or where it failed as `xfail` said it would."""
    if report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return None
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _refuse_other_skips(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = _skip_reason(report)
    if reason is not None and not reason.startswith(ABSENT):
        report.outcome = "failed"
        report.longrepr = f"skipped, but the reason names no absent thing ('{ABSENT}...'): {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip whose reason does not start with 'absent: ' into a failure."""
    report = yield
    _refuse_other_skips(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a file that is skipped as a whole."""
    report = yield
    _refuse_other_skips(report)
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU or the hub where there is none, and say so."""
    for item in items:
        if item.get_closest_marker("gpu") and not _cuda():
            item.add_marker(pytest.mark.skip(reason=ABSENT + "a CUDA device"))
        if item.get_closest_marker("hub"):
            if os.environ.get("PEFTLAB_TEST_HUB") == "1":
                item.add_marker(pytest.mark.enable_socket)
            else:
                item.add_marker(pytest.mark.skip(reason=ABSENT + "the Hugging Face hub (set PEFTLAB_TEST_HUB=1)"))
    _longest_files_first(items)


def _longest_files_first(items: list[pytest.Item]) -> None:
    """Put files with many slow tests first, then those with many tests, so that no process ends long before another."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    every = Counter(item.path for item in items)
    items.sort(key=lambda item: (-slow[item.path], -every[item.path], str(item.path)))


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what runs keep between them out of the home folder, and apart from test to test."""
    monkeypatch.setenv("PEFTLAB_CACHE", str(tmp_path_factory.mktemp("cache")))


# A tiny encoder --------------------------------------------------------------------------------------------------

# Special tokens in the order of their ids: padding, unknown, start, end, mask.
BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SPECIALS = {"roberta": ("<s>", "<pad>", "</s>", "<unk>", "<mask>")}
MODEL_TYPES = ("bert", "roberta", "distilbert", "albert", "electra")


def tiny_vocabulary() -> list[str]:
    """Return every word of the tiny ticket set, then single letters and their continuations."""
    words = [word for texts in TOPICS.values() for text in texts.values() for word in text.split()]
    words += [word for text in FILLER.values() for word in text.split()]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?。，！？"
    return list(dict.fromkeys([*words, *letters, *(f"##{letter}" for letter in letters)]))


def _write_tokenizer(folder: Path, model_type: str) -> int:
    """Write a WordPiece tokenizer for `model_type` into `folder`; return the number of its tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = SPECIALS.get(model_type, BERT_SPECIALS)
    vocabulary = {token: index for index, token in enumerate((*specials, *tiny_vocabulary()))}
    if model_type == "roberta":
        start, padding, end, unknown, mask = specials
    else:
        padding, unknown, start, end, mask = specials
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, handle_chinese_chars=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    second = 0 if model_type in ("roberta", "distilbert") else 1
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B:{second} {end}:{second}",
        special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])],
    )
    names = ["input_ids", "attention_mask"] if second == 0 else ["input_ids", "token_type_ids", "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=unknown,
        pad_token=padding,
        cls_token=start,
        sep_token=end,
        mask_token=mask,
        model_max_length=64,
        model_input_names=names,
    ).save_pretrained(folder)
    return len(vocabulary)


def tiny_config(model_type: str, vocabulary: int) -> Any:
    """Return the configuration of a 2-layer encoder of hidden size 32 with 2 attention heads."""
    from transformers import AutoConfig

    size: dict[str, int] = {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    if model_type == "distilbert":
        size = {"n_layers": 2, "dim": 32, "n_heads": 2, "hidden_dim": 64}
    if model_type in ("albert", "electra"):
        size["embedding_size"] = 16
    # RoBERTa numbers its positions from the padding index + 1.
    positions = 66 if model_type == "roberta" else 64
    padding = 1 if model_type == "roberta" else 0
    return AutoConfig.for_model(
        model_type, vocab_size=vocabulary, max_position_embeddings=positions, pad_token_id=padding, **size
    )


def write_tiny_encoder(folder: Path, model_type: str, seed: int = 0) -> Path:
    """Write a random encoder of `model_type` with its tokenizer, as `save_pretrained` does; return the folder."""
    import torch
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(tiny_config(model_type, _write_tokenizer(folder, model_type)))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return `make(model_type="bert")`, which gives the folder of a random 2-layer encoder, made once a session.

    The folder is shared: a test that changes it copies it first. Types: bert, roberta, distilbert, albert, electra.
    """
    made: dict[str, Path] = {}

    def make(model_type: str = "bert") -> Path:
        if model_type not in made:
            made[model_type] = write_tiny_encoder(tmp_path_factory.mktemp(f"encoder-{model_type}"), model_type)
        return made[model_type]

    return make


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the hub unreachable, as huggingface_hub says it."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no connection") from ConnectionError("refused")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)


# A tiny ticket set -----------------------------------------------------------------------------------------------

SPLIT_ROWS = {"train": 60, "validation": 24, "test": 24}


def tiny_ticket_rows(language: str, rows: int, seed: int) -> list[dict[str, str]]:
    """Return `rows` tickets of three separable classes in turn, with words that the tiny encoder's tokenizer knows."""
    draw = random.Random(f"{language}-{seed}")
    labels = sorted(TOPICS[language])
    made = []
    for index in range(rows):
        label = labels[index % len(labels)]
        words = draw.sample(TOPICS[language][label].split(), 3) + draw.sample(
            FILLER[language].split(), draw.randint(1, 5)
        )
        draw.shuffle(words)
        made.append({"id": f"{seed}-{index}", "text": ("" if language == "zh" else " ").join(words), "label": label})
    return made


def write_tiny_tickets(folder: Path, language: str = "en") -> Path:
    """Write train.jsonl, validation.jsonl and test.jsonl (60, 24 and 24 rows of id, text, label); return the folder."""
    for seed, (split, rows) in enumerate(SPLIT_ROWS.items()):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in tiny_ticket_rows(language, rows, seed)]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_tickets(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return `make(language="en")`, which gives a folder of train, validation and test JSONL; `zh` is the other one.

    Rows have `id`, `text` and `label`, three classes in equal parts. The folder is shared: do not write into it.
    """
    made: dict[str, Path] = {}

    def make(language: str = "en") -> Path:
        if language not in made:
            made[language] = write_tiny_tickets(tmp_path_factory.mktemp(f"tickets-{language}"), language)
        return made[language]

    return make


# A tiny recipe ---------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_recipe(
    tmp_path: Path, tiny_encoder: Callable[..., Path], tiny_tickets: Callable[..., Path]
) -> Callable[..., Path]:
    """Return `write(method="lora", model_type="bert", pooling="mean", data=None, sections="")`: a recipe's path.

    The recipe trains on the tiny tickets (or the `data` section given) for 3 epochs of 8 steps, in fp32, without
    trackers; `sections` is TOML put behind it. Train it with `run.dir=...` or from a folder of the test's own.
    """

    def write(
        method: str = "lora",
        model_type: str = "bert",
        pooling: str = "mean",
        data: str | None = None,
        sections: str = "",
    ) -> Path:
        tickets = tiny_tickets()
        files = "\n".join(f'{split} = "{tickets / split}.jsonl"' for split in SPLIT_ROWS)
        path = tmp_path / f"{method}_tiny.toml"
        path.write_text(
            f'[encoder]\nname = "{tiny_encoder(model_type)}"\npooling = "{pooling}"\nmax_length = 32\n\n'
            '[task]\nname = "classification"\n\n'
            f"[data]\n{data if data is not None else files}\n\n"
            f'[method]\nname = "{method}"\n\n'
            '[train]\nepochs = 3\nbatch_size = 8\nprecision = "fp32"\nthreads = 1\n\n'
            f"[run]\ntrackers = []\n\n{sections}\n",
            encoding="utf-8",
        )
        return path

    return write
