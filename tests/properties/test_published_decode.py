"""Pages and lookups are decoded as the published models say, whatever these accept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from octogen_ai_sdk.generated.models import (
    MerchantProductUrlLookupResponse,
    MerchantProductView,
    ProgrammaticProductLookupResponse,
    ProgrammaticProductSearchPage,
)
from pydantic import BaseModel

from benchmarks.corpora import SHAPES
from benchmarks.source import Generation
from octogen_dagster.frames.columns import DETAIL_SCHEMA, PRODUCT_SCHEMA
from octogen_dagster.reading import decode as module
from octogen_dagster.reading.decode import product_frame, read_lookup, read_page, with_details
from tests.published import answers, bodies, ok, published, unknown_fields, values
from tests.published_pages import pages, published_page, rows, seed_page

BEGAN = datetime(2026, 11, 25, tzinfo=UTC)
COLUMNS = [*PRODUCT_SCHEMA]


def decode(contents: Sequence[bytes], columns: Sequence[str] = COLUMNS) -> pl.DataFrame:
    read = [read_page(ok(content), "Page") for content in contents]
    return product_frame(read, columns, "acme", BEGAN)


@pytest.mark.slow
@published
@given(bodies(pages(lax=False) | pages(lax=True)), bodies(pages(lax=False).map(seed_page)))
def test_pages_of_both_generations_together(current: bytes, seed: bytes) -> None:
    contents = [seed, current, seed]
    assert decode(contents).drop("fetched_at").to_dicts() == rows(*contents)


@published
@given(bodies(pages(lax=False)), st.sets(st.sampled_from(COLUMNS), min_size=1))
def test_some_columns_are_those_of_all(content: bytes, columns: set[str]) -> None:
    wanted = [name for name in COLUMNS if name in columns]
    some, every = decode([content], wanted), decode([content])
    assert some.select(wanted).to_dicts() == every.select(wanted).to_dicts()
    assert set(some.columns) == {"uuid", *wanted}


@published
@given(bodies(pages(lax=False) | pages(lax=True)))
def test_fields_that_no_model_knows_are_counted_on_a_first_page(content: bytes) -> None:
    theirs = unknown_fields(ProgrammaticProductSearchPage.model_validate_json(content))
    assert read_page(ok(content), "Page", is_first=True).unknown == theirs
    assert read_page(ok(content), "Page").unknown == {}


@published
@given(bodies(pages(lax=False)))
def test_a_page_that_was_saved_is_the_same(content: bytes) -> None:
    page = read_page(ok(content), "Page", is_first=True)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(page), type=type(page)) == page


@pytest.mark.parametrize("generation", ["seed", "current"])
@pytest.mark.parametrize("name", SHAPES)
def test_pages_of_each_shape_need_no_model(
    name: str, generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = SHAPES[name]
    items = list(shape.items(generation, 30))
    contents = [shape.encode({"items": items[begin : begin + 15]}) for begin in (0, 15)]
    expected = rows(*contents)
    unknown: Counter[str] = Counter()
    for content in contents:
        unknown += unknown_fields(published_page(content))
    monkeypatch.setattr(module, "parsed", None)

    read = [read_page(ok(content), "Page", is_first=True) for content in contents]

    frame = product_frame(read, COLUMNS, "acme", BEGAN)
    assert frame.drop("fetched_at").to_dicts() == expected
    assert sum((Counter(page.unknown) for page in read), Counter()) == unknown
    assert bool(unknown) == name.startswith("unknown")


OURS = {"uuid", "catalog_key", "product_url", "status", "error", "looked_up_at", "listed"}


def lookups(model: type[BaseModel], *, lax: bool) -> st.SearchStrategy[bytes]:
    view = answers(MerchantProductView, {"uuid": st.just("a")}, lax=lax)
    return bodies(answers(model, {"product": view}, lax=lax))


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
    for model in (MerchantProductUrlLookupResponse, ProgrammaticProductLookupResponse)
}


@pytest.mark.long
@pytest.mark.parametrize("model", LOOKUPS)
@published
@given(data=st.data())
def test_lookups(model: type[BaseModel], data: st.DataObject) -> None:
    contents = data.draw(st.lists(LOOKUPS[model], min_size=1, max_size=2))
    read = [read_lookup(ok(content), "Product") for content in contents]
    frame = pl.DataFrame({"lookup": [each.content for each in read], "status": "found"})
    found = with_details(frame)
    for content, lookup, row in zip(contents, read, found.to_dicts(), strict=True):
        theirs = model.model_validate_json(content)
        said = values(theirs)
        said = said["product"] | said
        expected = {
            name: in_frame(said.get(name), dtype)
            for name, dtype in DETAIL_SCHEMA.items()
            if name not in OURS
        }
        assert {name: row[name] for name in expected} == expected
        assert lookup.unknown == unknown_fields(theirs)
