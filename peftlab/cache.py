"""`peftlab cache`: what frozen layers gave for each text and is kept on disk: list it, or clear it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from peftlab.programs import EXIT_CODES, run_program


def main(argv: Sequence[str] | None = None) -> int:
    """List or clear the cache; returns the exit code."""
    asked = parser().parse_args(argv)
    return run_program(lambda: _clear(asked.encoder) if asked.clear else _list(as_json=asked.json))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab cache`."""
    made = argparse.ArgumentParser(
        prog="peftlab cache",
        description='List the states that runs with train.frozen_prefix = "cache" have kept, or clear them. They lie\n'
        "in $PEFTLAB_CACHE, else in ~/.cache/peftlab. Clearing costs time, no result.",
        epilog=f"examples: peftlab cache, peftlab cache --clear --encoder hfl/rbt3\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--clear", action="store_true", help="delete what is kept")
    made.add_argument("--encoder", metavar="NAME", help="with --clear: only of this encoder, by its name in the list")
    made.add_argument("--json", action="store_true", help="list as JSON")
    return made


def _list(*, as_json: bool) -> int:
    from peftlab.encoders.prefix_store import cache_root, kept_states

    root = cache_root()
    kept = kept_states(root)
    if as_json:
        import json

        print(json.dumps([{**one.about, "texts": one.texts, "bytes": one.size} for one in kept], indent=2))
        return 0
    for one in kept:
        about = one.about
        print(
            f"{one.size / 1e6:10,.1f} MB  {one.texts:9,} texts  {about['encoder']}, {about['layers']} layers, "
            f"{about['dtype']}, {about['device']}"
        )
    print(f"{sum(one.size for one in kept) / 1e6:10,.1f} MB in all, in {root}")
    return 0


def _clear(encoder: str | None) -> int:
    from peftlab.encoders.prefix_store import cache_root, clear_states, kept_states
    from peftlab.errors import UserError

    root = cache_root()
    names = sorted({str(one.about["encoder"]) for one in kept_states(root)})
    if encoder is not None and encoder not in names:
        raise UserError(f"--encoder: nothing is kept of {encoder!r}; there is: {', '.join(names) or 'nothing'}")
    freed = clear_states(root, lambda one: encoder is None or one.about["encoder"] == encoder)
    print(f"freed {freed / 1e6:,.1f} MB in {root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
