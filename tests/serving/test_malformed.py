"""Whatever is sent, the answer is a sentence, and the server goes on: sizes, types, nesting, bytes, tokens, hosts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from peftlab.serving.access import access
from peftlab.serving.app import make_service
from peftlab.serving.limits import Limits
from peftlab.serving.models import Models

TOKEN = "a-token-for-these-tests"
LIMITS = Limits(max_characters=200, max_texts=4, max_body=20_000)
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def guarded(client_of: Callable[..., TestClient], served_runs: dict[str, Path]) -> Iterator[TestClient]:
    """Return a client of a server with small limits."""
    with client_of({name: served_runs[name] for name in ("queue", "words")}, LIMITS) as made:
        yield made


def refused(answer: Any) -> str:
    """Return the sentence of an answer, which must be a refusal."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    sentence = answer.json()["detail"]
    assert isinstance(sentence, str)
    assert 5 < len(sentence) < 600
    assert "\n" not in sentence
    return sentence


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
not_text = values.filter(lambda value: not isinstance(value, str) and value is not None)
blank = st.text(alphabet=" \t\n\u3000", max_size=5)
half = st.text(max_size=5).map(lambda text: text + "\ud800")
long = st.integers(201, 3000).map(lambda length: "a" * length)
wrong_text = not_text | blank | half | long
good: dict[str, Any] = {"model": "queue", "text": "refund my card"}

# Each a body that no client should send; `requests` picks one of them with a path.
wrong_objects = st.one_of(
    values.filter(lambda value: not isinstance(value, dict)),
    st.dictionaries(st.text(max_size=10), values, min_size=1, max_size=4).filter(lambda one: not one.keys() & {"text"}),
    wrong_text.map(lambda value: {**good, "text": value}),
    (not_text | st.text(max_size=30))
    .filter(lambda name: name not in ("queue", "words"))
    .map(lambda name: {**good, "model": name}),
    st.lists(st.just("a"), min_size=5, max_size=30).map(lambda texts: {"model": "queue", "texts": texts}),
    st.tuples(st.lists(st.just("a"), max_size=2), wrong_text).map(
        lambda parts: {"model": "queue", "texts": [*parts[0], parts[1]]}
    ),
    (not_text.filter(lambda value: value is not True and value != 1) | st.integers(max_value=0))
    .map(lambda value: {**good, "top_k": value})
    .filter(lambda one: not (type(one["top_k"]) is int and one["top_k"] > 0)),
    st.text(max_size=20).map(lambda value: {**good, "probabilities": value}),
    st.tuples(st.text(min_size=1, max_size=20), values)
    .filter(lambda pair: pair[0] not in {*good, "texts", "pair", "pairs", "top_k", "probabilities"})
    .map(lambda pair: {**good, pair[0]: pair[1]}),
    st.just({**good, "texts": ["a"]}),
    st.just({**good, "pair": "a"}),
    st.just({**good, "pairs": ["a"]}),
)
wrong_bytes = st.one_of(
    wrong_objects.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=60).filter(lambda raw: b"{" not in raw),
    st.binary(min_size=1, max_size=20).map(lambda raw: b'{"model": "queue", "text": "' + raw + b'\xff\xfe"}'),
    st.integers(10, 9000).map(lambda depth: b'{"text": ' + b"[" * depth + b"]" * depth + b"}"),
    st.integers(10, 3000).map(lambda depth: b'{"a":' * depth + b"1" + b"}" * depth),
    st.integers(0, 60).map(lambda end: json.dumps({**good, "more": "x" * 30}).encode()[:end]),
    st.integers(5000, 9000).map(lambda digits: b'{"model": "queue", "text": "a", "top_k": ' + b"9" * digits + b"}"),
    st.integers(20_001, 60_000).map(lambda size: b'{"text": "' + b"a" * size + b'"}'),
)


@pytest.mark.slow
@seed(7)
@settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(body=wrong_bytes, path=st.sampled_from(["/v1/predict", "/v1/predict", "/v1/explain", "/v1/models"]))
def test_a_thousand_malformed_requests_get_a_sentence_each(guarded: TestClient, body: bytes, path: str) -> None:
    refused(guarded.post(path, content=body, headers=JSON))


def test_the_server_is_alive_and_memory_flat_after_ten_megabyte_bodies(guarded: TestClient) -> None:
    """Bodies that are too long are refused and never kept."""
    body = b'{"text": "' + b"a" * 10_000_000 + b'"}'
    refused(guarded.post("/v1/predict", content=body, headers=JSON))
    before = psutil.Process().memory_info().rss
    for _ in range(20):
        assert "at most 20,000 bytes" in refused(guarded.post("/v1/predict", content=body, headers=JSON))
    assert psutil.Process().memory_info().rss - before < 30_000_000
    assert guarded.get("/healthz").json() == {"status": "ok"}
    assert guarded.post("/v1/predict", json=good).status_code == 200


def test_a_body_that_does_not_say_its_length_is_bounded_too(guarded: TestClient) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(50):
            yield b"[" * 1000

    assert "at most 20,000 bytes" in refused(guarded.post("/v1/predict", content=parts(), headers=JSON))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "the body is no JSON: Expecting property name enclosed in double quotes at character 1"),
        (b'{"text": "\xff"}', "the body is no JSON in UTF-8, or nested too deeply"),
        (b"[1]", "the body: input should be a valid dictionary or object to extract fields from"),
        (b'{"texts": ["a", 3]}', "texts[1]: input should be a valid string"),
        (b'{"text": " "}', "text: the text is empty; expected at least one character that is no space"),
        (b'{"text": "\\ud800"}', "text: the text holds half of a surrogate pair, which is no character"),
        (b'{"text": "a", "topk": 3}', "topk: there is no such field"),
        (b'{"text": "a"}', "model: the field is missing; there are: queue, words"),
        (b'{"model": "queu", "text": "a"}', "model: there is none named 'queu'; there are: queue, words"),
        (b'{"model": "queue"}', "give either text or texts"),
        (b'{"model": "queue", "texts": ["a"], "pairs": ["b"]}', "queue labels single texts: leave out pairs"),
        (b'{"model": "queue", "texts": ["a", "b", "c", "d", "e"]}', "texts: expected at most 4, found 5"),
    ],
)
def test_the_sentence_says_what_is_wrong_and_where(guarded: TestClient, body: bytes, sentence: str) -> None:
    assert refused(guarded.post("/v1/predict", content=body, headers=JSON)) == sentence


def test_a_body_that_does_not_come_is_not_waited_for(served_runs: dict[str, Path]) -> None:
    """A sender that stops half way gets a sentence when the time is over."""
    models = Models()
    service = make_service(models, Limits(timeout=0.05), access("127.0.0.1", None), threads=1)
    sent: list[Any] = []
    parts = [{"type": "http.request", "body": b'{"text": ', "more_body": True}]

    async def receive() -> Any:
        if parts:
            return parts.pop()
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": [(b"host", b"localhost")]}
    asyncio.run(service.app(scope, receive, send))
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"]) == {"detail": "the body did not arrive in time"}


@pytest.mark.parametrize(
    ("host", "token", "asked", "answered", "may_load"),
    [
        ("127.0.0.1", None, "127.0.0.1:8000", True, True),
        ("127.0.0.1", None, "proxy.example", True, True),
        ("127.0.0.1", None, "evil.example", False, True),
        ("127.0.0.1", None, None, False, True),
        ("127.0.0.1", TOKEN, "evil.example", True, True),
        ("0.0.0.0", None, "evil.example", True, False),
        ("tickets.example", TOKEN, "tickets.example", True, True),
        ("::1", None, "[::1]:80", True, True),
        (None, None, "anything", True, True),
    ],
)
def test_who_is_answered_under_which_host_name_and_who_may_load(
    host: str | None, token: str | None, asked: str | None, answered: bool, may_load: bool
) -> None:
    who = access(host, token, ("proxy.example",))
    assert (who.answers_to(asked), who.may_load) == (answered, may_load)


def test_other_addresses_methods_and_types_are_refused_in_sentences(guarded: TestClient) -> None:
    assert refused(guarded.get("/v2/predict")) == "there is nothing here; the addresses stand in /docs"
    assert refused(guarded.get("/v1/predict")) == "this address takes other methods; see /docs"
    assert refused(guarded.get("/page.html")) == "there is nothing here; the addresses stand in /docs"
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = guarded.post("/v1/predict", content=json.dumps(good), headers={"Content-Type": kind})
        assert (answer.status_code, "application/json" in refused(answer)) == (415, True)
    answer = guarded.post("/v1/explain", json={**good, "label": "nothing"})
    assert "queue has no label 'nothing'" in refused(answer)


def test_a_page_of_another_site_is_not_let_in_by_its_host_name(guarded: TestClient) -> None:
    """A name that its owner lets point to 127.0.0.1 reaches the server, but not its answers."""
    answer = guarded.post("/v1/predict", json=good, headers={"Host": "evil.example:8000"})
    assert (answer.status_code, "local host names only" in refused(answer)) == (421, True)
    assert guarded.get("/healthz", headers={"Host": "[::1]:8000"}).status_code == 200


def test_with_a_token_nothing_is_answered_without_it(
    client_of: Callable[..., TestClient], served_runs: dict[str, Path]
) -> None:
    with client_of({"queue": served_runs["queue"]}, token=TOKEN, host="0.0.0.0") as client:
        for header in (None, "Bearer wrong", TOKEN, f"Basic {TOKEN}", "Bearer " + "é" * 3, f"Bearer {TOKEN}x"):
            headers = {"Authorization": header.encode("latin-1")} if header is not None else {}
            for method, path in (("POST", "/v1/predict"), ("GET", "/metrics"), ("DELETE", "/v1/models/queue")):
                answer = client.request(method, path, headers=headers)
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert client.get("/healthz").status_code == 200
        known = {"Authorization": f"Bearer {TOKEN}", "Host": "tickets.example"}
        assert client.post("/v1/predict", json=good, headers=known).status_code == 200
        assert client.delete("/v1/models/queue", headers=known).status_code == 204


def test_open_to_all_and_without_a_token_models_are_not_loaded_from_outside(
    client_of: Callable[..., TestClient], served_runs: dict[str, Path]
) -> None:
    with client_of({"queue": served_runs["queue"]}, host="0.0.0.0") as client:
        answer = client.post("/v1/models", json={"name": "more", "folder": str(served_runs["words"])})
        assert (answer.status_code, "only where a token is set" in refused(answer)) == (403, True)
        assert client.delete("/v1/models/queue").status_code == 403
        assert client.post("/v1/predict", json=good).status_code == 200
