"""The JSON schema of a component's YAML, for `dg check yaml` and editors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXT = {"type": "string"}
_TEMPLATE = {"type": "string", "pattern": r"\{\{|\{%"}
_SCALARS = {"boolean", "integer", "null", "number", "string"}


def without_unions(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Rewrite a schema so that a mistake is told of the field where it is.

    A validator says of an `anyOf` only that no branch is valid. Dagster makes one of almost every
    field, since a template may stand for its value. Here the type of the value selects the branch.
    Each mapping also lists its fields, which are the choices for a misspelled one.
    """
    definitions = schema.get("$defs", {})

    def rewrite(part: Any) -> Any:
        if isinstance(part, list):
            return [rewrite(each) for each in part]
        if not isinstance(part, Mapping):
            return part
        rewritten = {name: rewrite(value) for name, value in part.items()}
        if part.get("additionalProperties") is False:
            rewritten["propertyNames"] = {"enum": list(part.get("properties", {}))}
        if branches := rewritten.pop("anyOf", None):
            rewritten |= _select(branches, definitions)
        return rewritten

    return dict(rewrite(schema))


def _select(branches: list[dict[str, Any]], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a union whose branch is selected by the type of the value."""
    by_type: dict[str, list[dict[str, Any]]] = {}
    for branch in branches:
        by_type.setdefault(_type_of(branch, definitions), []).append(branch)
    texts = by_type.get("string", [])
    others = by_type.keys() - {"string", "null"}
    # Text beside numbers or choices is a template; beside a list or mapping it may be any text.
    is_template = _TEXT in texts and others <= _SCALARS and (others or len(texts) > 1)
    if is_template:
        by_type["string"] = texts = [text for text in texts if text != _TEXT]
        if not texts:
            del by_type["string"]
    selected: dict[str, Any] = {"type": list(by_type)}
    if rules := [
        _rule(name, found) for name, found in by_type.items() if found != [{"type": name}]
    ]:
        selected["allOf"] = rules
    return {"if": _TEMPLATE, "else": selected} if is_template else selected


def _rule(name: str, branches: list[dict[str, Any]]) -> dict[str, Any]:
    branch = branches[0] if len(branches) == 1 else {"anyOf": branches}
    return {"if": {"type": name}, "then": branch}


def _type_of(branch: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if reference := branch.get("$ref"):
        branch = definitions[reference.rsplit("/", 1)[-1]]
    return str(branch.get("type", "object"))
