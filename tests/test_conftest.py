"""The shared fixtures do what the other tests rely on."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

MakeFolder = Callable[..., Path]


def test_the_test_process_cannot_open_a_socket() -> None:
    """Every test runs with sockets blocked."""
    with pytest.warns(UserWarning, match="socket"), pytest.raises(RuntimeError, match="socket"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_a_started_interpreter_cannot_reach_another_machine() -> None:
    """Programs that a test starts are cut off as well, by name and by address."""
    program = (
        "import socket\n"
        "for host in ('192.0.2.1', 'example.org'):\n"
        "    try:\n"
        "        socket.create_connection((host, 80), timeout=1)\n"
        "    except PermissionError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "tests may not look up '192.0.2.1'",
        "tests may not look up 'example.org'",
    ]


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "albert", "electra"])
def test_a_tiny_encoder_loads_by_its_folder(tiny_encoder: MakeFolder, model_type: str) -> None:
    """Each tiny encoder has a tokenizer that knows the tickets' words and a forward pass of the right shape."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = tiny_encoder(model_type)
    assert (folder / "model.safetensors").is_file()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(["my parcel is late", "退款"], padding=True, return_tensors="pt")
    assert tokenizer.unk_token_id not in batch["input_ids"]
    assert batch["input_ids"].shape == (2, 6)
    assert (batch["input_ids"][1, 4:] == tokenizer.pad_token_id).all()
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        assert model(**batch).last_hidden_state.shape == (2, 6, 32)


def test_tiny_tickets_have_three_classes_in_three_distinct_splits(tiny_tickets: MakeFolder) -> None:
    """Both languages have 60, 24 and 24 rows, balanced."""
    for language in ("en", "zh"):
        folder = tiny_tickets(language)
        splits = {
            name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
            for name in ("train", "validation", "test")
        }
        assert {name: len(rows) for name, rows in splits.items()} == {"train": 60, "validation": 24, "test": 24}
        assert {row["label"] for row in splits["test"]} == {"logistics", "payment", "product"}


def test_a_skip_that_names_no_absent_thing_fails_the_run(pytester: pytest.Pytester) -> None:
    """`absent: ` is the only way to skip; in a test body, by a mark, and for a whole file."""
    hooks = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")
    pytester.makeconftest(hooks)
    pytester.makepyfile(
        test_bodies=(
            "import pytest\n"
            "def test_fine():\n    pytest.skip('absent: a GPU')\n"
            "def test_lazy():\n    pytest.skip('too slow')\n"
            "@pytest.mark.skip(reason='later')\n"
            "def test_marked():\n    pass\n"
            "@pytest.mark.xfail(strict=True)\n"
            "def test_known():\n    assert False\n"
        ),
        test_file="import pytest\npytest.skip('not today', allow_module_level=True)\n",
    )
    result = pytester.runpytest_inprocess("--continue-on-collection-errors")
    result.assert_outcomes(skipped=1, failed=1, errors=2, xfailed=1)
    assert result.ret != 0
