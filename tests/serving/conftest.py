"""Tiny finished runs of several methods and label counts on one encoder, and servers of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tiny_sentences import write_tiny_sentences

from peftlab import train
from peftlab.evaluation.predictor import Predictor, load_predictor
from peftlab.serving.access import access
from peftlab.serving.app import make_service
from peftlab.serving.limits import Limits
from peftlab.serving.models import Models

# Name: method, whether it has all three labels or two, further settings. The first two share batches, the third its
# encoder; the fourth has trained its own, the fifth has none. The last one tags, on the encoder of the first.
RUNS = {
    "queue": ("lora", True, ()),
    "urgency": ("lora", False, ("method.r=2", "encoder.pooling=cls", "encoder.max_length=8")),
    "scaled": ("ia3", False, ("train.seed=3",)),
    "whole": ("full", False, ("encoder.pooling=native",)),
    "words": ("tfidf", False, ()),
    "entities": ("lora", True, ("encoder.pooling=native", "task.crf=true")),
}

TASKS = {"entities": "tagging"}


@pytest.fixture(scope="session")
def served_runs(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Callable[..., Path], tiny_tickets: Callable[..., Path]
) -> dict[str, Path]:
    """Return the folders of the runs, trained once a session."""
    folder = tmp_path_factory.mktemp("served")
    two = folder / "two"
    two.mkdir()
    for split in ("train", "validation", "test"):
        rows = [json.loads(line) for line in (tiny_tickets() / f"{split}.jsonl").read_text("utf-8").splitlines()]
        kept = [json.dumps(row) + "\n" for row in rows if row["label"] != "product"]
        (two / f"{split}.jsonl").write_text("".join(kept), encoding="utf-8")

    (folder / "sentences").mkdir()
    sentences = write_tiny_sentences(folder / "sentences", 9)

    def run(name: str) -> Path:
        method, whole, settings = RUNS[name]
        rows = sentences if name == "entities" else tiny_tickets() if whole else two
        files = "\n".join(f'{split} = "{rows / split}.jsonl"' for split in ("train", "validation", "test"))
        encoder = f'[encoder]\nname = "{tiny_encoder()}"\npooling = "mean"\nmax_length = 16\n\n'
        recipe = folder / f"{name}.toml"
        recipe.write_text(
            f'{encoder if method != "tfidf" else ""}[task]\nname = "{TASKS.get(name, "classification")}"\n\n'
            f"[data]\n{files}\n\n"
            f'[method]\nname = "{method}"\n\n[train]\nepochs = 4\nbatch_size = 8\nprecision = "fp32"\nthreads = 1\n\n'
            "[run]\ntrackers = []\n",
            encoding="utf-8",
        )
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("peftlab.reports.figures.write_figures", lambda *_: [])  # no test here looks at them
            assert train.main([str(recipe), *settings, f"run.dir={folder / name}"]) == 0
        return folder / name

    return {name: run(name) for name in RUNS}


@pytest.fixture(scope="session")
def offline(served_runs: dict[str, Path]) -> dict[str, Predictor]:
    """Return the predictor of each run, loaded by itself."""
    return {name: load_predictor(folder) for name, folder in served_runs.items()}


@pytest.fixture(scope="session")
def client_of() -> Callable[..., TestClient]:
    """Return `make(folders, limits=..., token=..., host=...)`: a client of a server in this process, not yet begun."""

    def make(
        folders: dict[str, Path], limits: Limits | None = None, token: str | None = None, host: str = "127.0.0.1"
    ) -> TestClient:
        models = Models()
        for name, folder in folders.items():
            models.load(name, folder)
        service = make_service(models, limits or Limits(), access(host, token), threads=1)
        return TestClient(service.app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)

    return make


@pytest.fixture(scope="module")
def client(client_of: Callable[..., TestClient], served_runs: dict[str, Path]) -> Iterator[TestClient]:
    """Return a client of a server of all runs."""
    with client_of(served_runs) as made:
        yield made
