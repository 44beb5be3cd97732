"""Drift of the contract: what changed in the published OpenAPI document since it was last read.

`tests/golden/contract.json` is the document, reduced to what this package relies on: all
operations, and of those that it calls the fields, their types, limits and values. The workflow
`.github/workflows/contract.yml` compares it weekly with the document that the service publishes:

    python -m tests.contract.drift openapi.json

It prints what changed, as the text of an issue, and ends with 1 if anything did.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "golden" / "contract.json"
CALLED = (
    "DELETE /coverage/url-lists/{urlListId}",
    "GET /coverage/url-lists",
    "GET /coverage/url-lists/{urlListId}",
    "GET /coverage/url-lists/{urlListId}/urls",
    "GET /domains/{host}",
    "GET /me",
    "POST /coverage/url-lists",
    "POST /coverage/url-lists/{urlListId}/urls",
    "POST /coverage/url-lists/{urlListId}/urls/contains",
    "POST /coverage/url-lists/{urlListId}/urls/remove",
    "POST /products/facet-counts",
    "POST /products/lookup",
    "POST /products/search",
)
"""The operations of the current contract that this package calls."""
_METHODS = ("get", "post", "put", "patch", "delete")
_LIMITS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "pattern",
)

Document = Mapping[str, Any]


def reduced(document: Document) -> dict[str, Any]:
    """Reduce an OpenAPI document to what this package relies on; equal reductions mean the same."""
    operations = dict(_operations(document))
    schemas = document["components"]["schemas"]
    kept: dict[str, Any] = {}
    for name in CALLED:
        kept |= _reachable(
            schemas, _names(operations.get(name, {}).get("requestBody")), limits=True
        )
    for name in CALLED:
        responses = operations.get(name, {}).get("responses", {})
        answers = _names([responses[status] for status in responses if status.startswith("2")])
        kept = _reachable(schemas, answers, limits=False) | kept
    return {"operations": sorted(operations), "schemas": dict(sorted(kept.items()))}


def _operations(document: Document) -> Iterator[tuple[str, Any]]:
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield f"{method.upper()} {path.removeprefix('/v1')}", methods[method]


def _names(value: Any) -> list[str]:
    """The names of the schemas that a part of a document refers to."""
    if isinstance(value, dict):
        own = [value["$ref"].rpartition("/")[2]] if "$ref" in value else []
        return own + [name for part in value.values() for name in _names(part)]
    return [name for part in value for name in _names(part)] if isinstance(value, list) else []


def _reachable(schemas: Mapping[str, Any], names: Iterable[str], *, limits: bool) -> dict[str, Any]:
    """The fields of schemas by name; one that has none, as of an enum, is a field without name."""
    found: dict[str, Any] = {}
    left = list(names)
    while left:
        name = left.pop()
        if name not in found and name in schemas:
            schema = schemas[name]
            required = schema.get("required", ())
            found[name] = {
                field: _field(value, required=field in required, limits=limits)
                for field, value in sorted(schema.get("properties", {}).items())
            } or {"": _field(schema, required=False, limits=limits)}
            left += _names(schema)
    return found


def _field(schema: Mapping[str, Any], *, required: bool, limits: bool) -> dict[str, Any]:
    kinds = _type(schema).split(" | ")
    if required:
        field: dict[str, Any] = {"type": " | ".join(kinds), "required": True}
    else:  # what may be absent may be null: documents and models say the one or the other
        field = {"type": " | ".join(kind for kind in kinds if kind != "null")}
    if values := sorted(map(str, _found("enum", schema))):
        field["enum"] = values
    for limit in _LIMITS if limits else ():
        if values := sorted(map(str, _found(limit, schema))):
            field[limit] = ", ".join(values)
    return field


def _type(schema: Mapping[str, Any]) -> str:
    """A schema's type as text, such as `array of string | null`."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    parts = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if parts:
        return " | ".join(sorted({_type(part) for part in parts}))
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"array of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return kind


def _found(keyword: str, schema: Any) -> list[Any]:
    """The values of a keyword in a schema and its parts."""
    if isinstance(schema, list):
        return [value for part in schema for value in _found(keyword, part)]
    if not isinstance(schema, dict):
        return []
    own = schema.get(keyword, [])
    inner = [schema.get(key) for key in ("anyOf", "oneOf", "allOf", "items")]
    return [*(own if isinstance(own, list) else [own]), *_found(keyword, inner)]


def differences(stored: Document, found: Document) -> list[str]:
    """What changed from one reduction to another, a sentence each."""
    lines = [
        f"`{name}` is {'new' if name in found['operations'] else 'gone'}"
        for name in sorted({*stored["operations"]} ^ {*found["operations"]})
    ]
    before, after = stored["schemas"], found["schemas"]
    lines += [f"`{name}` is gone" for name in before.keys() - after.keys()]
    lines += [f"`{name}` is new" for name in after.keys() - before.keys()]
    for name in sorted(before.keys() & after.keys()):
        lines += _changed_fields(name, before[name], after[name])
    return sorted(lines)


def _changed_fields(schema: str, before: Document, after: Document) -> Iterator[str]:
    gone, new = before.keys() - after.keys(), after.keys() - before.keys()
    for field in gone:
        same = [other for other in new if after[other] == before[field]]
        perhaps = f"; perhaps it is `{same[0]}` now" if len(same) == 1 else ""
        yield f"`{schema}.{field}` is gone{perhaps}"
    for field in new:
        yield f"`{schema}.{field}` is new"
    for field in before.keys() & after.keys():
        if before[field] != after[field]:
            name = f"{schema}.{field}" if field else schema
            yield from _changed(f"`{name}`", before[field], after[field])


def _changed(subject: str, before: Document, after: Document) -> Iterator[str]:
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if key == "type" and str(new) == " | ".join(sorted({*str(old).split(" | "), "null"})):
            yield f"{subject} may be null now"
        elif key == "required":
            yield f"{subject} is {'required now' if new else 'not required any more'}"
        elif key == "enum":
            for value in sorted({*(old or ())} ^ {*(new or ())}):
                change = "new" if value in (new or ()) else "lost"
                yield f"{subject} has the {change} value `{value}`"
        elif old is None:
            yield f"{subject} has the new limit `{key}` of {new}"
        else:
            yield f"{subject}: `{key}` was {old} and is {new if new is not None else 'gone'}"


def report(lines: Iterable[str], source: str) -> str:
    """The text of an issue about what changed."""
    listed = "\n".join(f"* {line}" for line in lines)
    return (
        f"The contract of Octogen's service changed, by {source}:\n\n{listed}\n\nFor each: do the "
        "models, the columns, the sandbox or docs/ rest on it? Then write the new reduction with "
        "`python -m tests.contract.published_drift --write`, and read its difference."
    )


def compare(found: Document, source: str) -> int:
    """Print how a reduction differs from the stored one; return the exit status."""
    lines = differences(json.loads(GOLDEN.read_text()), found)
    print(report(lines, source) if lines else f"Nothing changed, by {source}.")
    return 1 if lines else 0


if __name__ == "__main__":
    (path,) = sys.argv[1:]
    sys.exit(compare(reduced(json.loads(Path(path).read_text())), "the published OpenAPI document"))
