"""The routes: what is answered where. FastAPI reads the records of `messages` and documents them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException

from peftlab import __version__
from peftlab.errors import UserError
from peftlab.evaluation.several import Row
from peftlab.serving.access import Access
from peftlab.serving.attribution import pieces, without, word_spans
from peftlab.serving.batching import Batcher, Busy, Watch
from peftlab.serving.gate import LOG, Door, Gate, Refused, problem, without_words
from peftlab.serving.limits import Limits
from peftlab.serving.messages import (
    ExplainRequest,
    ExplainResponse,
    LoadRequest,
    ModelCard,
    ModelList,
    Piece,
    PredictRequest,
    PredictResponse,
    Problem,
    State,
    answer_of,
    sentence_of,
    shortened,
)
from peftlab.serving.metrics import CONTENT_TYPE, Metrics
from peftlab.serving.models import NAME, NAME_RULE, Models, Served
from peftlab.serving.reference import reference_page

Made = TypeVar("Made")
_PAGE = Path(__file__).parent / "page"
_FILES = {"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}
_WORDS = {
    400: "the body is no JSON in UTF-8, or nested too deeply",
    404: "there is nothing here; the addresses stand in /docs",
    405: "this address takes other methods; see /docs",
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 404, 408, 413, 415, 421, 422, 429, 503)
}


@dataclass(frozen=True)
class Service:
    """A server without its socket: the application, and the door that says how many requests are inside."""

    app: Gate
    door: Door


class _Desk:
    """What the routes share: the models, the thread that they run in, and the batcher in front of it."""

    def __init__(self, models: Models, limits: Limits, access: Access, door: Door, threads: int) -> None:
        self.models, self.limits, self.access, self.door = models, limits, access, door
        self._leaving: set[str] = set()
        self.metrics = Metrics(lambda: self.batcher.waiting, lambda: len(models.served))
        self._executor = ThreadPoolExecutor(1, "model", initializer=_use_threads, initargs=(threads,))
        self.batcher = Batcher(
            models.answer,
            lambda name: models.known(name).lane,
            limits,
            self._executor,
            Watch(self._batch, self._failed),
        )

    @asynccontextmanager
    async def open(self, _app: FastAPI) -> AsyncIterator[None]:
        """Answer for the time of the block."""
        self.batcher.start()
        yield
        await self.batcher.stop()
        self._executor.shutdown()

    def find(self, name: str | None) -> Served:
        """Return the model that a request names; the only one where it names none."""
        served = {own: one for own, one in self.models.served.items() if own not in self._leaving}
        if name is None and len(served) == 1:
            return next(iter(served.values()))
        names = ", ".join(served) or "none yet"
        if name is None:
            raise Refused(422, f"model: the field is missing; there are: {names}")
        if name not in served:
            raise Refused(404, f"model: there is none named {shortened(name)!r}; there are: {names}")
        return served[name]

    async def answer(self, served: Served, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return the predictor's rows for `rows`, within the time allowed."""
        try:
            async with asyncio.timeout(self.limits.timeout):
                answers = await self.batcher.submit(rows)
        except TimeoutError:
            raise Refused(503, "the answer took too long; try again", {"Retry-After": "1"}) from None
        except Busy as busy:
            seconds = busy.retry_after
            raise Refused(
                429, f"too many texts wait; try again in {seconds} seconds", {"Retry-After": str(seconds)}
            ) from None
        self.metrics.texts.labels(served.name).inc(len(rows))
        return answers

    async def load(self, name: str, folder: Path) -> Served:
        """Load a model between two batches."""
        return await self._in_thread(partial(self.models.load, name, folder))

    async def unload(self, name: str) -> None:
        """Take no more texts for a model, answer those that wait, and forget it."""
        self._leaving.add(name)
        try:
            await self.batcher.finished(name)
            await self._in_thread(partial(self.models.unload, name))
        finally:
            self._leaving.discard(name)

    async def _in_thread(self, work: Callable[[], Made]) -> Made:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _batch(self, texts: int, seconds: float) -> None:
        self.metrics.batches.observe(texts)
        self.metrics.passes.observe(seconds)

    def _failed(self, error: Exception) -> None:
        self.metrics.failures.inc()
        LOG.error("a model broke on a batch: %s", without_words(error))


def make_service(models: Models, limits: Limits, access: Access, threads: int) -> Service:
    """Return the application that serves `models`; `threads`: those of a forward pass."""
    door = Door()
    desk = _Desk(models, limits, access, door, threads)
    app = FastAPI(
        title="peftlab",
        version=__version__,
        summary="Labels for texts, by fine-tuned models on shared encoders.",
        docs_url=None,
        redoc_url=None,
        lifespan=desk.open,
    )
    _refuse_in_sentences(app)
    _add_predictions(app, desk)
    _add_models(app, desk)
    _add_states(app, desk)
    _add_pages(app)
    return Service(Gate(app, door, access, limits, desk.metrics), door)


def _refuse_in_sentences(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        errors = error.errors()
        return problem(400 if errors[0]["type"] == "json_invalid" else 422, sentence_of(errors))

    @app.exception_handler(HTTPException)
    async def known(_: Request, error: HTTPException) -> Response:
        return problem(error.status_code, _WORDS.get(error.status_code, error.detail), error.headers)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return problem(error.status, error.sentence, error.headers)

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> Response:  # noqa: ARG001 the gate logs it
        return problem(500, "the server failed; its log says where")


def _add_predictions(app: FastAPI, desk: _Desk) -> None:
    @app.post("/v1/predict", responses=_REFUSALS, response_model_exclude_none=True)
    async def predict(asked: PredictRequest) -> PredictResponse:
        """Label one text or several with one model."""
        served = desk.find(asked.model)
        rows = rows_of(asked, served, desk.limits)
        found = await desk.answer(served, rows)
        answers = [answer_of(row, top_k=asked.top_k, probabilities=asked.probabilities) for row in found]
        return PredictResponse(model=served.name, answers=answers)

    @app.post("/v1/explain", responses=_REFUSALS)
    async def explain(asked: ExplainRequest) -> ExplainResponse:
        """Say what each word of a text did for its label: what the label's probability loses without the word.

        Costs one prediction a word. Words are left out one at a time (occlusion); where there are many, neighbours
        are left out together.
        """
        served = desk.find(asked.model)
        row = rows_of(PredictRequest(text=asked.text, pair=asked.pair), served, desk.limits)[0]
        if asked.label is not None and asked.label not in served.kind.labels:
            raise Refused(422, f"label: {served.name} has no label {shortened(asked.label)!r}; see /v1/models")
        spans = word_spans(row.text, desk.limits.max_words)
        texts = [row.text, *without(row.text, spans)]
        whole, *others = await desk.answer(served, [Row(row.name, text, row.pair) for text in texts])
        if "probabilities" not in whole:
            raise Refused(422, f"{served.name} gives no probabilities, so that words cannot be weighed")
        label = asked.label or max(whole["probabilities"], key=whole["probabilities"].__getitem__)
        chance = whole["probabilities"][label]
        effects = [chance - one["probabilities"][label] for one in others]
        shown = [Piece(text=text, effect=effect) for text, effect in pieces(row.text, spans, effects)]
        return ExplainResponse(model=served.name, label=label, probability=chance, pieces=shown)


def rows_of(asked: PredictRequest, served: Served, limits: Limits) -> list[Row]:
    """Return the texts of a request as rows; Refused with a sentence where they are too many, too long or unpaired."""
    if (asked.text is None) == (asked.texts is None):
        raise Refused(422, "give either text or texts")
    texts = [asked.text] if asked.text is not None else asked.texts or []
    given, name = (asked.pair, "pair") if asked.text is not None else (asked.pairs, "pairs")
    if (asked.pairs if asked.text is not None else asked.pair) is not None:
        raise Refused(422, "pair belongs to text, and pairs to texts")
    pairs: list[str] | None = [given] if isinstance(given, str) else given
    if (pairs is not None) != (served.predictor.pair_column is not None):
        kind = f"pairs of texts: give {name}" if pairs is None else f"single texts: leave out {name}"
        raise Refused(422, f"{served.name} labels {kind}")
    if pairs is not None and len(pairs) != len(texts):
        raise Refused(422, f"pairs: expected {len(texts)}, one for each of texts, found {len(pairs)}")
    if len(texts) > limits.max_texts:
        raise Refused(422, f"texts: expected at most {limits.max_texts}, found {len(texts)}")
    longest = max(map(len, [*texts, *(pairs or ())]))
    if longest > limits.max_characters:
        raise Refused(422, f"expected texts of at most {limits.max_characters:,} characters, found one of {longest:,}")
    seconds = pairs if pairs is not None else [None] * len(texts)
    return [Row(served.name, text, pair) for text, pair in zip(texts, seconds, strict=True)]


def _add_models(app: FastAPI, desk: _Desk) -> None:
    @app.get("/v1/models", responses={401: {"model": Problem}})
    async def models() -> ModelList:
        """List the models that are served."""
        return ModelList(models=[_card(one) for one in desk.models.served.values()])

    @app.post("/v1/models", status_code=201, responses=_REFUSALS)
    async def load(asked: LoadRequest) -> ModelCard:
        """Load a run or an export from a folder on the server's machine, between two batches."""
        _refuse_strangers(desk)
        if not NAME.fullmatch(asked.name):
            raise Refused(422, f"name: expected {NAME_RULE}")
        if asked.name in desk.models.served:
            raise Refused(409, f"name: {asked.name} is taken; unload that model first, or choose another name")
        try:
            return _card(await desk.load(asked.name, Path(asked.folder)))
        except UserError as error:
            raise Refused(422, f"folder: {error}") from None
        except Exception as error:
            # Whatever a library raises on a broken file is one thing to a client: this folder cannot be loaded.
            LOG.error("%s", without_words(error))
            raise Refused(422, "folder: it holds neither a run nor an export that can be loaded") from None

    @app.delete("/v1/models/{name}", status_code=204, responses=_REFUSALS)
    async def unload(name: str) -> Response:
        """Unload a model, once what it was asked so far is answered."""
        _refuse_strangers(desk)
        await desk.unload(desk.find(name).name)
        return Response(status_code=204)


def _refuse_strangers(desk: _Desk) -> None:
    if not desk.access.may_load:
        raise Refused(403, "models are loaded and unloaded only where a token is set, or the server is on loopback")


def _card(served: Served) -> ModelCard:
    return ModelCard(
        name=served.name,
        task=served.kind.task,
        method=served.kind.method,
        format=served.kind.format,
        labels=list(served.kind.labels),
        multi_label=served.kind.multi_label,
        pairs=served.predictor.pair_column is not None,
        shares_encoder=served.shared is not None,
        shares_batches=served.shared is not None and served.lane.startswith("encoder "),
        alone_because=served.alone_because,
    )


def _add_states(app: FastAPI, desk: _Desk) -> None:
    @app.get("/healthz", responses={503: {"model": Problem}})
    async def healthz() -> State:
        """Say whether the process works; if not, it must be restarted."""
        if not desk.batcher.alive:
            raise Refused(503, "texts are no longer answered")
        return State(status="ok")

    @app.get("/readyz", responses={503: {"model": Problem}})
    async def readyz() -> State:
        """Say whether requests should be sent here now."""
        if desk.door.draining:
            raise Refused(503, "the server is about to end")
        if not desk.models.served:
            raise Refused(503, "no model is loaded")
        return await healthz()

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Give counts and times in Prometheus' text format."""
        return Response(desk.metrics.page(), media_type=CONTENT_TYPE)


def _add_pages(app: FastAPI) -> None:
    files = {name: (_PAGE / name).read_bytes() for name in (*_FILES, "page.html")}

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(files["page.html"])

    @app.get("/page.{kind}", include_in_schema=False)
    async def file(kind: str) -> Response:
        name = f"page.{kind}"
        if name not in _FILES:
            raise HTTPException(404)
        return Response(files[name], media_type=_FILES[name])

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(reference_page(app.openapi()))


def _use_threads(threads: int) -> None:
    """Give the thread of the models its own number of threads for arithmetic; torch counts them thread by thread."""
    import torch

    torch.set_num_threads(threads)
