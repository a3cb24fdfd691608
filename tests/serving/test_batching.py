"""Who shares a batch with whom: lanes, sizes, order, failures, and requests that nobody waits for any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from peftlab.evaluation.several import Row
from peftlab.serving.attribution import pieces, without, word_spans
from peftlab.serving.batching import Batcher, Busy, Watch
from peftlab.serving.limits import Limits


class Model:
    """Answers a text with itself, notes its batches, breaks on "broken", and waits for `go`."""

    def __init__(self) -> None:
        self.batches: list[list[Row]] = []
        self.failures: list[Exception] = []
        self.go = threading.Event()
        self.go.set()

    def answer(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Answer one batch."""
        assert self.go.wait(30)
        self.batches.append(list(rows))
        if any(row.text == "broken" for row in rows):
            raise ValueError("broken")
        return [{"said": f"{row.name} {row.text}"} for row in rows]


def run(model: Model, limits: Limits, body: Callable[[Batcher], Coroutine[Any, Any, None]]) -> None:
    """Run `body` with a batcher in front of `model`; the lane of a name is its first letter."""

    async def inside() -> None:
        with ThreadPoolExecutor(1) as executor:
            watch = Watch(lambda _texts, _seconds: None, model.failures.append)
            batcher = Batcher(model.answer, lambda name: name[0], limits, executor, watch)
            batcher.start()
            try:
                await asyncio.wait_for(body(batcher), 60)
            finally:
                model.go.set()
                await batcher.stop()

    asyncio.run(inside())


def rows(name: str, *texts: str) -> list[Row]:
    """Return texts of one model."""
    return [Row(name, text) for text in texts]


async def until(true: Callable[[], bool]) -> None:
    """Wait until something holds."""
    while not true():
        await asyncio.sleep(0.001)


def test_texts_share_a_batch_only_within_a_lane_and_come_back_to_their_own_request() -> None:
    model = Model()

    async def body(batcher: Batcher) -> None:
        asked = [(f"{lane}{number}", f"text {number}") for number in range(20) for lane in "ab"]
        answers = await asyncio.gather(*(batcher.submit(rows(name, text, "more")) for name, text in asked))
        for (name, text), given in zip(asked, answers, strict=True):
            assert given == [{"said": f"{name} {text}"}, {"said": f"{name} more"}]

    run(model, Limits(max_batch=8), body)
    assert all(len({row.name[0] for row in batch}) == 1 for batch in model.batches)
    assert [len(batch) for batch in model.batches] == [8] * 10
    assert any(len({row.name for row in batch}) > 1 for batch in model.batches)


def test_the_lane_of_the_oldest_text_goes_next_so_that_no_lane_starves() -> None:
    model = Model()

    async def body(batcher: Batcher) -> None:
        model.go.clear()
        waiting = [asyncio.ensure_future(batcher.submit(rows("a", "first")))]
        await asyncio.sleep(0)
        await until(lambda: batcher.waiting == 0)
        for name in ("b", "a", "a", "a", "a"):
            waiting.append(asyncio.ensure_future(batcher.submit(rows(name, name))))
            await asyncio.sleep(0)
        model.go.set()
        await asyncio.gather(*waiting)

    run(model, Limits(max_batch=2, max_wait_ms=0), body)
    assert [[row.name for row in batch] for batch in model.batches] == [["a"], ["b"], ["a", "a"], ["a", "a"]]


def test_a_batch_that_breaks_is_raised_to_its_own_requests_and_the_next_is_answered() -> None:
    model = Model()

    async def body(batcher: Batcher) -> None:
        with pytest.raises(ValueError, match="broken"):
            await batcher.submit(rows("a", "fine", "broken", "never tried", "nor this"))
        assert await batcher.submit(rows("a", "fine")) == [{"said": "a fine"}]
        assert (batcher.waiting, batcher.alive) == (0, True)
        await batcher.finished("a")

    run(model, Limits(max_batch=2), body)
    assert [str(error) for error in model.failures] == ["broken"]
    assert [row.text for batch in model.batches for row in batch] == ["fine", "broken", "fine"]


def test_texts_that_nobody_waits_for_any_more_are_dropped_and_too_many_are_refused() -> None:
    model = Model()

    async def body(batcher: Batcher) -> None:
        model.go.clear()
        first = asyncio.ensure_future(batcher.submit(rows("a", "first")))
        await asyncio.sleep(0)
        await until(lambda: batcher.waiting == 0)
        given_up = asyncio.ensure_future(batcher.submit(rows("a", "1", "2", "3")))
        await until(lambda: batcher.waiting == 3)
        with pytest.raises(Busy) as busy:
            await batcher.submit(rows("b", "4"))
        assert busy.value.retry_after >= 1
        given_up.cancel()
        await until(lambda: batcher.waiting == 0)
        model.go.set()
        await first
        await batcher.finished("a")

    run(model, Limits(max_queue=3, max_wait_ms=0), body)
    assert [row.text for batch in model.batches for row in batch] == ["first"]


def test_words_are_words_in_english_and_characters_in_chinese() -> None:
    text = "Don't send  the 快递, please!"
    words = [text[span.start : span.end] for span in word_spans(text, 96)]
    assert words == ["Don't", "send", "the", "快", "递", "please"]
    assert without(text, word_spans(text, 96))[2] == "Don't send   快递, please!"
    assert without("alone", word_spans("alone", 96)) == ["."]
    assert word_spans("?! ...", 96) == []


def test_many_words_are_joined_evenly_and_no_part_of_the_text_is_lost() -> None:
    text = " ".join(f"word{number}" for number in range(1000)) + "."
    spans = word_spans(text, 96)
    assert len(spans) == 91  # eleven words each, the last shorter
    shown = pieces(text, spans, [0.5] * len(spans))
    assert "".join(piece for piece, _ in shown) == text
    assert [effect for _, effect in shown].count(None) == len(spans)
