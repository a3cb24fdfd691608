"""`predict --out`: killed and called again, it answers every row once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from peftlab import predict, train

ROWS = 60

# Predicts in batches of 7 and is killed, as by the kernel, in the middle of writing a batch.
KILLED = """
import os, signal, sys
from peftlab import predict
predict._AT_ONCE = 7
answers, seen = predict._answers, []
def dying(*given, **named):
    seen.append(1)
    for number, line in enumerate(answers(*given, **named)):
        if len(seen) == {batch} and number == 3:
            with open({out!r}, "ab") as file:
                file.write(b'{{"label": "logi')
            os.kill(os.getpid(), signal.SIGKILL)
        yield line
predict._answers = dying
predict.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_tickets: Callable[..., Path]) -> Path:
    """Return a finished TF-IDF run, which needs no torch to predict."""
    folder = tmp_path_factory.mktemp("run")
    files = "\n".join(f'{split} = "{tiny_tickets() / split}.jsonl"' for split in ("train", "validation", "test"))
    recipe = folder / "tiny.toml"
    recipe.write_text(
        f'[task]\nname = "classification"\n\n[data]\n{files}\n\n[method]\nname = "tfidf"\n\n[run]\ntrackers = []\n',
        encoding="utf-8",
    )
    assert train.main([str(recipe), f"run.dir={folder / 'run'}"]) == 0
    return folder / "run"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Return a file of ROWS texts, each with its own probabilities."""
    words = ["parcel", "courier", "delivery", "invoice", "card", "refund", "battery", "screen", "colour"]
    lines = [json.dumps({"text": " ".join(words[n % 9 :] + words[: n // 9])}) for n in range(ROWS)]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("batch", [1, 4])
def test_killed_and_called_again_it_answers_every_row_once(
    batch: int, run: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a line, left by the kill, is cut off; the whole file is what an unbroken call prints."""
    out = tmp_path / "answers.jsonl"
    words = [str(run), str(texts), "--json", "--out", str(out)]
    program = KILLED.format(batch=batch, out=str(out))
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = out.read_bytes()
    assert kept.count(b"\n") == 7 * (batch - 1)
    assert kept.endswith(b'{"label": "logi')
    assert (tmp_path / "answers.jsonl.progress").is_file()

    assert predict.main(words) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert ("already answers" in said.err) == (batch > 1)
    assert f"{ROWS} rows answered" in said.err
    assert not (tmp_path / "answers.jsonl.progress").exists()
    assert predict.main([str(run), str(texts), "--json"]) == 0
    assert out.read_text("utf-8") == capsys.readouterr().out
    assert len(out.read_text("utf-8").splitlines()) == ROWS


def begun(run: Path, texts: Path, out: Path) -> list[str]:
    """Leave a file as a kill leaves it, and return the command line that made it."""
    words = [str(run), str(texts), "--json", "--out", str(out)]
    whole = predict.main(words)
    assert whole == 0
    return words


def test_a_whole_file_is_not_written_again(
    run: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "answers.jsonl"
    words = begun(run, texts, out)
    before = out.read_bytes()
    assert predict.main(words) == 2
    assert "already exists" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_a_file_begun_from_other_texts_is_not_continued(
    run: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor with another model, nor in another form."""
    out = tmp_path / "answers.jsonl"
    words = [str(run), str(texts), "--json", "--out", str(out)]

    def stop(*_: object, **__: object) -> list[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(predict, "_answers", stop)
        assert predict.main(words) == 130
    capsys.readouterr()
    assert predict.main([word for word in words if word != "--json"]) == 2
    assert "begun with another form" in capsys.readouterr().err
    texts.write_text(texts.read_text("utf-8") + '{"text": "late"}\n', encoding="utf-8")
    assert predict.main(words) == 2
    assert "begun with another file" in capsys.readouterr().err


def test_a_row_without_a_text_stops_before_any_answer(
    run: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole file is read once beforehand, so that a mistake in its last row costs nothing."""
    texts.write_text(texts.read_text("utf-8") + '{"text": " "}\n', encoding="utf-8")
    out = tmp_path / "answers.jsonl"
    assert predict.main([str(run), str(texts), "--out", str(out)]) == 2
    assert f"texts.jsonl:{ROWS + 1}: expected a text" in capsys.readouterr().err
    assert not out.exists()


def test_an_answer_is_one_line_whatever_the_text_holds(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one\\r\\ntwo\\nthree"}\n{"text": "four"}\n', encoding="utf-8")
    assert predict.main([str(run), str(path)]) == 0
    assert [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()] == ["one two three", "four"]


def test_standard_input_cannot_be_continued(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict.main([str(run), "-", "--out", str(tmp_path / "a")]) == 2
    assert "reads FILE again" in capsys.readouterr().err
