"""The wheel, built, installed in an environment of its own and used from another folder, has all that it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str | Path, where: Path) -> str:
    """Run a command in a folder and return its standard output; its errors are shown where it fails."""
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, words)), cwd=where, env=plain, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the `bin` of an environment with the wheel; what peftlab needs is taken from the one that tests."""
    made = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", made / "dist", where=ROOT)
    venv.create(made / "env", with_pip=False)
    python = made / "env" / "bin" / "python"
    (wheel,) = (made / "dist").glob("peftlab-*.whl")
    pip = (sys.executable, "-m", "pip", "--python", python, "install")
    run(*pip, "--quiet", "--no-deps", "--no-index", wheel, where=made)
    # A folder named by a .pth file is searched, but its own .pth files, such as an editable peftlab, are not read.
    (site,) = (made / "env").glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python.parent


def test_the_flagship_recipe_trains_on_the_bundled_encoder(installed: Path, tmp_path: Path) -> None:
    words = ("data.train_rows=64", "train.max_steps=2", "evaluation.score_test=false", "run.dir=done")
    assert run(installed / "peftlab", "train", "lora_rbt3", *words, where=tmp_path).strip().endswith("done")
    result = json.loads((tmp_path / "done" / "result.json").read_text(encoding="utf-8"))
    where = run(installed / "python", "-c", "import peftlab; print(peftlab.__file__)", where=tmp_path)

    assert Path(where).is_relative_to(installed.parent)
    assert (result["encoder"]["requested"], result["encoder"]["used"]) == ("hfl/rbt3", "bundled:mini-zh")
    assert result["status"] == "ok"
