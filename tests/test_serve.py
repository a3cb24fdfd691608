"""`peftlab serve`: mistakes of the command line are one sentence and exit code 2, before anything is loaded."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from peftlab import serve


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{empty}", "--max-batch", "0"], "--max-batch is 0; expected a number above 0"),
        (["{empty}", "--max-wait-ms", "-1"], "--max-wait-ms is -1.0; expected 0 (no waiting) or more"),
        (["{empty}", "--max-queue", "10"], "--max-texts 64 is more than --max-queue 10"),
        (["{empty}", "--port", "70000"], "--port is 70000; expected a number from 0 to 65535"),
        (["{empty}", "--threads", "0"], "--threads is 0; expected a whole number above 0"),
        (["no-such-run"], "there is no run folder no-such-run"),
        (["a={empty}", "a={empty}"], "two models are named 'a'"),
        (["a/b={empty}"], "'a/b' is no name for a model"),
        (["{empty}", "--token-file", "{empty}/token"], "--token-file {empty}/token cannot be read"),
        (["{empty}", "--unix-socket", "{empty}/no/socket"], "cannot listen on {empty}/no/socket: No such file"),
        (["{empty}", "--unix-socket", "{short}/socket"], "has no model.json: its run did not finish"),
    ],
)
def test_a_mistake_is_a_sentence(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tempfile.TemporaryDirectory() as short:  # a socket's path has about a hundred characters at most
        assert serve.main([word.format(empty=tmp_path, short=short) for word in words]) == 2
    said = capsys.readouterr()
    assert sentence.format(empty=tmp_path) in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


@pytest.mark.parametrize("token", ["short", "with spaces in between them", "ünïcödé-ünïcödé-ünïcödé"])
def test_a_weak_token_is_refused_without_being_shown(
    token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PEFTLAB_SERVE_TOKEN", token)
    assert serve.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "the token in the environment variable PEFTLAB_SERVE_TOKEN is no good" in said
    assert token not in said


def test_without_the_extra_the_install_line_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda _name: None)
    assert serve.main([str(tmp_path)]) == 2
    assert 'run: pip install "peftlab[serve]"' in capsys.readouterr().err
