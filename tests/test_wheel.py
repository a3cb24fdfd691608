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


RECIPE = """\
[encoder]
name = "hfl/rbt3"
stand_in = "bundled:mini-zh"
max_length = 16

[task]
name = "classification"

[data]
train = "rows.csv"
validation = "rows.csv"
test = "rows.csv"

[method]
name = "lora"

[train]
max_steps = 2
"""


def test_the_bundled_encoder_and_the_recipes_are_found(installed: Path, tmp_path: Path) -> None:
    """A shipped recipe is checked by its name, and one of the user's is trained on the encoder."""
    assert "lora_rbt3" in run(installed / "peftlab", "list", "recipes", where=tmp_path)
    run(installed / "peftlab", "check", "lora_rbt3", where=tmp_path)
    (tmp_path / "own.toml").write_text(RECIPE, encoding="utf-8")
    rows = "".join(f"第{number}单快递到了吗,物流\n第{number}单怎么退款,支付\n" for number in range(8))
    (tmp_path / "rows.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    assert run(installed / "peftlab", "train", "own.toml", "run.dir=done", where=tmp_path).strip().endswith("done")
    result = json.loads((tmp_path / "done" / "result.json").read_text(encoding="utf-8"))
    where = run(installed / "python", "-c", "import peftlab; print(peftlab.__file__)", where=tmp_path)

    assert Path(where).is_relative_to(installed.parent)
    assert (Path(where).parent / "training" / "compiled.c").is_file()
    assert (result["encoder"]["requested"], result["encoder"]["used"]) == ("hfl/rbt3", "bundled:mini-zh")
    assert result["status"] == "ok"
