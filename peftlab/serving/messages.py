"""What a client may ask and what it is told, as records: FastAPI checks and documents them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_SHOWN = 60  # characters of a client's own words that a sentence repeats


def _text(value: str) -> str:
    """Refuse what no tokenizer takes. The text itself is never repeated in a sentence."""
    if not value.strip():
        raise ValueError("the text is empty; expected at least one character that is no space")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("the text holds half of a surrogate pair, which is no character") from None
    return value


Text = Annotated[str, AfterValidator(_text)]
Texts = Annotated[list[Text], Field(min_length=1, fail_fast=True)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PredictRequest(_Message):
    """Texts for one model. Either `text`, or `texts`; for models on pairs also `pair`, or `pairs`."""

    model: Annotated[str | None, Field(description="name of the model; may be left out where only one is served")] = (
        None
    )
    text: Text | None = None
    texts: Texts | None = None
    pair: Annotated[Text | None, Field(description="second text of `text`, for models on pairs")] = None
    pairs: Annotated[Texts | None, Field(description="second text of each of `texts`, for models on pairs")] = None
    top_k: Annotated[int | None, Field(ge=1, description="only this many probabilities, the largest")] = None
    probabilities: Annotated[bool, Field(description="whether to give probabilities at all")] = True


class ExplainRequest(_Message):
    """One text for one model, and the label whose reasons are asked for: by default the predicted one."""

    model: Annotated[str | None, Field(description="name of the model; may be left out where only one is served")] = (
        None
    )
    text: Text
    pair: Text | None = None
    label: str | None = None


class LoadRequest(_Message):
    """A run or an export to be loaded under a name. `folder` is a path on the server's machine."""

    name: str
    folder: Annotated[str, Field(min_length=1, max_length=4096)]


class Entity(BaseModel):
    """An entity that a tagger finds: `text` is the text's own [start:end], counted in characters (code points)."""

    type: str
    start: int
    end: int
    text: str


class Answer(BaseModel):
    """What a model says of one text; a model of another kind of task adds fields of its own.

    `confidence`: the probability of the label, for models that give one label. `routed`: for calibrated models, whether
    the answer may be used without a person looking at it. `entities`: of a tagger, in the order of the text.
    """

    model_config = ConfigDict(extra="allow")

    label: str | list[str] | None = None
    confidence: float | None = None
    probabilities: dict[str, float] | None = None
    routed: bool | None = None
    entities: list[Entity] | None = None


class PredictResponse(BaseModel):
    """The answers, one a text, in the order of the texts."""

    model: str
    answers: list[Answer]


class Piece(BaseModel):
    """A stretch of the text. `effect`: what the label's probability loses without it; None for what was not tried."""

    text: str
    effect: float | None


class ExplainResponse(BaseModel):
    """The whole text in pieces, with what each did for the label."""

    model: str
    label: str
    probability: float
    pieces: list[Piece]


class ModelCard(BaseModel):
    """A model that is served.

    `shares_encoder`: it is in memory on an encoder that other models may use too; where not, `alone_because` says why.
    `shares_batches`: its texts stand in one batch with those of other such models.
    """

    name: str
    task: str
    method: str
    format: str | None
    labels: list[str]
    multi_label: bool
    pairs: bool
    shares_encoder: bool
    shares_batches: bool
    alone_because: str | None


class ModelList(BaseModel):
    """All models that are served, in the order in which they were loaded."""

    models: list[ModelCard]


class State(BaseModel):
    """`status` is `ok`."""

    status: str


class Problem(BaseModel):
    """Why there is no answer, in one sentence."""

    detail: str


def answer_of(row: Mapping[str, Any], *, top_k: int | None, probabilities: bool) -> Answer:
    """Return a predictor's row as an answer. All that the predictor says beside probabilities is passed on."""
    said = {key: value for key, value in row.items() if key != "probabilities"}
    chances = row.get("probabilities")
    if chances is None:
        return Answer(**said)
    label = row.get("label")
    confidence = chances[label] if isinstance(label, str) else None
    if not probabilities:
        return Answer(**said, confidence=confidence)
    kept = dict(sorted(chances.items(), key=lambda item: -item[1])[:top_k]) if top_k is not None else dict(chances)
    return Answer(**said, confidence=confidence, probabilities=kept)


def sentence_of(errors: Sequence[Mapping[str, Any]]) -> str:
    """Return what is wrong with a request, from pydantic's errors, without repeating any value of it."""
    first = errors[0]
    place = _place(first["loc"][1:])
    if first["type"] == "json_invalid":
        return f"the body is no JSON: {first['ctx']['error']} at character {first['loc'][-1]}"
    message = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    words = {"missing": "the field is missing", "extra_forbidden": "there is no such field"}.get(first["type"], message)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{place}: {words[:1].lower()}{words[1:]}{more}"


def _place(parts: Sequence[str | int]) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{shortened(part)}" for part in parts)
    return place.removeprefix(".") or "the body"


def shortened(words: str) -> str:
    """Return a client's own words as a sentence may repeat them: few, on one line, and encodable."""
    plain = words.encode("utf-8", "replace").decode("utf-8")
    plain = "".join(letter if letter.isprintable() else " " for letter in plain)
    return plain if len(plain) <= _SHOWN else f"{plain[: _SHOWN - 4]} ..."
