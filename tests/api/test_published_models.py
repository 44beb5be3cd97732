"""The models read each answer that the published models accept as they do."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from octogen_ai_sdk.generated.models import MerchantProductListItem, ProgrammaticProductSearchPage
from pydantic import BaseModel

from octogen_dagster.api.models import MerchantProductListPage
from octogen_dagster.api.responses import parsed
from tests.published import answers, bodies, ok, published, text, unknown_fields, values


def plain(value: Any, said: Any) -> Any:
    """The fields of a model that the published one has, as plain values."""
    match value, said:
        case BaseModel(), dict():
            return {name: plain(getattr(value, name), part) for name, part in said.items()}
        case list(), list():
            return [plain(entry, part) for entry, part in zip(value, said, strict=True)]
        case _:
            return value


def pages(*, lax: bool) -> st.SearchStrategy[dict[str, Any]]:
    # The published models accept an empty uuid, which is no identity.
    products = answers(MerchantProductListItem, {"uuid": text.filter(bool)}, lax=lax)
    items = st.none() | st.lists(products, min_size=1, max_size=3)
    return answers(ProgrammaticProductSearchPage, {"items": items}, lax=lax)


@published
@given(bodies(pages(lax=False) | pages(lax=True)))
def test_a_page(content: bytes) -> None:
    theirs = ProgrammaticProductSearchPage.model_validate_json(content)
    said = values(theirs)
    said["items"] = said["items"] or []
    said["effective_query"] = json.loads(content)["effectiveQuery"]

    ours = parsed(MerchantProductListPage, ok(content), "Page")

    assert plain(ours, said) == said
    kept_as_it_came = unknown_fields(theirs.effective_query, "effectiveQuery.")
    assert unknown_fields(ours) == unknown_fields(theirs) - kept_as_it_came
