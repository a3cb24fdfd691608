"""A server in a process of its own: what it accepted it answers, also when it is told to end; it logs no text."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from running import LONGEST, Connection, Running, running, same_answer

from peftlab.evaluation.predictor import Predictor

CLIENTS = 16
TOPIC_WORDS = ("parcel", "courier", "refund", "card", "screen", "battery", "why", "is", "my", "the", "late", "charged")


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a folder with a short path: that of a unix socket may have about a hundred characters."""
    with tempfile.TemporaryDirectory(prefix="serve") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_told_to_end_under_load_it_answers_all_that_it_accepted(
    served_runs: dict[str, Path], offline: dict[str, Predictor], place: Path
) -> None:
    """The clients hold as many answers as the server counts, each its own; whoever got none was not let in at all."""
    answers: list[tuple[str, list[str], dict[str, Any]]] = []
    refusals: list[type[Exception]] = []

    def ask(number: int, server: Running) -> None:
        draw = random.Random(number)
        with closing(Connection(server)) as client:
            for turn in range(1000):
                name = draw.choice(list(offline))
                texts = [f"{number} {turn} " + " ".join(draw.choices(TOPIC_WORDS, k=6)) for _ in range(8)]
                try:
                    status, given, _ = client.post("/v1/predict", {"model": name, "texts": texts})
                except OSError as error:
                    refusals.append(type(error))
                    return
                assert status == 200, given
                answers.append((name, texts, given))

    with running(served_runs, place) as server, ThreadPoolExecutor(CLIENTS) as many:
        asking = [many.submit(ask, number, server) for number in range(CLIENTS)]
        while len(answers) < 60 and not any(one.done() for one in asking):
            time.sleep(0.005)
        server.terminate()
        for one in asking:
            one.result(LONGEST)
        assert server.ended() == 143
        assert server.answered() == len(answers)
    assert refusals == [ConnectionRefusedError] * CLIENTS
    for name, texts, given in answers:
        for row, answer in zip(offline[name].rows(texts), given["answers"], strict=True):
            assert same_answer(answer, row)


@pytest.mark.slow
def test_a_request_that_waits_when_the_signal_comes_is_answered_and_nothing_of_it_is_logged(
    served_runs: dict[str, Path], place: Path
) -> None:
    """It waits for company for longer than the signal takes; a body of 10 MB before it is refused on a real socket."""
    one = {"queue": served_runs["queue"]}
    with (
        running(one, place, "--max-wait-ms", "1500", "--log-requests") as server,
        closing(Connection(server)) as client,
    ):
        status, answer, _ = client.post("/v1/predict", b"a" * 10_000_000)
        assert (status, answer["detail"]) == (413, "the body is too long; expected at most 1,000,000 bytes")
        assert client.post("/v1/predict", {"texts": ["secretword", 3]})[0] == 422
        timer = threading.Timer(0.5, server.terminate)
        timer.start()
        status, _, headers = client.post("/v1/predict", {"text": "my secretword"})
        timer.join()
        assert (status, headers["connection"]) == (200, "close")
        assert server.ended() == 143
        assert server.answered() == 3
        assert "POST /v1/predict 200" in server.said()
        assert "secretword" not in server.said()
        assert not Path(server.address.removeprefix("unix:")).exists()
