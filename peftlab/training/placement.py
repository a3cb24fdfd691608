"""Where a run computes: processes, device, threads and arithmetic, as found and as asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.errors import LaunchError, RunError, UserError

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from peftlab.recipe.records import Train

THREADS_VARIABLE = "PEFTLAB_THREADS"
"""Environment variable with the threads of a process whose recipe says `auto`, where several runs share a machine."""
WORKING_LINE = "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes {n} -m peftlab.train RECIPE"


@dataclass(frozen=True)
class Placement:
    """The place of one process: `rank` of `world` processes, its device, threads, and the training arithmetic."""

    rank: int
    world: int
    device: torch.device
    threads: int
    precision: str

    @property
    def is_main(self) -> bool:
        """Say whether this process writes the run folder and speaks to people."""
        return self.rank == 0

    def autocast(self) -> Any:
        """Return the context of the training forward pass."""
        import torch

        dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
        dtype = dtypes.get(self.precision)
        return torch.autocast(self.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def usable_cores() -> int:
    """Return the cores that this process may use: its affinity, within the container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, _, period = quota.read_text().partition(" ")
        if limit.isdigit():
            cores = min(cores, max(1, math.floor(int(limit) / int(period))))
    return cores


def place(train: Train, accelerator: Any) -> Placement:
    """Set this process's threads and return its placement; UserError for arithmetic that the device has not."""
    import torch

    local = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))
    alone = planned_place(train, accelerator.device, local_processes=local, launched=accelerator.mixed_precision)
    torch.set_num_threads(alone.threads)
    return replace(alone, rank=accelerator.process_index, world=accelerator.num_processes)


def planned_place(train: Train, device: torch.device, *, local_processes: int = 1, launched: str = "no") -> Placement:
    """Return where a process on `device` would compute by itself; nothing is set. UserError as in `place`.

    `launched`: the precision that the launch line asks for.
    """
    threads = _automatic_threads(local_processes) if train.threads == "auto" else train.threads
    return Placement(0, 1, device, threads, _precision(train.precision, device, launched))


def _automatic_threads(local_processes: int) -> int:
    given = os.environ.get(THREADS_VARIABLE)
    if given is None:
        return max(1, usable_cores() // local_processes)
    if not given.isdigit() or int(given) == 0:
        raise UserError(f"the environment variable {THREADS_VARIABLE} is {given!r}; expected a whole number above 0")
    return int(given)


def _precision(asked: str, device: torch.device, launched: str) -> str:
    if asked == "auto":
        if launched in {"bf16", "fp16"}:
            return launched
        return "bf16" if multiplies_bf16_fast(device) else "fp32"
    if asked == "fp16" and device.type == "cpu":
        raise UserError("train.precision 'fp16' needs a GPU; on CPUs use 'bf16', 'fp32' or 'auto'")
    return asked


def multiplies_bf16_fast(device: torch.device) -> bool:
    """Say whether `device` has units for bf16 products (AMX or AVX512-BF16 on CPUs, Ampere or later on GPUs)."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return False


def check_launch(processes: int, environment: Mapping[str, str], parent: Sequence[str]) -> None:
    """Raise LaunchError where the launch line asked for more processes than came about.

    `accelerate launch --cpu --num_processes 2` starts one process and says nothing; `--multi_gpu` without a GPU starts
    two that each believe to be alone, and train and write the same run twice. `parent` is the launcher's command line.
    """
    started = int(environment.get("WORLD_SIZE", "1"))
    asked = max(_asked_processes(parent), started)
    if asked <= processes:
        return
    found = f"{started} processes that do not know of each other" if started > 1 else "one process"
    raise LaunchError(
        f"the launch line asks for {asked} processes, but it started {found}; on CPUs the line that works is: "
        + WORKING_LINE.format(n=asked)
    )


def join_processes() -> tuple[Any, Console]:
    """Join the processes of the launch line; return accelerate's PartialState and a console that speaks once.

    Raises LaunchError where the launch line did not start what it asks for.
    """
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env
    from rich.console import Console

    # Accelerator reads this flag by itself, PartialState does not.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    check_launch(state.num_processes, os.environ, launcher_command())
    return state, Console(stderr=True, quiet=not state.is_main_process, highlight=False, soft_wrap=True)


def agreed(state: Any, choose: Callable[[], str | None]) -> str | None:
    """Return in every process what `choose` gives in the first one, such as the run folder; RunError in all of them.

    Raised by the first process alone, the others would wait for its word for ever.
    """
    from accelerate.utils import broadcast_object_list

    said: list[Any] = [None, None]
    if state.is_main_process:
        try:
            said[0] = choose()
        except RunError as error:
            said[1] = str(error)
    if state.num_processes > 1:
        broadcast_object_list(said)
    if said[1] is not None:
        raise RunError(said[1])
    chosen: str | None = said[0]
    return chosen


def _asked_processes(command: Sequence[str]) -> int:
    """Return the number of processes that an `accelerate launch` command line asks for, by flag or its config file."""
    if not any(
        Path(word).name in {"accelerate", "accelerate-launch"} or "accelerate.commands" in word for word in command
    ):
        return 1
    # The last `-m` names the program; what stands behind it is the program's own.
    own = max((place for place, word in enumerate(command) if word in {"-m", "--module"}), default=len(command))
    options = command[:own]
    asked = _option(options, ("--num_processes", "--num-processes"))
    if asked is not None:
        return int(asked) if asked.isdigit() else 1
    config = _option(options, ("--config_file", "--config-file"))
    return _configured_processes(Path(config)) if config is not None else 1


def _option(words: Sequence[str], names: tuple[str, ...]) -> str | None:
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else (words[place + 1] if place + 1 < len(words) else None)
    return None


def _configured_processes(path: Path) -> int:
    import yaml

    if not path.is_file():
        return 1
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    number = settings.get("num_processes", 1) if isinstance(settings, dict) else 1
    return number if isinstance(number, int) else 1


def launcher_command() -> list[str]:
    """Return the command line of the parent process, or nothing where it cannot be read."""
    import psutil

    try:
        return list(psutil.Process(os.getppid()).cmdline())
    except (psutil.Error, OSError):
        return []
