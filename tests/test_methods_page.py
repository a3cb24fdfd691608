"""docs/methods.md says what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftlab.cli import main
from peftlab.listing import methods_table
from peftlab.recipe.plugins import load_plugin, plugin_names

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "methods.md"


def test_the_table_of_the_page_is_that_of_the_code() -> None:
    """Bring it up to date by pasting what `peftlab list methods --markdown` prints."""
    table = PAGE.read_text(encoding="utf-8").partition("<!-- table -->\n")[2].partition("\n<!-- end of table -->")[0]

    assert table == methods_table()


def test_the_table_is_printed_and_is_of_methods_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods", "--markdown"]) == 0
    printed = capsys.readouterr().out
    assert printed.rstrip("\n") == methods_table()
    assert "| `lora` |" in printed
    assert "331,776 | 1.47% | yes | yes |" in printed
    assert main(["list", "recipes", "--markdown"]) == 2
    assert "write peftlab list methods --markdown" in capsys.readouterr().err


@pytest.mark.parametrize("name", plugin_names("methods"))
def test_every_method_says_its_source_its_count_and_its_settings(name: str) -> None:
    """The docstring has the closed form; every setting has a sentence; a recipe with MiniLM exists where it applies."""
    method = load_plugin("methods", name)
    documentation = method.__doc__ or ""

    assert len(documentation.partition("\n")[0]) <= 120
    assert "\nTrainable parameters: " in documentation
    assert all(field.description for field in method.Config.model_fields.values())
    if method.NEEDS_ENCODER:
        assert (ROOT / "recipes" / f"{name}_minilm.toml").is_file()
        assert isinstance(method.MERGES, bool)
        assert isinstance(method.STARTS_AT_ENCODER, bool)
