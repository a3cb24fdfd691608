"""How a server of several adapters holds up: throughput against one adapter, latency, memory, and an end under load.

    python benchmarks/serving/load.py RUN RUN RUN --seconds 60 --out benchmarks/results/serving/mixed.json

Starts `peftlab serve` on a free port of this machine, asks it from many connections at a time, each sending its next
request when it has its answer, and compares every answer with the run's offline prediction: probabilities, or the
entities of a tagger. The runs may be of different tasks, such as two classifiers and a tagger. Requests go to 127.0.0.1
only and are bounded in time (`--seconds`) and number (`--most`). Client and server share the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

TOLERANCE = 1e-4
PATIENCE = 300.0  # seconds for a server to start


@dataclass(frozen=True)
class Question:
    """A request, ready to be sent, and what it must be answered: what the run says offline of its text."""

    model: str
    head: bytes
    expected: dict[str, Any]


@dataclass
class Tally:
    """What came of one phase. Latencies in milliseconds; `difference`: the largest of any probability.

    `cpu_seconds`: processor time of the server, which other work on the machine changes less than it changes rates.
    """

    seconds: float = 0.0
    answered: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    lost: int = 0
    crossed: int = 0
    difference: float = 0.0
    latencies: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Return it as a record, latencies as quantiles."""
        cuts = statistics.quantiles(self.latencies, n=100) if len(self.latencies) > 1 else [0.0] * 99
        return {
            "seconds": round(self.seconds, 3),
            "requests": self.answered,
            "requests_per_second": round(self.answered / self.seconds, 2),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "lost": self.lost,
            "crossed": self.crossed,
            "largest_difference": self.difference,
            "latency_ms": {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(self.latencies, default=0.0)},
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the record, and return 0 where every bound of the issue is kept."""
    asked = parser().parse_args(argv)
    if asked.separate:
        return separate(asked.runs)
    folders = {Path(run).resolve().name: Path(run).resolve() for run in asked.runs}
    if len(folders) != len(asked.runs):
        raise SystemExit("the run folders must have different names")
    questions = prepare(folders, asked.texts, asked.seed)
    record = {
        "what": "one server of several adapters under a closed loop of clients on the same machine",
        "settings": {key: value for key, value in vars(asked).items() if key not in ("runs", "out", "separate")},
        "machine": machine(),
        "models": {name: about(folder) for name, folder in folders.items()},
        "memory": memory(folders, asked, questions),
        **asyncio.run(under_load(folders, asked, questions)),
    }
    record["held"] = held(record)
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    if asked.out:
        from peftlab.runs.files import write_text

        write_text(Path(asked.out), text)
    print(text)
    return 0 if all(record["held"].values()) else 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    made.add_argument(
        "runs", nargs="+", metavar="RUN", help="finished runs on one encoder; the first one decides on it"
    )
    made.add_argument("--seconds", type=float, default=60.0, help="of the sustained mixed load")
    made.add_argument("--rounds", type=int, default=3, help="of the comparison, mixed and each run alone in turn")
    made.add_argument("--round-seconds", type=float, default=10.0)
    made.add_argument("--starts", type=int, default=3, help="of the servers whose memory is measured")
    made.add_argument("--clients", type=int, default=64)
    made.add_argument("--most", type=int, default=200_000, help="requests of a phase at most")
    made.add_argument("--texts", type=int, default=300, help="different texts for each run")
    made.add_argument("--threads", type=int, default=1, help="of a forward pass")
    made.add_argument("--max-batch", type=int, default=32)
    made.add_argument("--max-wait-ms", type=float, default=5.0)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", metavar="FILE")
    made.add_argument("--separate", action="store_true", help=argparse.SUPPRESS)
    return made


# What is asked ---------------------------------------------------------------------------------------------------


def prepare(folders: dict[str, Path], texts: int, seed: int) -> dict[str, list[Question]]:
    """Return the questions for each run: the same made-up tickets for all, with the offline predictions of the run."""
    from peftlab.data.tickets.generate import generate_tickets
    from peftlab.evaluation.predictor import load_predictor

    asked = [ticket.text for ticket in generate_tickets("en", 2_000, seed)]
    asked = random.Random(seed).sample(list(dict.fromkeys(asked)), texts)
    found = {}
    for name, folder in folders.items():
        rows = load_predictor(folder).rows(asked)
        found[name] = [
            Question(name, _request({"model": name, "text": text}), row) for text, row in zip(asked, rows, strict=True)
        ]
    return found


def _request(body: dict[str, Any]) -> bytes:
    raw = json.dumps(body).encode()
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}"
    )
    return head.encode() + b"\r\n\r\n" + raw


# The server ------------------------------------------------------------------------------------------------------


@contextmanager
def server(folders: dict[str, Path], asked: argparse.Namespace) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start `peftlab serve` on a free port; yield the process and the port."""
    words = [sys.executable, "-m", "peftlab.serve", *(f"{name}={folder}" for name, folder in folders.items())]
    words += ["--port", "0", "--threads", str(asked.threads), "--max-batch", str(asked.max_batch)]
    words += ["--max-wait-ms", str(asked.max_wait_ms)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise SystemExit(process.communicate(timeout=PATIENCE)[1])
        yield process, int(address.rpartition(":")[2])
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


# The load --------------------------------------------------------------------------------------------------------


async def load(port: int, questions: list[Question], clients: int, seconds: float, most: int, seed: int) -> Tally:
    """Ask from `clients` connections for `seconds`; each asks a question at random when it has its answer."""
    tally, left = Tally(), most
    until = time.monotonic() + seconds

    async def ask(number: int) -> None:
        nonlocal left
        draw = random.Random(seed * 1000 + number)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while time.monotonic() < until and left > 0:
                left -= 1
                question = draw.choice(questions)
                started = time.monotonic()
                writer.write(question.head)
                try:
                    status, answer, closing = await _answer(reader)
                except (OSError, EOFError):
                    tally.lost += 1
                    return
                tally.latencies.append((time.monotonic() - started) * 1000)
                _count(tally, question, status, answer)
                if closing:
                    return
        finally:
            writer.close()

    started = time.monotonic()
    await asyncio.gather(*(ask(number) for number in range(clients)))
    tally.seconds = time.monotonic() - started
    return tally


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
    return int(lines[0].split()[1]), await reader.readexactly(length), b"connection: close" in lines


def _count(tally: Tally, question: Question, status: int, answer: bytes) -> None:
    tally.answered += 1
    tally.statuses[status] += 1
    if status != 200:
        return
    given = json.loads(answer)
    said, expected = given["answers"][0], question.expected
    if given["model"] != question.model or said.get("entities") != expected.get("entities"):
        tally.crossed += 1
        return
    chances, known = said.get("probabilities", {}), expected.get("probabilities", {})
    if chances.keys() != known.keys():
        tally.crossed += 1
        return
    difference = max((abs(chances[label] - chance) for label, chance in known.items()), default=0.0)
    tally.crossed += difference > TOLERANCE
    tally.difference = max(tally.difference, difference)


async def under_load(
    folders: dict[str, Path], asked: argparse.Namespace, questions: dict[str, list[Question]]
) -> dict[str, Any]:
    """Return throughput in turns, the sustained load, and what the end under load left unanswered."""
    mixed = [one for some in questions.values() for one in some]
    with server(folders, asked) as (process, port):
        resident = psutil.Process(process.pid)

        async def phase(some: list[Question], seconds: float, seed: int) -> Tally:
            before = resident.cpu_times()
            tally = await load(port, some, asked.clients, seconds, asked.most, seed)
            if resident.is_running() and resident.status() != psutil.STATUS_ZOMBIE:
                after = resident.cpu_times()
                tally.cpu_seconds = after.user + after.system - before.user - before.system
            return tally

        await phase(mixed, min(3.0, asked.round_seconds), 1)  # not counted
        rates: dict[str, list[float]] = {name: [] for name in ("mixed", *folders)}
        cpu: dict[str, list[float]] = {name: [] for name in rates}
        for turn in range(asked.rounds):
            for name, found in rates.items():
                some = mixed if name == "mixed" else questions[name]
                tally = await phase(some, asked.round_seconds, 10 + turn)
                found.append(round(tally.answered / tally.seconds, 2))
                cpu[name].append(round(1000 * tally.cpu_seconds / tally.answered, 3))
        sustained = await phase(mixed, asked.seconds, 2)
        ending = asyncio.ensure_future(phase(mixed, 30.0, 3))
        await asyncio.sleep(min(2.0, asked.round_seconds))
        process.send_signal(signal.SIGTERM)
        last = await ending
        code = await asyncio.to_thread(process.wait, 120)
        assert process.stderr is not None
        said = process.stderr.read().strip().splitlines()[-1]
    middle = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "throughput": {
            "requests_per_second_by_round": rates,
            "server_cpu_ms_per_request_by_round": cpu,
            "median": middle,
            "mixed_over_alone": {name: round(middle["mixed"] / middle[name], 4) for name in folders},
            # Runs of different tasks take different times; this is the rate of the same requests asked run by run.
            "mixed_over_harmonic_mean": round(
                middle["mixed"] / statistics.harmonic_mean([middle[name] for name in folders]), 4
            ),
        },
        "sustained": sustained.summary(),
        "end": {**last.summary(), "exit_code": code, "server_said": said},
    }


# Memory ----------------------------------------------------------------------------------------------------------


def memory(folders: dict[str, Path], asked: argparse.Namespace, questions: dict[str, list[Question]]) -> dict[str, Any]:
    """Return resident bytes of a server of one run and of all, and of as many merged models.

    `at_rest`: before the first request, which is what models take. `after_load` adds what batches of texts left behind,
    which differs by tens of megabytes from start to start. Each the median over `--starts` starts.
    """
    one = dict(list(folders.items())[:1])
    served: dict[str, list[tuple[int, int]]] = {"one": [], "all": []}
    for _ in range(asked.starts):
        for name, some in (("one", one), ("all", folders)):
            served[name].append(_served(some, asked, questions))
    words = [sys.executable, __file__, *map(str, folders.values()), "--separate"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=PATIENCE)
    alone: list[int] = json.loads(done.stdout.strip().splitlines()[-1])
    separate_more = alone[-1] - alone[0]
    found: dict[str, Any] = {"separate_merged_models": alone, "more_for_the_others_separately": separate_more}
    for place, when in enumerate(("at_rest", "after_load")):
        middle = {name: statistics.median(start[place] for start in starts) for name, starts in served.items()}
        more = middle["all"] - middle["one"]
        found[when] = {
            "bytes_by_start": {name: [start[place] for start in starts] for name, starts in served.items()},
            "more_for_the_others": more,
            "share_of_separately": round(more / separate_more, 4),
        }
    return found


def _served(
    folders: dict[str, Path], asked: argparse.Namespace, questions: dict[str, list[Question]]
) -> tuple[int, int]:
    some = [one for name in folders for one in questions[name]]
    with server(folders, asked) as (process, port):
        resident = psutil.Process(process.pid)
        at_rest = int(resident.memory_info().rss)
        asyncio.run(load(port, some, asked.clients, 3.0, 2_000, 4))
        return at_rest, int(resident.memory_info().rss)


def separate(runs: Sequence[str]) -> int:
    """Load the runs as merged models of their own, one after the other; print the resident bytes after each."""
    import torch

    from peftlab.data.tokens import tokenise
    from peftlab.encoders.merging import merge
    from peftlab.evaluation.forward import logits_of
    from peftlab.evaluation.run_model import load_run_model
    from peftlab.serving.models import give_back_memory

    torch.set_num_threads(1)
    held, bytes_after = [], []
    for run in runs:
        loaded = load_run_model(Path(run), torch.device("cpu"))
        module = merge(loaded.module)
        tokens = tokenise(loaded.tokenizer, ["where is my parcel? " * 8] * 32, None, loaded.encoder.max_length)
        logits_of(module, tokens, batch_size=32, device=torch.device("cpu"))
        held.append((module, loaded.tokenizer))
        del loaded
        give_back_memory()
        bytes_after.append(int(psutil.Process().memory_info().rss))
    print(json.dumps(bytes_after))
    return 0


# The record ------------------------------------------------------------------------------------------------------


def about(folder: Path) -> dict[str, Any]:
    """Return what a run is."""
    from peftlab.runs.folder import run_recipe
    from peftlab.runs.model_record import read_model_record

    record, recipe = read_model_record(folder), run_recipe(folder)
    encoder = record.encoder.used if record.encoder is not None else None
    return {
        "task": recipe.task.name,
        "method": recipe.method.name,
        "labels": len(record.labels),
        "encoder": encoder,
        "task_settings": recipe.task.config.model_dump(mode="json"),
    }


def machine() -> dict[str, Any]:
    """Return what it ran on."""
    from peftlab.runs.environment import git_commit, processor_name, versions
    from peftlab.training.placement import usable_cores

    return {"processor": processor_name(), "cores": usable_cores(), "versions": versions(), "commit": git_commit()}


def held(record: dict[str, Any]) -> dict[str, bool]:
    """Return which bounds are kept, for the worst of the runs."""
    sustained, end = record["sustained"], record["end"]
    faults = [status for part in (sustained, end) for status in part["statuses"] if status != "200"]
    return {
        "every_answer_200": not faults,
        "none_lost_or_crossed": sum(part[key] for part in (sustained, end) for key in ("lost", "crossed")) == 0,
        "mixed_at_least_0.85_of_alone": min(record["throughput"]["mixed_over_alone"].values()) >= 0.85,
        "memory_at_rest_at_most_0.10": record["memory"]["at_rest"]["share_of_separately"] <= 0.10,
        "ended_with_143": end["exit_code"] == 143,
    }


if __name__ == "__main__":
    sys.exit(main())
