"""`/docs`: the addresses of a server as one page without scripts or outside assets, made of its OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_HEAD = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    '<title>peftlab: addresses</title><link rel="icon" href="data:,"><link rel="stylesheet" href="/page.css"></head>'
    '<body><main><h1>Addresses</h1><p>For programs: <a href="/openapi.json">/openapi.json</a>. '
    'For people: <a href="/">the page</a>.</p>'
)


def reference_page(document: Mapping[str, Any]) -> str:
    """Return the page of an OpenAPI document: every operation with its body, its answers and its statuses."""
    return "".join([_HEAD, *_operations(document), "</main></body></html>"])


def _operations(document: Mapping[str, Any]) -> Iterator[str]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>"
            yield f"<p>{escape(operation.get('description', ''))}</p>"
            if "requestBody" in operation:
                yield _shape("Body", operation["requestBody"], document)
            for status, answer in operation["responses"].items():
                if status.startswith("2"):
                    yield _shape(f"Answer {status}", answer, document)
            others = ", ".join(status for status in operation["responses"] if not status.startswith("2"))
            yield f"<p>Refusals, each with a sentence in <code>detail</code>: {others or 'none'}.</p></section>"


def _shape(title: str, part: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    schema = part.get("content", {}).get("application/json", {}).get("schema")
    if not schema:
        return f"<h3>{title}</h3>"
    shown = json.dumps(_resolved(schema, document), indent=2, ensure_ascii=False)
    return f"<h3>{title}</h3><details><summary>JSON Schema</summary><pre>{escape(shown)}</pre></details>"


def _resolved(schema: Any, document: Mapping[str, Any]) -> Any:
    """Return a schema with what it refers to in place; the records of the server do not refer to themselves."""
    if isinstance(schema, list):
        return [_resolved(one, document) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _resolved(document["components"]["schemas"][name], document)
    return {key: _resolved(value, document) for key, value in schema.items() if key != "title"}
