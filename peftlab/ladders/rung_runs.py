"""From a rung to its runs: what it changes in the ladder's recipe, what it needs first, one run a learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from peftlab.errors import UserError
from peftlab.ladders.adapt import Adapted, adapted_encoder
from peftlab.ladders.ladder import Rung, settings_of
from peftlab.ladders.site import Site, Step, end_if_asked
from peftlab.ladders.trials import rates_in_order
from peftlab.recipe.plugins import load_plugin
from peftlab.suites.arms import Arm
from peftlab.suites.board import clock
from peftlab.suites.orders import PlannedRun
from peftlab.suites.plan import check_models, plan_run

if TYPE_CHECKING:
    from peftlab.recipe.records import Recipe

_BASE = ("data.train_on_validation=false", "evaluation.score_test=false")
"""Settings of the ladder's recipe where only its encoder and its data are looked at."""

_NO_OTHER = ("encoder.stand_in=none", "encoder.revision=none")


def more_settings(site: Site, rung: Rung, steps: dict[str, Step], share: float) -> tuple[str, ...] | str:
    """Return the overrides that depend on what was climbed before, or why there is nothing to climb.

    A rung's pretraining may take half of its `share`, in seconds.
    """
    more: tuple[str, ...] = ()
    if rung.teachers:
        known = [steps[name].chosen for name in rung.teachers]
        folders = [str(site.work / one.name) for one in known if one is not None]
        if not folders:
            return "none of its teachers was climbed"
        more += (f"distill.teachers={folders!r}",)
    if rung.next_encoder:
        following = next_encoder(site)
        if following is None:
            return "the table of encoders has no dearer one for this language"
        more += (f"encoder.name={following}", *_NO_OTHER)
    if rung.pretraining is not None:
        adapted = _adapted(site, rung, share)
        if isinstance(adapted, str):
            return adapted
        more += (f"encoder.name={adapted.folder}", *_NO_OTHER)
        if (most := site.ladder.ceilings.shipped_mb) is not None:
            more += (f"budget.shipped_mb={most - adapted.megabytes!r}",)
    return more


def _adapted(site: Site, rung: Rung, share: float) -> Adapted | str:
    recipe = arm_of(site, rung.name, settings_of(site.ladder, rung)).recipe(site.ladder.seed)
    found = site.inputs.of(recipe)
    if found is None or found.files is None:
        return "it has no encoder to adapt"
    site.console.print(f"{rung.name}: pretraining on the training texts; {clock_of(site)}", markup=False)
    made = adapted_encoder(
        rung,
        found,
        site.ladder.ceilings,
        site.work,
        do=site.do,
        account=site.account,
        seconds=share / 2,
        threads=site.threads,
        asked_to_stop=site.wish.asked,
    )
    end_if_asked(site)
    return made


def next_encoder(site: Site) -> str | None:
    """Return the next dearer encoder of the language of the data; None where the table knows none."""
    from peftlab.encoders.families import by_cost, known_family, next_dearer
    from peftlab.encoders.shape import shape_of

    recipe = _ladders_recipe(site, *_BASE)
    found = site.inputs.of(recipe) if recipe.encoder is not None else None
    if found is None or found.files is None or recipe.encoder is None:
        return None
    from transformers import AutoConfig

    known = known_family(recipe.encoder.name)
    shape = known.shape if known is not None else shape_of(AutoConfig.from_pretrained(str(found.files.folder)))
    chinese = "zh" in (known.language if known is not None else "", found.splits.report.get("language"))
    following = next_dearer(shape, [one for one in by_cost("zh" if chinese else "en") if one.language != "many"])
    return following.name if following is not None else None


def _ladders_recipe(site: Site, *more: str) -> Recipe:
    """Return the recipe that the ladder names, with the ladder's overrides and `more`."""
    return arm_of(site, "base", (*site.ladder.overrides, *more)).recipe(site.ladder.seed)


def arm_of(site: Site, name: str, settings: Sequence[str]) -> Arm:
    """Return the ladder's recipe with `settings` over it."""
    return Arm(name, site.recipe, tuple((text, ()) for text in settings))


def planned_runs(site: Site, rung: Rung, more: tuple[str, ...]) -> tuple[list[PlannedRun], str]:
    """Return the runs of a rung, one a learning rate; none, and why, where its plan cannot hold."""
    ladder, settings = site.ladder, settings_of(site.ladder, rung, more)
    try:
        arm = arm_of(site, rung.name, settings)
        method = load_plugin("methods", arm.recipe(ladder.seed).method.name)
        usual = method.LEARNING_RATE if method.SOLVER == "gradient" else None
        rates = rates_in_order(usual, rung.trials or ladder.trials, _stated_rate(site, rung))
        runs = []
        for place, rate in enumerate(rates):
            name = rung.name if len(rates) == 1 else f"{rung.name}-lr{place}"
            words = () if rate is None else (f"train.learning_rate={rate!r}",)
            run = plan_run(arm, name, ladder.seed, site.inputs, words)
            runs += [run] if run is not None else []
        before = len(site.inputs.mistakes)
        check_models(runs[:1], site.inputs)
    except UserError as error:
        return [], str(error)
    if not runs or len(site.inputs.mistakes) > before:
        return [], site.inputs.mistakes[-1]
    return runs, ""


def _stated_rate(site: Site, rung: Rung) -> float | None:
    """Return the rate that the ladder's recipe states for the method of `rung`; None where the rung has its own."""
    if any(word.startswith("train.learning_rate=") for word in rung.overrides):
        return None
    recipe = _ladders_recipe(site)
    stated, same = recipe.train.learning_rate, rung.method in (None, recipe.method.name)
    return stated if same and stated != "auto" else None


def clock_of(site: Site) -> str:
    """Return what is spent of the search's minutes, for a person."""
    spent, minutes = clock(site.account.spent()), site.account.minutes
    return f"{spent} spent" if minutes is None else f"{spent} of {clock(60 * minutes)} spent"
