"""Texts of many requests in one forward pass: who waits for whom, how long, and who is sent away.

Texts wait in lanes; those of one lane may share a pass. The lane of the text that has waited longest goes next, as soon
as it fills a batch or that text has waited `max_wait_ms`. So no lane starves, and a text never waits longer for company
than that; while a pass runs, those that come gather by themselves.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from peftlab.evaluation.several import Row
from peftlab.serving.limits import Limits

Answer = dict[str, Any]
_SMOOTHING = 0.2  # weight of the latest batch in the running mean of texts a second
_LONGEST_RETRY = 60  # seconds


class Busy(Exception):
    """More texts wait than may; `retry_after` is the number of seconds after which they should be done."""

    def __init__(self, retry_after: int) -> None:
        super().__init__()
        self.retry_after = retry_after


@dataclass
class _Request:
    """The texts of one request on their way: the answers so far, and how many lack."""

    done: asyncio.Future[list[Answer]]
    answers: list[Answer]
    missing: int


@dataclass(frozen=True)
class _Waiting:
    """One text: whose it is, its place in its request, and since when it waits (monotonic seconds)."""

    row: Row
    request: _Request
    place: int
    since: float


@dataclass(frozen=True)
class Watch:
    """Who is told of the work: `batch(texts, seconds)` after each pass, `failed(error)` where one broke."""

    batch: Callable[[int, float], None]
    failed: Callable[[Exception], None]


class Batcher:
    """Takes the texts of requests and answers them in batches, all in one thread that it owns."""

    def __init__(
        self,
        answer: Callable[[Sequence[Row]], list[Answer]],
        lane: Callable[[str], str],
        limits: Limits,
        executor: ThreadPoolExecutor,
        watch: Watch,
    ) -> None:
        """`answer(rows)` answers rows of one lane, in the one thread of `executor`; `lane(name)` is a model's lane."""
        self._answer, self._lane, self._limits = answer, lane, limits
        self._executor, self._watch = executor, watch
        self._lanes: dict[str, deque[_Waiting]] = {}
        self._arrival = asyncio.Event()
        self._under_way: Counter[str] = Counter()
        self._waiting = 0
        self._rate = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Texts that wait for a pass."""
        return self._waiting

    @property
    def alive(self) -> bool:
        """Say whether texts are being answered."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin to answer; call it in the event loop that `submit` is called in."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop answering; what still waits is never answered."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def submit(self, rows: Sequence[Row]) -> list[Answer]:
        """Return the answers to `rows`, in their order; raises Busy where too many texts wait already.

        Raises what the model raised. Where the caller is cancelled, its texts that no pass has taken yet are dropped.
        """
        if self._waiting + len(rows) > self._limits.max_queue:
            raise Busy(self._retry_after(len(rows)))
        if not rows:
            return []
        request = _Request(asyncio.get_running_loop().create_future(), [{}] * len(rows), len(rows))
        now = time.monotonic()
        for place, row in enumerate(rows):
            self._lanes.setdefault(self._lane(row.name), deque()).append(_Waiting(row, request, place, now))
            self._under_way[row.name] += 1
        self._waiting += len(rows)
        self._arrival.set()
        try:
            return await request.done
        finally:
            if request.missing:
                self._drop(request)

    async def finished(self, name: str) -> None:
        """Return when no text for the model of this name waits or is being answered."""
        while self._under_way[name]:
            await asyncio.sleep(0.01)

    def _retry_after(self, texts: int) -> int:
        seconds = (self._waiting + texts) / self._rate if self._rate else 1.0
        return min(_LONGEST_RETRY, max(1, math.ceil(seconds)))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next()
            started = time.monotonic()
            try:
                answers = await loop.run_in_executor(self._executor, self._answer, [one.row for one in batch])
            except Exception as error:
                self._watch.failed(error)
                for one in batch:
                    self._settle(one, None, error)
            else:
                for one, given in zip(batch, answers, strict=True):
                    self._settle(one, given, None)
            seconds = max(time.monotonic() - started, 1e-6)
            rate = len(batch) / seconds
            self._rate += (rate - self._rate) * (_SMOOTHING if self._rate else 1.0)
            self._watch.batch(len(batch), seconds)
            await asyncio.sleep(0)  # whoever gave up, or saw the failure, takes its other texts out first

    def _settle(self, one: _Waiting, answer: Answer | None, error: Exception | None) -> None:
        """Put an answer in its place; the request is done with its last one, or with the first failure."""
        request = one.request
        self._under_way[one.row.name] -= 1
        request.missing -= 1
        if request.done.done():
            return
        if error is not None:
            request.done.set_exception(error)
        elif answer is not None:
            request.answers[one.place] = answer
            if not request.missing:
                request.done.set_result(request.answers)

    async def _next(self) -> list[_Waiting]:
        """Wait for the next batch and take it: never empty, of one lane, oldest text first."""
        while True:
            self._arrival.clear()
            left = None
            if self._lanes:
                lane = min(self._lanes, key=lambda name: self._lanes[name][0].since)
                queue = self._lanes[lane]
                left = queue[0].since + self._limits.max_wait_ms / 1000 - time.monotonic()
                if len(queue) >= self._limits.max_batch or left <= 0:
                    batch = [queue.popleft() for _ in range(min(len(queue), self._limits.max_batch))]
                    if not queue:
                        del self._lanes[lane]
                    self._waiting -= len(batch)
                    return batch
            try:
                async with asyncio.timeout(left):
                    await self._arrival.wait()
            except TimeoutError:
                continue

    def _drop(self, request: _Request) -> None:
        """Take the texts of a request that nobody waits for any more out of the lanes."""
        for lane, queue in list(self._lanes.items()):
            kept = deque(one for one in queue if one.request is not request)
            for one in queue:
                if one.request is request:
                    self._under_way[one.row.name] -= 1
            self._waiting -= len(queue) - len(kept)
            request.missing -= len(queue) - len(kept)
            if kept:
                self._lanes[lane] = kept
            else:
                del self._lanes[lane]
