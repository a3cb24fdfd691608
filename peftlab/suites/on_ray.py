"""Do many orders at once on a Ray cluster: each is a task, and its process runs on the node that Ray gives it.

Every node needs peftlab and, at the same paths as here, the recipes with their data and encoders. The run folders stay
on the nodes; what a record needs comes back.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftlab.errors import MissingPackage, UserError
from peftlab.suites.execute import GRACE_SECONDS, Ended, execute
from peftlab.suites.orders import Order, PlannedRun
from peftlab.suites.schedule import TICK_SECONDS, Event, Events, RunAll, stopped
from peftlab.training.signals import stop_on_signals

INSTALL = 'pip install "peftlab[ray]"'
BROUGHT_BACK = ("result.json", "predictions.jsonl", "metrics.jsonl")


@dataclass(frozen=True)
class Delivered:
    """How an order ended on its node, and the files that came back, by name."""

    ended: Ended
    files: dict[str, bytes]


def on_ray(address: str, threads: int, gpus: float = 0) -> RunAll:
    """Return what does runs on the cluster at `address`, each as a task of `threads` CPUs and `gpus` GPUs.

    Raises MissingPackage where Ray is not installed, and UserError where no cluster answers or no node is large enough.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise MissingPackage(f"--ray needs the package ray, which is not installed: {INSTALL}") from None

    def run_all(runs: Sequence[PlannedRun], work: Path) -> Events:
        if not ray.is_initialized():
            _connect(ray, address)
        _refuse_too_small(ray, threads, gpus)
        task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(_deliver)
        with stop_on_signals() as wish:
            waiting = {task.remote(run.order, str(work.resolve()), threads): run for run in runs}
            since = time.monotonic()
            for run in runs:
                yield Event("started", run)
            while waiting:
                done, _ = ray.wait(list(waiting), num_returns=1, timeout=TICK_SECONDS)
                for reference in done:
                    run = waiting.pop(reference)
                    yield Event("ended", run, _received(ray, reference, run, work), time.monotonic() - since)
                if wish.asked() and waiting:
                    for reference in waiting:
                        ray.cancel(reference)
                    ray.wait(list(waiting), num_returns=len(waiting), timeout=GRACE_SECONDS)
                    raise stopped(wish)
                yield Event("tick")

    return run_all


def _connect(ray: Any, address: str) -> None:
    try:
        ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"no Ray cluster answers at {address!r}: {reason}; start one with: ray start --head") from None


def _refuse_too_small(ray: Any, threads: int, gpus: float) -> None:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= threads and node.get("GPU", 0) >= gpus for node in nodes):
        raise UserError(
            f"no node of the Ray cluster has {threads} CPUs and {gpus:g} GPUs, which a run is to have; ask for less "
            "with --threads and --gpus, or add a node"
        )


def _deliver(order: Order, work: str, threads: int) -> Delivered:
    """Do the order on the node that this runs on. A cancelled task interrupts the wait, which ends the process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ended = execute(order, Path(work), threads)
    folder = Path(work) / order.name
    files = {name: (folder / name).read_bytes() for name in BROUGHT_BACK if (folder / name).is_file()}
    return Delivered(ended, files)


def _received(ray: Any, reference: Any, run: PlannedRun, work: Path) -> Ended:
    """Put what came back where a local run would have left it; a task that Ray lost is a run that failed."""
    try:
        delivered: Delivered = ray.get(reference)
    except ray.exceptions.RayError as error:
        delivered = Delivered(Ended(1, f"the Ray task was lost: {error}", stopped=False), {})
    folder = work / run.name
    folder.mkdir(parents=True, exist_ok=True)
    for name in BROUGHT_BACK:
        path, content = folder / name, delivered.files.get(name)
        if content is None:
            path.unlink(missing_ok=True)
        elif not path.is_file() or path.read_bytes() != content:
            path.write_bytes(content)
    return delivered.ended
