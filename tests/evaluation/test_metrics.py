"""The metric modules work as modules of the evaluate library, offline and without leaving anything behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = """
import socket
import sys

def refuse(*args, **kwargs):
    raise SystemExit("a socket was opened")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import numpy as np
from peftlab.evaluation.classification_scores import point_metrics, score_classification
assert not {"evaluate", "sklearn", "datasets", "torch"} & set(sys.modules), "importing is heavy"
logits = np.eye(3)[[0, 1, 2, 0]]
print(point_metrics(logits, np.array([0, 1, 2, 2]), "abc", multi_label=False)["accuracy"])
score_classification(logits, np.array([0, 1, 2, 2]), "abc", multi_label=False)
"""


def test_scoring_opens_no_socket_and_leaves_no_file_in_the_home_or_temporary_folder(tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    environment = kept | {"HOME": str(home), "TMPDIR": str(temporary)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0.75\n"
    assert [path for path in (*home.rglob("*"), *temporary.rglob("*")) if path.is_file()] == []


def test_modules_take_batches_and_combine_as_evaluates_own_do(tmp_path: Path) -> None:
    import evaluate

    from peftlab.evaluation.metrics import Accuracy, HammingLoss

    cached = {"keep_in_memory": True, "cache_dir": str(tmp_path)}
    both = evaluate.combine([Accuracy(**cached), HammingLoss(**cached)])
    both.add_batch(predictions=[0, 1], references=[0, 1])
    both.add(prediction=1, reference=0)
    assert both.compute() == {"accuracy": pytest.approx(2 / 3), "hamming_loss": pytest.approx(1 / 3)}


def test_a_module_takes_multi_label_rows_under_its_multilabel_configuration() -> None:
    from peftlab.evaluation.metrics import HammingLoss, compute

    wrong = compute(HammingLoss, np.array([[1, 0], [1, 1]]), np.array([[1, 0], [0, 1]]), multi_label=True)
    assert wrong == {"hamming_loss": 0.25}
