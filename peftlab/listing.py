"""`peftlab list`: the recipes, methods, tasks and bundled encoders that this installation has."""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from peftlab.errors import UserError
from peftlab.programs import EXIT_CODES, run_program
from peftlab.recipe.plugins import Folder, load_plugin, plugin_names
from peftlab.recipe.shipped import recipe_paths

_SOURCE = re.compile(r"arXiv\s+\d{4}\.\d{5}|openreview\.net/\S+?id=\w+")


@dataclass(frozen=True)
class Entry:
    """One thing that a recipe or a command line can name. `place`: its file; `install`: the line that brings it."""

    name: str
    about: str
    place: str | None = None
    install: str | None = None


def recipes() -> list[Entry]:
    """Return the recipes of ./recipes and those that peftlab ships, with their first comment."""
    return [Entry(name, _first_comment(path), str(path)) for name, path in recipe_paths().items()]


def plugins(folder: Folder) -> list[Entry]:
    """Return the methods, tasks, curators or formats, each with the first line of its file."""
    return [Entry(name, _first_line(inspect.getdoc(load_plugin(folder, name)) or "")) for name in plugin_names(folder)]


def encoders() -> list[Entry]:
    """Return the encoders that need no hub; one whose package is absent carries its install line."""
    from peftlab.encoders.bundled import BUNDLED

    return [
        Entry(f"bundled:{name}", encoder.description, install=None if encoder.present() else encoder.install)
        for name, encoder in BUNDLED.items()
    ]


def methods_table() -> str:
    """Return a Markdown table of the methods that attach to an encoder; `docs/methods.md` holds it.

    Parameters are those of the default settings on an encoder of 6 layers, hidden width 384 and feed-forward width
    1536 (MiniLM), the head left out, by each method's own closed form.
    """
    from peftlab.encoders.shape import EncoderShape

    minilm = EncoderShape(
        hidden=384, inner=1536, layers=6, depth=6, embedding=384, tables=(30522 + 512 + 2) * 384, words=30522
    )
    whole = minilm.tables + minilm.outside + minilm.layers * minilm.layer
    lines = [
        "| method | what is trained | source | learning rate | parameters | share | merges | starts at the encoder "
        "| can be chosen |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in plugin_names("methods"):
        method = load_plugin("methods", name)
        if not method.NEEDS_ENCODER:
            continue
        about = inspect.getdoc(method) or ""
        count = method.trainable_parameters(method.Config(), minilm)
        usual = method.LEARNING_RATE
        keys = [key for key in ("target_modules", "layers") if key in method.Config.model_fields]
        cells = (
            f"`{name}`",
            _first_line(about),
            ", ".join(dict.fromkeys(" ".join(source.split()) for source in _SOURCE.findall(about))),
            "" if usual is None else f"{usual.default:.0e}".replace("e-0", "e-"),
            f"{count:,}",
            "< 0.01%" if 0 < count / whole < 1e-4 else f"{count / whole:.2%}",
            "yes" if method.MERGES else "no",
            "yes" if method.STARTS_AT_ENCODER else "no",
            ", ".join(f"`{key}`" for key in keys),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


KINDS = {
    "recipes": recipes,
    "methods": lambda: plugins("methods"),
    "tasks": lambda: plugins("tasks"),
    "curators": lambda: plugins("curators"),
    "formats": lambda: plugins("exporters"),
    "encoders": encoders,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print what there is to standard output; returns the exit code."""
    asked = parser().parse_args(argv)
    return run_program(lambda: _print(asked.kind, as_json=asked.json, as_table=asked.markdown))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab list`."""
    made = argparse.ArgumentParser(
        prog="peftlab list",
        description="List what there is to name: recipes (in ./recipes and those that peftlab ships), methods, tasks,\n"
        "curators, formats of `peftlab export`, and the encoders that need no hub.",
        epilog=f"example: peftlab list methods\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("kind", nargs="?", choices=tuple(KINDS), help="list this kind only (default: all)")
    made.add_argument("--json", action="store_true", help="print an object with one list a kind instead of text")
    made.add_argument("--markdown", action="store_true", help="print a table of the methods and their figures instead")
    return made


def _print(kind: str | None, *, as_json: bool, as_table: bool) -> int:
    if as_table:
        if kind != "methods" or as_json:
            raise UserError("--markdown is a table of the methods: write peftlab list methods --markdown")
        print(methods_table())
        return 0
    found = {name: entries() for name, entries in KINDS.items() if kind in (None, name)}
    if as_json:
        print(json.dumps({name: [asdict(entry) for entry in some] for name, some in found.items()}, ensure_ascii=False))
    else:
        print("\n\n".join(_text(name, entries) for name, entries in found.items()))
    return 0


def _text(kind: str, entries: list[Entry]) -> str:
    width = max((len(entry.name) for entry in entries), default=0)
    lines = [f"  {entry.name:<{width}}  {entry.about}{_missing(entry)}".rstrip() for entry in entries]
    return "\n".join([kind, *(lines or ["  none"])])


def _missing(entry: Entry) -> str:
    return f" (not installed: {entry.install})" if entry.install else ""


def _first_comment(path: Path) -> str:
    """Return the first comment line of a recipe that is not an editor directive (`#:schema ...`)."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("#") and not line.startswith("#:"):
            return line.lstrip("# ")
    return ""


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
