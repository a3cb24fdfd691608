"""The `peftlab` command: finds the verb and hands it the rest of the line; imports nothing heavy before that."""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence

from peftlab import __version__
from peftlab.programs import EXIT_CODES, run_program

# Verb: its module, which has `main(argv) -> int`, and what it does.
VERBS = {
    "train": ("peftlab.train", "train, score and save one recipe"),
    "check": ("peftlab.check", "find every mistake in a recipe and its data, and print the plan, without training"),
    "curate": ("peftlab.curate", "run the curators of a recipe on its training rows, and write what to review"),
    "label": ("peftlab.label", "choose which rows to label next, and say what more labels would bring"),
    "bench": ("peftlab.bench", "run a suite: recipes x seeds, recorded, and none of them twice"),
    "calibrate": ("peftlab.calibrate", "find which texts a run may route without people, at a promised accuracy"),
    "search": ("peftlab.search", "climb from the cheapest method to the first that meets a target, within a budget"),
    "plan": ("peftlab.plan", "list encoders by what a training step costs on them, computed from their sizes"),
    "predict": ("peftlab.predict", "label texts with a finished run or an export"),
    "serve": ("peftlab.serve", "answer over HTTP with runs and exports, many of them on one encoder in memory"),
    "pretrain": ("peftlab.pretrain", "train an encoder on unlabelled text, from scratch or from an existing one"),
    "combine": ("peftlab.combine", "sum the LoRA adapters of several runs into one"),
    "export": ("peftlab.export", "write a run in a format that others load, with a certificate"),
    "merge": ("peftlab.merge", "write a run as one plain model: export --to merged"),
    "verify": ("peftlab.verify", "check that an export is what its certificate says"),
    "list": ("peftlab.listing", "list recipes, methods, tasks, formats and bundled encoders"),
    "show": ("peftlab.show", "print what a run measured"),
    "report": ("peftlab.report", "write the report of a suite's records: which recipe is the cheapest that will do"),
    "schema": ("peftlab.schema", "print the JSON Schema of recipes, suites or ladders, for editors"),
    "cache": ("peftlab.cache", "list or clear what frozen layers gave for each text"),
    "doctor": ("peftlab.doctor", "say what this machine has, what is missing and how to install it"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `peftlab VERB ...`; `argv` defaults to the command line. Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        parser().print_help(sys.stderr)
        return 2
    if words[0].startswith("-"):
        parser().parse_args(words[:1])
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        print(_unknown(verb), file=sys.stderr)
        return 2
    return run_program(lambda: _verb_main(verb, rest))


def parser() -> argparse.ArgumentParser:
    """Return the parser of what stands before the verb: `--help` and `--version`."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {about}" for verb, (_, about) in VERBS.items())
    made = argparse.ArgumentParser(
        prog="peftlab",
        usage="peftlab VERB ...",
        description="Find the cheapest fine-tuning of a frozen encoder that meets a target, prove it, and ship it.",
        epilog=f"verbs (peftlab VERB --help tells more):\n{verbs}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"peftlab {__version__}")
    return made


def _verb_main(verb: str, rest: list[str]) -> int:
    code: int = importlib.import_module(VERBS[verb][0]).main(rest)
    return code


def _unknown(verb: str) -> str:
    if verb.endswith(".toml"):
        return f"'{verb}' is a recipe, and a verb comes first; did you mean 'peftlab train {verb}'?"
    near = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.5)
    hint = f" Did you mean 'peftlab {near[0]}'?" if near else ""
    return f"There is no verb '{verb}'.{hint} Verbs: {', '.join(VERBS)}."


if __name__ == "__main__":
    sys.exit(main())
