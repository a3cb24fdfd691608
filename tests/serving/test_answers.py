"""What a server answers: what the same runs say offline, whoever else asks at the same time."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from running import same_answer
from starlette.testclient import TestClient

from peftlab import calibrate, export
from peftlab.evaluation.predictor import Predictor, load_predictor
from peftlab.evaluation.several import Row
from peftlab.serving.limits import Limits
from peftlab.serving.models import Models

WORDS = ("parcel", "courier", "refund", "card", "screen", "battery", "why", "is", "my", "late", "快", "递", "票", "?")


def made_up(count: int, seed: int = 0) -> list[str]:
    """Return different texts of 1 to 12 words."""
    draw = random.Random(seed)
    return [" ".join([f"{number}", *draw.choices(WORDS, k=draw.randint(1, 12))]) for number in range(count)]


def test_mixed_traffic_of_many_clients_gets_each_text_its_own_offline_answer(
    client: TestClient, offline: dict[str, Predictor]
) -> None:
    """Models, numbers of texts and lengths mixed: no answer lost, none crossed."""
    draw = random.Random(5)
    asked = []
    for number in range(120):
        texts = made_up(draw.choice((1, 1, 3)), seed=number)
        asked.append((draw.choice(list(offline)), texts))

    def ask(one: tuple[str, list[str]]) -> list[dict[str, Any]]:
        answer = client.post("/v1/predict", json={"model": one[0], "texts": one[1]})
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == one[0]
        return answer.json()["answers"]  # type: ignore[no-any-return]

    with ThreadPoolExecutor(16) as many:
        answers = list(many.map(ask, asked))
    for (name, texts), given in zip(asked, answers, strict=True):
        expected = offline[name].rows(texts)
        assert len(given) == len(texts)
        assert all(same_answer(answer, row) for answer, row in zip(given, expected, strict=True)), name
    counted = client.get("/metrics").text
    texts_in_batches = float(next(line for line in counted.splitlines() if "batch_texts_sum" in line).split()[-1])
    batches = float(next(line for line in counted.splitlines() if "batch_texts_count" in line).split()[-1])
    assert texts_in_batches == sum(len(texts) for _, texts in asked)
    assert batches < texts_in_batches  # some shared a pass
    assert 'peftlab_texts_total{model="queue"}' in counted
    assert 'peftlab_requests_total{route="/v1/predict",status="200"} 120.0' in counted


def test_one_text_top_k_and_no_probabilities(client: TestClient, offline: dict[str, Predictor]) -> None:
    row = offline["queue"].rows(["refund my card"])[0]
    full = client.post("/v1/predict", json={"model": "queue", "text": "refund my card"}).json()["answers"][0]
    assert same_answer(full, row)
    assert full["confidence"] == full["probabilities"][full["label"]]
    assert "routed" not in full  # the run is not calibrated

    top = client.post("/v1/predict", json={"model": "queue", "text": "refund my card", "top_k": 2}).json()["answers"][0]
    assert list(top["probabilities"]) == sorted(row["probabilities"], key=row["probabilities"].__getitem__)[:0:-1]
    bare = client.post("/v1/predict", json={"model": "queue", "text": "refund my card", "probabilities": False})
    assert set(bare.json()["answers"][0]) == {"label", "confidence"}


def test_a_tagger_on_the_shared_encoder_answers_with_entities_and_their_places(
    client: TestClient, offline: dict[str, Predictor]
) -> None:
    """Each is the text's own [start:end] in characters; words are not weighed, since nothing has a probability."""
    texts = ["🚚 where is my parcel, the courier is late?", "refund 快 my card", "?"]
    answers = client.post("/v1/predict", json={"model": "entities", "texts": texts}).json()["answers"]
    assert answers == offline["entities"].rows(texts)
    assert sum(len(answer["entities"]) for answer in answers) > 1
    for text, answer in zip(texts, answers, strict=True):
        for one in answer["entities"]:
            assert set(one) == {"type", "start", "end", "text"}
            assert text[one["start"] : one["end"]] == one["text"]
    refused = client.post("/v1/explain", json={"model": "entities", "text": texts[0]})
    assert (refused.status_code, "gives no probabilities" in refused.json()["detail"]) == (422, True)
    schema = client.get("/openapi.json").json()["components"]["schemas"]
    assert set(schema["Entity"]["properties"]) == {"type", "start", "end", "text"}


def test_models_are_listed_with_what_they_share(client: TestClient) -> None:
    cards = {card["name"]: card for card in client.get("/v1/models").json()["models"]}
    assert {name: (card["shares_encoder"], card["shares_batches"]) for name, card in cards.items()} == {
        "queue": (True, True),
        "urgency": (True, True),
        "scaled": (True, False),
        "whole": (False, False),
        "words": (False, False),
        "entities": (True, False),
    }
    assert cards["entities"]["labels"] == ["O", "B-logistics", "I-logistics", "B-payment", "I-payment"]
    assert cards["queue"]["labels"] == ["logistics", "payment", "product"]
    assert "it is an encoder of its own and cannot share one" in cards["whole"]["alone_because"]
    assert cards["words"]["alone_because"] == "it has no encoder"


def test_an_export_is_served_beside_its_run(
    client_of: Callable[..., TestClient], served_runs: dict[str, Path], offline: dict[str, Predictor], tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    assert export.main([str(served_runs["queue"]), "--to", "merged", "--out", str(out), "--max-drop", "0.2"]) == 0
    with client_of({"run": served_runs["queue"], "export": out}) as client:
        card = client.get("/v1/models").json()["models"][1]
        assert (card["format"], card["shares_encoder"]) == ("merged", False)
        for name in ("run", "export"):
            answer = client.post("/v1/predict", json={"model": name, "text": "refund my card"}).json()["answers"][0]
            assert same_answer(answer, offline["queue"].rows(["refund my card"])[0])


def test_a_calibrated_run_says_which_texts_are_routed_in_mixed_batches_too(
    client_of: Callable[..., TestClient], served_runs: dict[str, Path], tmp_path: Path
) -> None:
    """As offline: 24 validation rows do not allow to promise more. The run beside it, not calibrated, says nothing."""
    folder = tmp_path / "queue"
    shutil.copytree(served_runs["queue"], folder)
    assert calibrate.main([str(folder), "--target", "0.2", "--confidence", "0.5"]) == 0
    texts, folders = made_up(3), {"queue": folder, "urgency": served_runs["urgency"]}
    expected = load_predictor(folder).rows(texts)
    models = Models()
    for name, run in folders.items():
        models.load(name, run)
    mixed = models.answer([Row(name, text) for text in texts for name in folders])
    assert [row.get("routed") for row in mixed[1::2]] == [None] * 3
    for own, row in zip(mixed[::2], expected, strict=True):
        assert same_answer(own, row)
        assert own["routed"] is row["routed"]
    with client_of(folders) as client:
        answers = client.post("/v1/predict", json={"model": "queue", "texts": texts}).json()["answers"]
        assert [answer["routed"] for answer in answers] == [row["routed"] for row in expected]


def test_the_words_that_mattered_are_what_their_absence_changes(
    client: TestClient, offline: dict[str, Predictor]
) -> None:
    text = "why, is my parcel 票 late?"
    answer = client.post("/v1/explain", json={"model": "queue", "text": text}).json()
    assert "".join(piece["text"] for piece in answer["pieces"]) == text
    weighed = {piece["text"]: piece["effect"] for piece in answer["pieces"] if piece["effect"] is not None}
    assert list(weighed) == ["why", "is", "my", "parcel", "票", "late"]
    whole, less = offline["queue"].rows([text, "why, is my  票 late?"])
    label = whole["label"]
    assert answer["label"] == label
    assert weighed["parcel"] == pytest.approx(whole["probabilities"][label] - less["probabilities"][label], abs=1e-4)
    other = client.post("/v1/explain", json={"model": "queue", "text": text, "label": "product"}).json()
    assert other["probability"] == pytest.approx(whole["probabilities"]["product"], abs=1e-4)


def test_a_model_comes_and_goes_without_a_restart(
    client_of: Callable[..., TestClient], served_runs: dict[str, Path], offline: dict[str, Predictor]
) -> None:
    ask = {"text": "refund my card"}
    with client_of({"queue": served_runs["queue"]}) as client:
        assert client.post("/v1/predict", json=ask).json()["model"] == "queue"  # the only one needs no name
        made = client.post("/v1/models", json={"name": "late", "folder": str(served_runs["urgency"])})
        assert (made.status_code, made.json()["shares_encoder"]) == (201, True)
        answer = client.post("/v1/predict", json={"model": "late", **ask}).json()["answers"][0]
        assert same_answer(answer, offline["urgency"].rows([ask["text"]])[0])

        taken = client.post("/v1/models", json={"name": "late", "folder": str(served_runs["queue"])})
        assert (taken.status_code, "late is taken" in taken.json()["detail"]) == (409, True)
        absent = client.post("/v1/models", json={"name": "more", "folder": "/no/such/run"})
        assert absent.status_code == 422
        assert "there is no run folder" in absent.json()["detail"]

        assert client.delete("/v1/models/late").status_code == 204
        gone = client.post("/v1/predict", json={"model": "late", **ask})
        assert gone.status_code == 404
        assert gone.json()["detail"] == "model: there is none named 'late'; there are: queue"
        assert client.delete("/v1/models/late").status_code == 404
        again = client.post("/v1/predict", json=ask).json()["answers"][0]
        assert same_answer(again, offline["queue"].rows([ask["text"]])[0])
        assert client.delete("/v1/models/queue").status_code == 204
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["detail"]) == (503, "no model is loaded")
        assert client.get("/healthz").status_code == 200


def test_too_many_waiting_texts_are_sent_away_with_a_time_to_come_back(
    client_of: Callable[..., TestClient], served_runs: dict[str, Path]
) -> None:
    """Whoever is let in is answered; the others get 429, and nothing else."""
    limits = Limits(max_queue=100, max_texts=40, max_batch=4)
    with client_of({"queue": served_runs["queue"]}, limits) as client:

        def ask(number: int) -> tuple[int, str | None, int]:
            answer = client.post("/v1/predict", json={"texts": made_up(40, seed=number)})
            return answer.status_code, answer.headers.get("retry-after"), len(answer.json().get("answers", ()))

        with ThreadPoolExecutor(12) as many:
            answers = list(many.map(ask, range(24)))
        assert {status for status, _, _ in answers} == {200, 429}
        assert all(number == 40 for status, _, number in answers if status == 200)
        assert all(int(after or "0") >= 1 for status, after, _ in answers if status == 429)
        assert client.post("/v1/predict", json={"text": "refund"}).status_code == 200


def test_an_answer_that_takes_too_long_is_given_up_with_a_sentence(
    client_of: Callable[..., TestClient], served_runs: dict[str, Path]
) -> None:
    with client_of({"queue": served_runs["queue"]}, Limits(timeout=0.05, max_wait_ms=10_000)) as client:
        answer = client.post("/v1/predict", json={"text": "refund"})
        assert (answer.status_code, answer.json()["detail"]) == (503, "the answer took too long; try again")
        assert "peftlab_waiting_texts 0.0" in client.get("/metrics").text


def test_the_documents_need_nothing_from_elsewhere(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert {"/v1/predict", "/v1/models", "/healthz", "/readyz", "/metrics"} <= document["paths"].keys()
    assert "pairs" in json.dumps(document["components"]["schemas"]["PredictRequest"])
    for path in ("/", "/docs", "/page.js", "/page.css"):
        page = client.get(path)
        assert page.status_code == 200
        assert "http://" not in page.text, path
        assert "https://" not in page.text, path
        assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert "POST /v1/predict" in client.get("/docs").text
