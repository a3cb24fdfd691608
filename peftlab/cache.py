"""`peftlab cache`: what runs keep on disk for one another: list it, or clear it."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
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
        description="List what runs keep for later ones, or clear it: the states of frozen layers where\n"
        'train.frozen_prefix = "cache", and the probes that heads start from (head.init = "probe"). It lies in\n'
        "$PEFTLAB_CACHE, else in ~/.cache/peftlab. Clearing costs time, no result.",
        epilog=f"examples: peftlab cache, peftlab cache --clear --encoder hfl/rbt3\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--clear", action="store_true", help="delete what is kept")
    made.add_argument("--encoder", metavar="NAME", help="with --clear: only of this encoder, by its name in the list")
    made.add_argument("--json", action="store_true", help="list as JSON")
    return made


def _list(*, as_json: bool) -> int:
    from peftlab.encoders.prefix_store import cache_folder, cache_root, kept_states
    from peftlab.training.head_start import kept_heads

    kept, heads = kept_states(cache_root()), Counter[str]()
    sizes = Counter[str]()
    for head in kept_heads():
        heads[head.encoder] += 1
        sizes[head.encoder] += head.size
    if as_json:
        import json

        lines = [{"kind": "states", **one.about, "texts": one.texts, "bytes": one.size} for one in kept]
        lines += [{"kind": "heads", "encoder": name, "heads": heads[name], "bytes": sizes[name]} for name in heads]
        print(json.dumps(lines, indent=2))
        return 0
    for one in kept:
        about = one.about
        print(
            f"{one.size / 1e6:10,.1f} MB  {one.texts:9,} texts  {about['encoder']}, {about['layers']} layers, "
            f"{about['dtype']}, {about['device']}"
        )
    for name in heads:
        print(f"{sizes[name] / 1e6:10,.1f} MB  {heads[name]:9,} heads  {name}, solved as probes")
    total = sum(one.size for one in kept) + sum(sizes.values())
    print(f"{total / 1e6:10,.1f} MB in all, in {cache_folder('')}")
    return 0


def _clear(encoder: str | None) -> int:
    from peftlab.encoders.prefix_store import cache_folder, cache_root, clear_states, kept_states
    from peftlab.errors import UserError
    from peftlab.training.head_start import kept_heads

    root, heads = cache_root(), kept_heads()
    names = sorted({str(one.about["encoder"]) for one in kept_states(root)} | {head.encoder for head in heads})
    if encoder is not None and encoder not in names:
        raise UserError(f"--encoder: nothing is kept of {encoder!r}; there is: {', '.join(names) or 'nothing'}")
    freed = clear_states(root, lambda one: encoder is None or one.about["encoder"] == encoder)
    for head in heads:
        if encoder is None or head.encoder == encoder:
            head.path.unlink(missing_ok=True)
            freed += head.size
    print(f"freed {freed / 1e6:,.1f} MB in {cache_folder('')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
