"""Finished runs and exports of them, made once and shared: a test that changes one copies it first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from export_cases import Case, Export, Run
from tiny_sentences import write_tiny_sentences

from peftlab import export, train


@pytest.fixture(scope="session")
def rows_of(tmp_path_factory: pytest.TempPathFactory, tiny_tickets: Callable[..., Path]) -> Callable[[Case], Path]:
    """Return `find(case)`, the folder of the rows of its task; of the sentences one is read in windows."""
    sentences = write_tiny_sentences(tmp_path_factory.mktemp("sentences"), 50)
    return lambda case: sentences if case.task == "tagging" else tiny_tickets()


@pytest.fixture(scope="session")
def finished_run(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Callable[..., Path], rows_of: Callable[[Case], Path]
) -> Run:
    """Return `make(case)`, which trains the case on its tiny rows once a session and returns the run's folder."""
    made: dict[Case, Path] = {}

    def make(case: Case) -> Path:
        if case not in made:
            folder, rows = tmp_path_factory.mktemp("run"), rows_of(case)
            files = "\n".join(f'{split} = "{rows / split}.jsonl"' for split in ("train", "validation", "test"))
            recipe = folder / "tiny.toml"
            recipe.write_text(
                f'[encoder]\nname = "{tiny_encoder(case.model_type)}"\npooling = "{case.pooling}"\nmax_length = 32\n\n'
                f'[task]\nname = "{case.task}"\n\n[data]\n{files}\n\n[method]\nname = "{case.method}"\n\n'
                '[train]\nepochs = 3\nbatch_size = 8\nprecision = "fp32"\nthreads = 1\n\n[run]\ntrackers = []\n',
                encoding="utf-8",
            )
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr("peftlab.reports.figures.write_figures", lambda *_: [])  # no test here looks at them
                assert train.main([str(recipe), f"run.dir={folder / 'run'}", *case.settings]) == 0
            made[case] = folder / "run"
        return made[case]

    return make


@pytest.fixture(scope="session")
def exported(finished_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Return `make(case, format)`, the folder of that export, made once a session; it must not be refused."""
    made: dict[tuple[Case, str], Path] = {}

    def make(case: Case, to: str) -> Path:
        if (case, to) not in made:
            out = tmp_path_factory.mktemp("export") / to
            drop = "inf" if case.task == "tagging" else "0.2"  # of 16 sentences one entity is more than half a point
            assert export.main([str(finished_run(case)), "--to", to, "--out", str(out), "--max-drop", drop]) == 0
            made[case, to] = out
        return made[case, to]

    return make
