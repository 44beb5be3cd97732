"""A details snapshot has what the published models say of each lookup that they accept."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from octogen_ai_sdk.generated.models import (
    MerchantProductUrlLookupResponse as PublishedLookup,
)
from octogen_ai_sdk.generated.models import MerchantProductView, ProgrammaticProductLookupResponse
from pydantic import BaseModel

from octogen_dagster.frames.details.lookups import Lookup
from octogen_dagster.frames.details.schema import DETAIL_SCHEMA, FOUND
from octogen_dagster.frames.details.wire import read_lookup
from tests.frames.details.made_up import LOOKED_UP_AT, row_of
from tests.published import answers, bodies, ok, published, unknown_fields, values

OURS = {"uuid", "catalog_key", "product_url", "status", "error", "looked_up_at", "listed"}


def lookups(model: type[BaseModel], *, lax: bool) -> st.SearchStrategy[bytes]:
    """Lookups that find the product "a" in the index."""
    view = answers(MerchantProductView, {"uuid": st.just("a")}, lax=lax)
    return bodies(answers(model, {"product": view, "source": st.just("indexed")}, lax=lax))


def in_frame(value: Any, dtype: Any) -> Any:
    """A value as a frame has it. An object whose names are data is a list."""
    match value, dtype:
        case dict(), pl.Struct(fields=fields):
            assert len(fields) == len(value)
            return {field.name: in_frame(value[field.name], field.dtype) for field in fields}
        case dict(), _:
            return [{"name": name, "values": entries} for name, entries in value.items()]
        case list(), pl.List(inner=inner):
            return [in_frame(entry, inner) for entry in value]
        case _:
            return value


LOOKUPS: dict[type[BaseModel], st.SearchStrategy[bytes]] = {
    model: lookups(model, lax=False) | lookups(model, lax=True)
    for model in (PublishedLookup, ProgrammaticProductLookupResponse)
}


@pytest.mark.parametrize("model", LOOKUPS)
@published
@given(data=st.data())
def test_a_product_that_is_found(model: type[BaseModel], data: st.DataObject) -> None:
    content = data.draw(LOOKUPS[model])
    theirs = model.model_validate_json(content)
    said = values(theirs)
    said = said["product"] | said
    response = read_lookup(ok(content), "Product")
    row, unknown = row_of(Lookup(FOUND, LOOKED_UP_AT, response))

    assert row["status"] == FOUND
    expected = {
        name: in_frame(said.get(name), dtype)
        for name, dtype in DETAIL_SCHEMA.items()
        if name not in OURS
    }
    assert {name: row[name] for name in expected} == expected
    assert unknown == unknown_fields(theirs)
