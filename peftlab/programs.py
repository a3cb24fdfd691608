"""How a program ends: one place that turns what was raised into text on standard error and an exit code."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable

from peftlab.errors import PeftlabError

EXIT_CODES = "exit codes: 0 done, 1 a failure of peftlab, 2 something you can put right, 130 or 143 interrupted"


def run_program(body: Callable[[], int]) -> int:
    """Run `body` and return its exit code, or the one that belongs to what it raised.

    UserError and other PeftlabErrors: their text, and their `exit_code`. Ctrl-C: 130. A reader that went away (`peftlab
    list | head -1`): 141, as shells count it. Anything else is ours: the traceback, what to do with it, and 1. Where
    several processes run the same program, only the first one says what all of them found.
    """
    try:
        code = body()
        sys.stdout.flush()
        return code
    except PeftlabError as error:
        _tell(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _tell("interrupted")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Python flushes standard output once more at exit; without this it would complain about the same pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except ModuleNotFoundError as error:
        return _missing(error)
    except Exception as error:
        return _ours(error)


def add_recipe_words(parser: argparse.ArgumentParser, *, kind: str = "recipe", needed: bool = True) -> None:
    """Let `parser` take a recipe and KEY=VALUE overrides; `kind` is what its help calls the recipe."""
    about = f"a {kind} file, or the name of a shipped one"
    parser.add_argument("recipe", nargs=None if needed else "?", metavar="RECIPE", help=about)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings over the recipe's: train.epochs=1")


def quiet_libraries() -> None:
    """Keep what the libraries would print between our lines: advice on things that a user of peftlab cannot change."""
    import logging
    import warnings

    for name in ("bitsandbytes", "transformers", "accelerate", "httpx", "matplotlib.font_manager"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # transformers warns of its own attribute whenever peft reads it; MatMul8bitLt of every single cast.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message="MatMul8bitLt.*")
    # LayerNorm tuning and BOFT do without what peft misses here; the tests of every method show that both work.
    warnings.filterwarnings("ignore", message="Unsupported layer type.*LayerNorm")
    warnings.filterwarnings("ignore", message="Failed to load the CUDA extension|Setting boft_n_butterfly_factor")
    # A recipe asked for that, and its key says what it means.
    warnings.filterwarnings("ignore", message="Specified to not (save|load)")
    # SHiRA's sparse tensors are made by peft from its own indices.
    warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")


def is_first_process() -> bool:
    """Say whether this is the only process, or the first of those that a launcher started."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def _tell(text: str) -> None:
    if is_first_process():
        print(text, file=sys.stderr)


def _missing(error: ModuleNotFoundError) -> int:
    package = (error.name or "").partition(".")[0]
    if package in ("", "peftlab"):
        return _ours(error)
    _tell(f"the package '{package}' is not installed; `peftlab doctor` lists what is missing and the install line")
    return 2


def _ours(error: Exception) -> int:
    traceback.print_exception(error)
    print(
        "\nThis is a failure of peftlab, not of your recipe or data. Please report it with the lines above and the\n"
        "output of `peftlab doctor`.",
        file=sys.stderr,
    )
    return 1
