"""`peftlab doctor` tells what is here, what is missing, and how to install it."""

from __future__ import annotations

import importlib.metadata
import json
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from peftlab import doctor
from peftlab.cli import main
from peftlab.doctor import Hub, Missing
from peftlab.training.compiled import why_not


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def without(monkeypatch: pytest.MonkeyPatch, *absent: str) -> None:
    def version(name: str) -> str:
        if name in absent:
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    found = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", version)


def test_a_working_machine_exits_0_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "A run on the CPU works." in shown
    assert "not reachable (HF_HUB_OFFLINE is set)" in shown
    for package in ("torch", "transformers", "peft", "accelerate", "datasets", "bitsandbytes"):
        assert package in shown


def test_json_holds_versions_cores_memory_and_encoders(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["packages"]["torch"] == importlib.metadata.version("torch")
    assert 1 <= found["cores"]["usable"] <= found["cores"]["machine"]
    assert found["memory"]["total"] >= found["memory"]["available"] > 0
    assert "cpu" in found["devices"]
    assert "bundled:minilm-en" in found["encoders"]
    assert found["cpu_run"] is None
    assert found["cpu_steps"] == "compiled" or why_not() in found["cpu_steps"]


def test_an_absent_required_package_exits_2_with_its_install_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "peft")
    assert main(["doctor"]) == 2
    shown = capsys.readouterr().out
    assert 'missing: peft, needed for every run: pip install "peft' in shown
    assert "A run on the CPU does not work" in shown


def test_an_absent_optional_package_is_named_and_a_run_still_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "bitsandbytes")
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "missing: bitsandbytes, needed for the extra 'quantised': pip install \"peftlab[quantised]\"" in shown


def test_a_package_outside_its_range_counts_as_missing() -> None:
    assert doctor.missing_packages({"pytest": ">=999"}, {}) == [
        Missing("pytest", "every run", 'pip install "pytest>=999"')
    ]


def test_a_step_that_fails_exits_1_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_cpu_step", lambda: "OSError: libtorch is broken")
    assert main(["doctor"]) == 1
    assert "A run on the CPU does not work: OSError: libtorch is broken" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (urllib.error.URLError("no route"), Hub("https://hub.test", reachable=False, reason="no route")),
        (TimeoutError("timed out"), Hub("https://hub.test", reachable=False, reason="timed out")),
        (
            urllib.error.HTTPError("https://hub.test", 503, "busy", Message(), None),
            Hub("https://hub.test", reachable=False, reason="it answers 503"),
        ),
    ],
)
def test_a_hub_that_does_not_answer_is_no_error(
    answer: Exception, expected: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(request: urllib.request.Request, timeout: float) -> Any:
        assert request.full_url == "https://hub.test"
        assert timeout <= 5
        raise answer

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.test")
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert doctor.hub_state() == expected


def test_the_data_folder_is_told_with_its_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.data_folder() == {"PEFTLAB_DATA": None, "exists": False, "sets": []}
    for name in ("one/train.jsonl", "two/train.jsonl.gz", "three/readme.md"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path))
    assert doctor.data_folder() == {"PEFTLAB_DATA": str(tmp_path), "exists": True, "sets": ["one", "two"]}
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path / "gone"))
    assert not doctor.data_folder()["exists"]


def test_a_checkout_that_is_not_installed_exits_2_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    assert main(["doctor"]) == 2
    said = capsys.readouterr()
    assert "without being installed" in said.err
    assert "pip install -e" in said.err
    assert said.out == ""
