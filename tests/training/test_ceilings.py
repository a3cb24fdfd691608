"""`[budget]`: refused before training where it cannot hold, stopped at the minutes, and checked in what came out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from peftlab import predict, train
from peftlab.errors import BudgetError
from peftlab.recipe.load import read_recipe
from peftlab.recipe.resolve import recipe_hash, resolved
from peftlab.runs.result import Result, read_result
from peftlab.runs.result_parts import Ceiling
from peftlab.training import solve_gradient
from peftlab.training.ceilings import TimeUp, check_kept, latency_of
from peftlab.training.clock import Clock


class Steps(TimeUp):
    """Time that is over after so many steps, whatever a clock says."""

    def __init__(self, steps: int) -> None:
        super().__init__(Clock(0.0), 0.0)
        self.left = steps

    def asked(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return `stop(steps)`: the time of every run is over after so many steps."""
    return lambda steps: monkeypatch.setattr(solve_gradient, "TimeUp", lambda *_: Steps(steps))


def run(recipe: Path, folder: Path, *words: str) -> tuple[int, Result]:
    code = train.main([str(recipe), f"run.dir={folder}", *words])
    return code, read_result(folder)


def test_at_the_minutes_the_best_model_so_far_is_saved_and_scored(
    tiny_recipe: Callable[..., Path], tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    """Status `stopped`, with the reason; the model predicts; the checkpoint is kept."""
    stop_after(10)
    code, result = run(tiny_recipe(), tmp_path / "run", "budget.minutes=50")
    assert (code, result.status) == (0, "stopped")
    assert "stopped at budget.minutes = 50 after step 10 of 24" in (result.reason or "")
    assert result.best is not None
    assert result.best.step == 8
    assert result.metrics.test["accuracy"].n == 24
    assert 0 < result.budget["minutes"].measured < result.budget["minutes"].asked == 50
    assert (tmp_path / "run" / "checkpoints" / "step-10").is_dir()
    assert predict.main([str(tmp_path / "run"), "--text", "refund my card"]) == 0


def test_a_stopped_run_goes_on_with_more_minutes_to_the_same_bits(
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    stop_after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = tiny_recipe()
    whole = run(recipe, tmp_path / "whole")[1]
    with monkeypatch.context() as patch:
        patch.setattr(solve_gradient, "TimeUp", lambda *_: Steps(10))
        assert run(recipe, tmp_path / "run", "budget.minutes=50")[1].status == "stopped"
    assert train.main(["--resume", str(tmp_path / "run"), "train.epochs=9"]) == 2
    assert "of which only the budget may change; leave out train.epochs=9" in capsys.readouterr().err
    assert train.main(["--resume", str(tmp_path / "run"), "budget.minutes=90"]) == 0
    again = read_result(tmp_path / "run")
    assert again.status == "ok"
    assert again.metrics == whole.metrics
    assert again.budget["minutes"].asked == 90
    files = [tmp_path / name / "trained" / "adapter_model.safetensors" for name in ("whole", "run")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_before_the_first_validation_the_model_is_validated_then(
    tiny_recipe: Callable[..., Path], tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    stop_after(3)
    result = run(tiny_recipe(), tmp_path / "run", "budget.minutes=50")[1]
    assert result.best is not None
    assert (result.status, result.best.step) == ("stopped", 3)


def test_before_adalora_has_its_ranks_there_is_no_model_and_the_run_can_be_continued(
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(solve_gradient, "TimeUp", lambda *_: Steps(3))
        code, result = run(tiny_recipe("adalora"), tmp_path / "run", "budget.minutes=50", "method.delta_t=2")
    assert (code, result.status) == (2, "interrupted")
    assert "before the model had its final size" in capsys.readouterr().err
    assert train.main(["--resume", str(tmp_path / "run")]) == 0
    assert read_result(tmp_path / "run").status == "ok"


@pytest.mark.parametrize(
    ("method", "setting", "sentence"),
    [
        ("lora", "budget.peak_memory_gb=0.01", "GB of memory, as estimated, against budget.peak_memory_gb = 0.01"),
        ("probe", "budget.peak_memory_gb=0.01", "GB of memory, as estimated, against budget.peak_memory_gb = 0.01"),
        ("tfidf", "budget.peak_memory_gb=0.01", "GB of memory, as estimated, against budget.peak_memory_gb = 0.01"),
        ("lora", "budget.latency_ms=0.0001", "ms a text against budget.latency_ms = 0.0001"),
        ("probe", "budget.latency_ms=0.0001", "ms a text against budget.latency_ms = 0.0001"),
        ("lora", "budget.minutes=0.001", "saving, proving and scoring take about"),
        ("probe", "budget.minutes=0.001", "saving, proving and scoring take about"),
    ],
)
def test_a_plan_that_cannot_hold_is_refused_before_a_step(
    method: str,
    setting: str,
    sentence: str,
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, result = run(tiny_recipe(method), tmp_path / "run", setting)
    assert code == 2
    assert result.status in ("failed", "interrupted")
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not (tmp_path / "run" / "trained").exists()


def test_adalora_counts_at_its_peak(tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Ranks that are taken away later were trained all the same."""
    recipe = tiny_recipe("adalora")
    result = run(recipe, tmp_path / "run", "method.delta_t=2")[1]
    assert result.parameters is not None
    assert result.parameters.surviving is not None
    between = (result.parameters.surviving + result.parameters.trainable) // 2
    code, _ = run(recipe, tmp_path / "less", "method.delta_t=2", f"budget.trainable_parameters={between}")
    assert code == 2


def test_what_was_measured_above_a_ceiling_fails_the_run(
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Latency was within its ceiling before training, and was not afterwards."""
    monkeypatch.setattr(solve_gradient, "asked_latency", lambda *_: 9500.0)
    code, result = run(tiny_recipe(), tmp_path / "run", "budget.latency_ms=9000")
    assert (code, result.status) == (2, "failed")
    assert "the run came out above its budget: latency_ms = 9,500 against 9,000" in capsys.readouterr().err


def test_the_target_of_the_budget_is_that_of_the_evaluation(
    tiny_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(tiny_recipe("tfidf"), tmp_path / "run", "budget.target=0.2", "budget.latency_ms=1000")[1]
    assert result.target is not None
    assert (result.target.asked, result.target.verdict) == (0.2, "reached")
    assert 0 < result.budget["latency_ms"].measured < 1000
    assert train.main([str(tiny_recipe()), "budget.target=0.2", "evaluation.target=0.3"]) == 2
    assert "0.2 is not evaluation.target = 0.3; remove one of both" in capsys.readouterr().err


def test_ceilings_that_only_end_a_run_are_no_part_of_what_it_computes(tiny_recipe: Callable[..., Path]) -> None:
    def hashed(*words: str) -> str:
        return recipe_hash(resolved(read_recipe(tiny_recipe(), words)))

    free = ("budget.minutes=3", "budget.latency_ms=3", "budget.peak_memory_gb=3")
    assert hashed(*free) == hashed()
    assert hashed("budget.trainable_parameters=9") != hashed()


def test_time_is_up_when_only_the_end_fits_in() -> None:
    now = Clock(0.0).spent()
    assert not TimeUp(Clock(now, 0.0, 1.0), 10.0).asked()
    assert TimeUp(Clock(now, 0.0, 1.0), 70.0).asked()
    assert TimeUp(Clock(now, 55.0, 1.0), 10.0).asked()
    assert not TimeUp(Clock(now, 1e9), 10.0).asked()
    assert Clock(now).left() == math.inf


def test_the_latency_is_that_of_one_text() -> None:
    calls: list[int] = []
    assert 0 <= latency_of(lambda: calls.append(1), 5) < 1000
    assert len(calls) == 4  # the first one warms up


Ceilings = some.fixed_dictionaries(
    {},
    optional={
        "trainable_parameters": some.integers(1, 30_000),
        "shipped_mb": some.floats(0.001, 0.2),
        "peak_memory_gb": some.floats(0.05, 8),
        "minutes": some.floats(0.01, 0.2),
        "latency_ms": some.floats(0.05, 20),
    },
)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=some.sampled_from(["lora", "head", "full", "probe", "tfidf"]), ceilings=Ceilings)
def test_no_run_ends_well_above_a_ceiling(
    method: str, ceilings: dict[str, float], tiny_recipe: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever it was given: it is refused, or it ends at or below every ceiling, the clock's included."""
    folder = tmp_path_factory.mktemp("run") / "run"
    words = [f"budget.{name}={value!r}" for name, value in ceilings.items()]
    code, result = run(tiny_recipe(method), folder, *words)
    if code == 0:
        assert result.status in ("ok", "stopped")
        assert set(result.budget) == set(ceilings)
        assert all(one.measured <= one.asked for one in result.budget.values())
        assert result.seconds.total <= 60 * ceilings.get("minutes", math.inf)
        check_kept(resolved(read_recipe(folder / "recipe.toml", cross_check=False)), result.budget)
    else:
        assert code == 2
        assert json.loads((folder / "result.json").read_text())["status"] in ("failed", "interrupted")


def test_check_kept_names_every_ceiling_that_was_not(tiny_recipe: Callable[..., Path]) -> None:
    kept = {"minutes": Ceiling(asked=2.0, measured=1.0), "shipped_mb": Ceiling(asked=1.0, measured=1.5)}
    with pytest.raises(BudgetError, match=r"shipped_mb = 1\.5 against 1$"):
        check_kept(resolved(read_recipe(tiny_recipe())), kept)
