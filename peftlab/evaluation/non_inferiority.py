"""Is a cheap method as good as the reference, to within a margin that does not matter?

Non-inferiority is tested one-sided at 5 %, which is the same as asking whether the 90 % interval of the difference lies
wholly above -margin (Schuirmann 1987; Piaggio et al. 2012). That the interval holds 0, or that no difference was found,
shows nothing of the kind. `inferior` is the same test the other way: the 90 % interval lies wholly below -margin. Where
several methods are compared with one reference, Holm's correction keeps the chance of any false claim at 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from peftlab.evaluation.intervals import Interval
from peftlab.evaluation.over_seeds import Estimated
from peftlab.evaluation.paired import holm

LEVEL = 0.05
POWER = 0.8
MOST_ROWS = 1_000_000
"""Rows above which a required number is not worth saying."""

Verdict = Literal["non-inferior", "inferior", "inconclusive"]


@dataclass(frozen=True)
class NonInferiority:
    """The verdict on one method. `difference` is method minus reference with its 90 % interval.

    `p_value` is that of "worse by the margin or more", adjusted for the number of methods; `more_rows` is how many
    further test rows an inconclusive comparison needs, None where it is decided or no number of rows would do.
    """

    verdict: Verdict
    difference: Interval
    p_value: float
    more_rows: int | None = None

    @property
    def words(self) -> str:
        """The verdict as reports say it."""
        if self.verdict != "inconclusive":
            return self.verdict
        if self.more_rows is None:
            return "inconclusive: needs more seeds; more test rows alone would not do"
        if self.more_rows > MOST_ROWS:
            return f"inconclusive: needs more than {MOST_ROWS:,} more test rows"
        return f"inconclusive: needs about {_rounded(self.more_rows):,} more test rows"


def non_inferiority(
    differences: Sequence[Estimated], margin: float, *, level: float = LEVEL
) -> tuple[NonInferiority, ...]:
    """Return the verdict on each of several methods compared with the same reference.

    `differences` are method minus reference; `margin` > 0 is in the same units (0.01 is one point of accuracy). Raises
    ValueError where it is not above 0.
    """
    if margin <= 0:
        raise ValueError(f"a non-inferiority margin is above 0; got {margin}")
    below = [one.chance_below(-margin) for one in differences]
    shown = holm([1 - chance for chance in below])
    refuted = holm(below)
    made = []
    for one, p_value, against in zip(differences, shown, refuted, strict=True):
        verdict: Verdict = "non-inferior" if p_value < level else "inferior" if against < level else "inconclusive"
        more = None
        if verdict == "inconclusive":
            needed = rows_required(one, margin, level=level / len(differences))
            more = None if needed is None else max(1, needed - one.rows)
        made.append(NonInferiority(verdict, one.interval(1 - 2 * level), p_value, more))
    return tuple(made)


def rows_required(seen: Estimated, margin: float, *, level: float = LEVEL, power: float = POWER) -> int | None:
    """Return how many test rows decide the comparison with probability `power`, if the difference is as it was seen.

    The difference is decided when its distance from -margin is (z of the level + z of the power) standard errors. The
    part of the variance that comes from rows shrinks with their number, the part from seeds does not: None where the
    latter alone is too large. This is a plan, not a promise: the difference seen is itself uncertain.
    """
    distance = abs(seen.value + margin)
    normal = NormalDist()
    reach = normal.inv_cdf(1 - level) + normal.inv_cdf(power)
    room = (distance / reach) ** 2 - seen.seeds_variance
    if distance == 0:
        return MOST_ROWS * 2
    return math.ceil(seen.rows_variance / room) if room > 0 else None


def _rounded(count: int) -> int:
    """Return `count` to two digits, upwards: more would claim a precision that a plan has not."""
    step = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // step) * step
