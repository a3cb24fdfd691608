"""Every exception that peftlab raises on purpose.

PeftlabError                    a sentence for people; exit code 1
├── UserError                   the user can fix it; exit code 2
│   ├── RecipeError             one or more mistakes in a recipe, each with its place
│   ├── DataError               a file or row that cannot be used
│   ├── EncoderError            an encoder that cannot be found, loaded or used so
│   ├── LaunchError             a launch line that does not do what it says
│   ├── BudgetError             the plan, or what came of it, exceeds a ceiling of the recipe
│   │   └── TimeSpent           the minutes were over before there was a model; what is saved can be continued
│   ├── RunError                a run folder that is missing, incomplete or of another version
│   ├── ExportRefused           an export that is too far from its run
│   └── MissingPackage          an optional package is needed; carries the install line
├── NonFiniteLoss               the loss became NaN or infinite
├── RoundTripError              what was saved does not reload to the same logits
└── Interrupted                 SIGINT or SIGTERM; exit code 130 or 143
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class PeftlabError(Exception):
    """Root of the tree. Its text is shown to people without a traceback."""

    exit_code = 1


class UserError(PeftlabError):
    """Something that the user can put right."""

    exit_code = 2


@dataclass(frozen=True)
class Mistake:
    """One mistake in a recipe: where it stands, what was expected, what to do.

    `line` is 1-based; None where the mistake has no line of its own (a missing section, a command-line override).
    `key` is the dotted key path, such as ``train.learning_rate``.
    """

    path: Path
    line: int | None
    key: str
    expected: str
    suggestion: str | None = None

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line is not None else str(self.path)
        ending = f"; {self.suggestion}" if self.suggestion else ""
        return f"{place}: {self.key}: {self.expected}{ending}"


class RecipeError(UserError):
    """All mistakes of one recipe at once; `mistakes` holds them in the order of the file."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


class DataError(UserError):
    """A data file or row that cannot be used: says the file, the line, what was expected and what to do."""


class EncoderError(UserError):
    """An encoder that cannot be found, loaded, or used in the way that the recipe asks."""


class LaunchError(UserError):
    """The launch line asked for a number of processes that did not come about."""


class BudgetError(UserError):
    """The plan, or what came of it, exceeds a ceiling that the recipe sets."""


class TimeSpent(BudgetError):
    """The minutes of the budget were over before there was a model to save."""


class RunError(UserError):
    """A run folder that is missing, incomplete, or written by another version."""


class ExportRefused(UserError):
    """An export differs from its run by more than was allowed; nothing is left of it."""


class MissingPackage(UserError):
    """An optional package is needed and absent; the text carries the install line."""


class NonFiniteLoss(PeftlabError):
    """The loss became NaN or infinite; the text names the step and the rows of the batch."""


class RoundTripError(PeftlabError):
    """What was saved does not reload to the same logits."""


class Interrupted(PeftlabError):
    """The run was asked to stop by a signal, after its state was saved."""

    def __init__(self, signal_number: int, text: str) -> None:
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
        super().__init__(f"{signal.Signals(signal_number).name}: {text}")
