"""Launch lines that do not do what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from peftlab.errors import LaunchError, UserError
from peftlab.recipe.records import Train
from peftlab.training.placement import check_launch, place, usable_cores

LAUNCH = ["python", "/venv/bin/accelerate", "launch"]
PROGRAM = ["-m", "peftlab.train", "recipe.toml"]
LINE = "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 -m peftlab.train"


@pytest.mark.parametrize(
    "parent",
    [
        [*LAUNCH, "--cpu", "--num_processes", "2", *PROGRAM],
        [*LAUNCH, "--cpu", "--num_processes=2", *PROGRAM],
        ["python", "-m", "accelerate.commands.launch", "--num_processes", "2", *PROGRAM],
    ],
)
def test_two_processes_asked_for_and_one_started_is_refused_with_the_line_that_works(parent: list[str]) -> None:
    """Accelerate starts one process and says nothing; peftlab does."""
    with pytest.raises(LaunchError, match="asks for 2 processes, but it started one process") as raised:
        check_launch(1, {}, parent)

    assert LINE in str(raised.value)


def test_two_processes_that_do_not_know_of_each_other_are_refused() -> None:
    """Torchrun's environment says two, accelerate believes to be alone: two trainings in one folder."""
    with pytest.raises(LaunchError, match="2 processes that do not know of each other"):
        check_launch(1, {"WORLD_SIZE": "2"}, [])


def test_a_config_file_that_asks_for_two_processes_is_read(tmp_path: Path) -> None:
    """MULTI_CPU in a config file starts one process too."""
    config = tmp_path / "two.yaml"
    config.write_text("distributed_type: MULTI_CPU\nnum_processes: 2\n", encoding="utf-8")
    with pytest.raises(LaunchError, match="asks for 2 processes"):
        check_launch(1, {}, [*LAUNCH, "--config_file", str(config), *PROGRAM])


@pytest.mark.parametrize(
    ("processes", "environment", "parent"),
    [
        (1, {}, ["bash"]),
        (1, {}, [*LAUNCH, *PROGRAM]),
        (1, {"WORLD_SIZE": "1"}, [*LAUNCH, "--num_processes", "1", *PROGRAM]),
        (2, {"WORLD_SIZE": "2"}, [*LAUNCH, "--num_processes", "2", *PROGRAM]),
        (1, {}, [*LAUNCH, *PROGRAM, "--num_processes", "2"]),
        (1, {}, ["python", "suite.py", "--num_processes", "2"]),
    ],
)
def test_launch_lines_that_do_what_they_say_pass(
    processes: int, environment: dict[str, str], parent: list[str]
) -> None:
    """Also options behind the program, and a parent that is no launcher."""
    check_launch(processes, environment, parent)


class FakeAccelerator:
    """What `place` reads of an Accelerator."""

    def __init__(self, processes: int = 1, mixed_precision: str = "no") -> None:
        self.process_index, self.num_processes = 0, processes
        self.mixed_precision, self.device = mixed_precision, torch.device("cpu")


def test_local_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process takes every core it may use; two take half each, and never less than one."""
    before = torch.get_num_threads()
    try:
        assert place(Train(), FakeAccelerator()).threads == usable_cores()
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
        assert place(Train(), FakeAccelerator(64)).threads == 1
        assert place(Train(threads=1), FakeAccelerator()).threads == 1
    finally:
        torch.set_num_threads(before)


def test_precision_follows_the_recipe_then_the_launcher() -> None:
    """`auto` takes what the launcher says; the recipe's own word wins; fp16 needs a GPU."""
    before = torch.get_num_threads()
    try:
        assert place(Train(threads=1), FakeAccelerator(mixed_precision="bf16")).precision == "bf16"
        assert place(Train(threads=1, precision="fp32"), FakeAccelerator(mixed_precision="bf16")).precision == "fp32"
        with pytest.raises(UserError, match="fp16' needs a GPU"):
            place(Train(threads=1, precision="fp16"), FakeAccelerator())
    finally:
        torch.set_num_threads(before)


def test_runs_that_share_a_machine_are_given_their_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """By PEFTLAB_THREADS, where the recipe says auto; a recipe's own number stands."""
    from peftlab.training.placement import THREADS_VARIABLE, _automatic_threads

    monkeypatch.setenv(THREADS_VARIABLE, "3")
    assert _automatic_threads(1) == 3
    monkeypatch.setenv(THREADS_VARIABLE, "many")
    with pytest.raises(UserError, match="PEFTLAB_THREADS is 'many'; expected a whole number above 0"):
        _automatic_threads(1)
    monkeypatch.delenv(THREADS_VARIABLE)
    assert _automatic_threads(1) == usable_cores()
