"""Each effective query that the published model accepts can be kept, told and compared."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from octogen_ai_sdk.generated.models import ProgrammaticProductSearchEffectiveQuery

from octogen_dagster.frames.effective_query import combine, differences, generated_facets, is_same
from octogen_dagster.reading.decode import read_page
from tests.published import answers, ok, published

queries = answers(ProgrammaticProductSearchEffectiveQuery)
lax_queries = answers(ProgrammaticProductSearchEffectiveQuery, lax=True)


@published
@given(queries | lax_queries)
def test_it_is_kept_as_it_came_and_its_generated_facets_are_told(query: dict[str, Any]) -> None:
    theirs = ProgrammaticProductSearchEffectiveQuery.model_validate(query)
    page = {"items": [], "effectiveQuery": query, "requestId": "r"}

    got = read_page(ok(json.dumps(page).encode()), "Page").effective_query

    assert got == query
    generated = [facet for facet in theirs.facets or () if facet.source == "generated"]
    lines = generated_facets(got)
    assert len(lines) == len(generated)
    for line, facet in zip(lines, generated, strict=True):
        assert line.startswith(f"{facet.name}: ")
        assert all(value in line for value in facet.values)


@published
@given(queries, queries)
def test_it_is_compared_by_what_it_says(one: dict[str, Any], other: dict[str, Any]) -> None:
    reordered = json.loads(json.dumps({name: one[name] for name in reversed(one)}))
    for facet in reordered.get("facets") or ():
        facet["values"].reverse()
    assert is_same(one, reordered)
    assert not differences(one, reordered)
    everywhere = {name: value for name, value in one.items() if name != "catalogs"}
    assert combine({"a": one, "b": reordered}) == everywhere
    assert is_same(one, other) == (not differences(one, other))
