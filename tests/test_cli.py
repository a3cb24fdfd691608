"""The `peftlab` command: what is printed where, and the exit codes."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from peftlab import __version__
from peftlab.cli import VERBS, main
from peftlab.errors import DataError, Interrupted, NonFiniteLoss
from peftlab.programs import run_program


def raising(error: BaseException) -> Callable[[], int]:
    def body() -> int:
        raise error

    return body


def test_help_names_every_verb_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for verb, (_, about) in VERBS.items():
        assert f"{verb} " in shown
        assert about in shown
    assert "exit codes: 0 " in shown


def test_no_verb_shows_the_help_and_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "verbs (peftlab VERB --help tells more)" in captured.err


def test_the_version_is_printed_by_the_module_too() -> None:
    done = subprocess.run([sys.executable, "-m", "peftlab", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"peftlab {__version__}\n"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("trian", "Did you mean 'peftlab train'?"),
        ("prediction", "Did you mean 'peftlab predict'?"),
        ("recipes/lora.toml", "did you mean 'peftlab train recipes/lora.toml'?"),
    ],
)
def test_an_unknown_verb_gets_the_nearest_one(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    assert hint in capsys.readouterr().err


def test_an_unknown_verb_far_from_all_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["xyzzy"]) == 2
    assert "Did you mean" not in (shown := capsys.readouterr().err)
    assert all(verb in shown for verb in VERBS)


def test_the_rest_of_the_line_goes_to_the_verb_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def verb_main(argv: list[str]) -> int:
        seen.append(argv)
        return 130

    monkeypatch.setattr(importlib, "import_module", lambda name: SimpleNamespace(main=verb_main, name=name))
    assert main(["train", "a.toml", "--help", "train.seed=1"]) == 130
    assert seen == [["a.toml", "--help", "train.seed=1"]]


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_each_verb_has_an_example_and_exit_codes(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: peftlab {verb}" in shown
    assert "example" in shown
    assert "exit codes" in shown
    assert max(map(len, shown.splitlines())) <= 120


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_refuses_an_option_that_it_does_not_know(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--no-such-option"])
    assert stopped.value.code == 2
    assert "usage: peftlab" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("train.csv: no rows"), 2),
        (NonFiniteLoss("loss is NaN at step 3"), 1),
        (Interrupted(15, "saved at step 3"), 143),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_expected_error_is_its_text_and_its_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_program(raising(error)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (str(error) or "interrupted") in captured.err
    assert "Traceback" not in captured.err


def test_an_unexpected_error_keeps_its_traceback_and_asks_for_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(raising(ZeroDivisionError("division by zero"))) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "ZeroDivisionError: division by zero" in shown
    assert "Please report it" in shown


def test_an_absent_package_points_to_the_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    error = ModuleNotFoundError("No module named 'bitsandbytes'", name="bitsandbytes.optim")
    assert run_program(raising(error)) == 2
    assert "the package 'bitsandbytes' is not installed" in capsys.readouterr().err


def test_a_module_of_ours_that_is_absent_is_our_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(raising(ModuleNotFoundError("No module", name="peftlab.gone"))) == 1
    assert "Please report it" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK"])
def test_only_the_first_process_says_what_all_found(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "1")
    assert run_program(raising(DataError("train.csv: no rows"))) == 2
    assert capsys.readouterr().err == ""
    monkeypatch.setenv(variable, "0")
    assert run_program(raising(DataError("train.csv: no rows"))) == 2
    assert capsys.readouterr().err == "train.csv: no rows\n"


def test_a_reader_that_goes_away_ends_the_program_quietly() -> None:
    program = (
        "import sys\n"
        "from peftlab.programs import run_program\n"
        "sys.exit(run_program(lambda: print('x\\n' * 200_000) or 0))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_training_runs_as_a_module_as_launchers_start_it() -> None:
    done = subprocess.run([sys.executable, "-m", "peftlab.train", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: peftlab train")
