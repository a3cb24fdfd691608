"""`peftlab serve`: runs and exports behind one HTTP address, those of one encoder with the encoder in memory once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from peftlab.errors import MissingPackage, UserError
from peftlab.programs import quiet_libraries, run_program
from peftlab.serving.limits import Limits

PACKAGES = ("fastapi", "uvicorn", "prometheus_client")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code."""
    asked = parser().parse_args(argv)
    return run_program(lambda: _serve(asked))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `peftlab serve`."""
    made = argparse.ArgumentParser(
        prog="peftlab serve",
        description="Answer over HTTP with finished runs and exports. Runs of one encoder share it in memory,\n"
        "whatever their methods and labels; plain LoRA runs also share batches. A page for people stands at /,\n"
        "the addresses for programs at /docs.",
        epilog="examples:\n"
        "  peftlab serve runs/queue runs/urgency\n"
        "  peftlab serve queue=runs/lora-7 tickets-int8 --port 9000 --max-wait-ms 2\n"
        "  PEFTLAB_SERVE_TOKEN=... peftlab serve RUN --host 0.0.0.0\n\n"
        "exit codes: 143 or 130 ended by SIGTERM or Ctrl-C after every accepted request was answered,\n"
        "1 a failure of peftlab, 2 something you can put right",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "models", nargs="+", metavar="[NAME=]FOLDER", help="a run or an export; its folder's name unless given another"
    )
    where = made.add_argument_group("where")
    where.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    where.add_argument("--port", type=int, default=8000, help="port to listen on, 0 for a free one (default: 8000)")
    where.add_argument("--unix-socket", metavar="PATH", help="listen on a socket file of this user instead")
    where.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further host name to answer to, where neither a token nor --host lets everyone in",
    )
    where.add_argument(
        "--token-file", metavar="FILE", help="ask for the bearer token in FILE (or in $PEFTLAB_SERVE_TOKEN)"
    )
    where.add_argument("--log-requests", action="store_true", help="log method, route, status and time of each request")
    _add_limits(made)
    return made


def _add_limits(made: argparse.ArgumentParser) -> None:
    bounds, own = made.add_argument_group("limits"), Limits()
    for name, kind, about in (
        ("max_batch", int, "texts in one forward pass"),
        ("max_wait_ms", float, "milliseconds that a text waits for others to share its pass"),
        ("max_queue", int, "texts that wait at a time; beyond, requests are answered 429"),
        ("max_requests", int, "requests under way at a time; beyond, they are answered 429"),
        ("max_texts", int, "texts in one request"),
        ("max_characters", int, "characters of one text"),
        ("max_body", int, "bytes of one request"),
        ("timeout", float, "seconds until a request is answered in any case"),
    ):
        word = f"--{name.replace('_', '-')}"
        default = getattr(own, name)
        bounds.add_argument(word, type=kind, default=default, metavar="N", help=f"{about} (default: {default})")
    bounds.add_argument("--threads", type=int, metavar="N", help="threads of a pass (default: the usable cores)")


def _serve(asked: argparse.Namespace) -> int:
    absent = [name for name in PACKAGES if find_spec(name) is None]
    if absent:
        raise MissingPackage(
            f'peftlab serve needs {" and ".join(absent)}, not installed here; run: pip install "peftlab[serve]"'
        )
    limits = Limits(**{name: getattr(asked, name, value) for name, value in vars(Limits()).items()})
    limits.check()
    if asked.threads is not None and asked.threads < 1:
        raise UserError(f"--threads is {asked.threads}; expected a whole number above 0")
    if not 0 <= asked.port <= 65535:
        raise UserError(f"--port is {asked.port}; expected a number from 0 to 65535")
    _open(asked, limits)
    return 0


def _open(asked: argparse.Namespace, limits: Limits) -> None:
    """Take the address, load the models, and serve until a signal."""
    quiet_libraries()
    from peftlab.serving.access import access, read_token
    from peftlab.serving.app import make_service
    from peftlab.serving.models import Models, named_folders
    from peftlab.serving.server import address, listening, run
    from peftlab.show import run_folder
    from peftlab.training.placement import usable_cores

    path = Path(asked.unix_socket) if asked.unix_socket else None
    who = access(None if path else asked.host, read_token(asked.token_file), tuple(asked.allow_host))
    folders = named_folders(asked.models, run_folder)
    if not who.local and who.token is None:
        _say(f"anyone who reaches {asked.host} may ask: no token is set (--token-file, or $PEFTLAB_SERVE_TOKEN)")
    if asked.log_requests:
        _log_requests()
    with listening(asked.host, asked.port, path) as made:
        models = Models()
        for name, folder in folders.items():
            served = models.load(name, folder)
            alone = f"; by itself in memory: {served.alone_because}" if served.alone_because else ""
            _say(f"{name}: {served.kind.task}, {len(served.kind.labels)} labels, {served.kind.method}{alone}")
        service = make_service(models, limits, who, asked.threads or usable_cores())
        run(service, made, limits.timeout, lambda: print(address(made), flush=True))


def _log_requests() -> None:
    """Let the server's one log say every request: method, route, status and time, nothing that a client wrote."""
    import logging

    log = logging.getLogger("peftlab.serving")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
