"""The effective query is the text, filters and price bounds that the service actually applied.

If the service interprets keywords, it adds filters to the search, and these can differ from day to
day. The query is JSON from the service, so the code makes no assumptions about its structure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic.alias_generators import to_camel

from octogen_dagster.api.search import SearchFilters
from octogen_dagster.printable import printable

EffectiveQuery = dict[str, Any]

EFFECTIVE_QUERY = "octogen.effective_query"
"""File metadata key for the effective query, or for the queries by catalog if they differ."""
_NAMES = {"q": "text", "understand": "understood"}
_COMPARED = tuple(_NAMES.get(name, to_camel(name)) for name in SearchFilters.model_fields)
"""The service's names for the search fields."""
_BY_CATALOG = "by_catalog"
_LEFT_OUT = {"catalogs", _BY_CATALOG}


def combine(queries: Mapping[str, EffectiveQuery]) -> EffectiveQuery | None:
    """Return the query that all catalogs share. If the queries differ, return them by catalog.

    Return None if there are no queries.
    """
    plain = {
        catalog: {name: value for name, value in query.items() if name not in _LEFT_OUT}
        for catalog, query in queries.items()
    }
    first = next(iter(plain.values()), None)
    if all(is_same(first, query) for query in plain.values()):
        return first
    return {_BY_CATALOG: plain}


def is_same(one: EffectiveQuery | None, other: EffectiveQuery | None) -> bool:
    """True if two effective queries are equal, or if either of them is unknown."""
    return one is None or other is None or _compared(one) == _compared(other)


def differences(before: EffectiveQuery, after: EffectiveQuery) -> list[str]:
    """List the differences between two snapshots' effective queries, one line per field."""
    lines = []
    for catalog in sorted({*before.get(_BY_CATALOG, ()), *after.get(_BY_CATALOG, ())}) or [""]:
        old, new = _of_catalog(before, catalog), _of_catalog(after, catalog)
        if is_same(old, new) or old is None or new is None:
            continue
        subject = f"Catalog {catalog!r}, " if catalog else ""
        was, now = _compared(old), _compared(new)
        lines += [
            printable(
                f"{subject}{name}: {was.get(name, 'none')} before, {now.get(name, 'none')} now"
            )
            for name in _COMPARED
            if was.get(name) != now.get(name)
        ]
    return lines


def generated_facets(query: EffectiveQuery) -> list[str]:
    """Return the facets the service derived from keywords, such as "color: red, wine"."""
    facets = query.get("facets")
    return [
        _facet(each)
        for each in (facets if isinstance(facets, list) else ())
        if isinstance(each, dict) and each.get("source") == "generated"
    ]


def _of_catalog(combined: EffectiveQuery, catalog: str) -> EffectiveQuery | None:
    query: EffectiveQuery | None = combined.get(_BY_CATALOG, {catalog: combined}).get(catalog)
    return query


def _compared(query: EffectiveQuery) -> dict[str, str]:
    """Return an effective query's fields as strings, with lists in sorted order."""
    values = {name: query.get(name) for name in _COMPARED}
    return {
        name: "; ".join(sorted(map(_facet, value))) if isinstance(value, list) else _text(value)
        for name, value in values.items()
        # `False` is compared by identity because `in` would also match a bound of 0.
        if value not in (None, "", []) and value is not False
    }


def _facet(value: Any) -> str:
    match value:
        case {"name": name, "values": list(values)}:
            return f"{_text(name)}: {', '.join(sorted(map(_text, values)))}"
        case _:
            return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 50.0 is 50
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
