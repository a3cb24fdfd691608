"""One run of a suite: what a machine needs to do it, and by what it is known again."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from peftlab.recipe.records import Recipe


@dataclass(frozen=True)
class RunKey:
    """What a record must share with a planned run to stand for it: SHA-256 of recipe, data and code."""

    recipe: str
    data: str
    code: str

    def to_dict(self) -> dict[str, str]:
        """Return the three hashes by name."""
        return asdict(self)


@dataclass(frozen=True)
class Order:
    """A run to be done, in plain values that travel to another machine.

    `name`: of its folder and record. `recipe`: path of the recipe file, as seen from the folder `cwd`.
    `program`: the module that does it.
    """

    name: str
    recipe: str
    overrides: tuple[str, ...]
    key: RunKey
    cwd: str
    program: str = "peftlab.train"


@dataclass(frozen=True)
class PlannedRun:
    """An order with the arm that it belongs to and its resolved recipe."""

    order: Order
    arm: str
    recipe: Recipe

    @property
    def name(self) -> str:
        """Return the name of the run's record."""
        return self.order.name
