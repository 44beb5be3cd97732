"""The bulk path reads each page that the published models accept as they do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from octogen_ai_sdk.generated.models import MerchantProductListItem, ProgrammaticProductSearchPage

from octogen_dagster.errors import OctogenResponseError
from octogen_dagster.frames.decode import PageDecoder
from octogen_dagster.frames.schema import PRODUCT_SCHEMA
from octogen_dagster.frames.wire import WirePage, read_page
from tests.frames.reference import decode_by_models
from tests.published import answers, bodies, ok, published, text, unknown_fields, values

BEGAN = datetime(2026, 11, 25, tzinfo=timezone.utc)
EFFECTIVE_QUERY = {"text": "", "understood": False}
SEED_FIELDS = {
    *("uuid", "productUrl", "title", "brand", "currentPrice", "originalPrice", "imageUrl"),
    *("images", "rating", "updatedAt", "isActive"),
}


def pages(*, lax: bool) -> st.SearchStrategy[Any]:
    # The published models accept an empty uuid. Without an identity, a product cannot be compared
    # from day to day, so it is refused: tests/frames/test_wire.py.
    products = answers(MerchantProductListItem, {"uuid": text.filter(bool)}, lax=lax)
    return answers(
        ProgrammaticProductSearchPage,
        {
            "items": st.lists(products, min_size=1, max_size=3),
            "effectiveQuery": st.just(EFFECTIVE_QUERY),
        },
    )


def seed_page(page: dict[str, Any]) -> dict[str, Any]:
    """The page as a service of the seed generation sends it, with images as texts."""
    items = [
        {name: value for name, value in item.items() if name in SEED_FIELDS}
        for item in page.get("items", ())
    ]
    for item in items:
        if item.get("images"):
            item["images"] = [image["url"] for image in item["images"]]
    return {"items": items, "nextCursor": page.get("nextCursor")}


def published_page(content: bytes) -> ProgrammaticProductSearchPage:
    """What the published model says about a page; of either generation."""
    page = json.loads(content)
    page = {"effectiveQuery": EFFECTIVE_QUERY, "requestId": "", **page}
    for item in page.get("items", ()):
        if item.get("images"):
            item["images"] = [{"url": i} if isinstance(i, str) else i for i in item["images"]]
    return ProgrammaticProductSearchPage.model_validate_json(json.dumps(page))


def rows(contents: Sequence[bytes]) -> list[dict[str, Any]]:
    """The rows of a snapshot, by what the published model says."""
    return [
        {
            **{name: product.get(name) for name in PRODUCT_SCHEMA},
            "catalog_key": "acme" if product["catalog_key"] is None else product["catalog_key"],
            "fetched_at": BEGAN,
        }
        for content in contents
        for product in values(published_page(content))["items"] or ()
    ]


def read(content: bytes) -> WirePage:
    return read_page(ok(content), "Page")


def decode(contents: Sequence[bytes]) -> pl.DataFrame:
    frame = PageDecoder(list(PRODUCT_SCHEMA), BEGAN).decode([*map(read, contents)], "acme")
    assert frame.schema == PRODUCT_SCHEMA
    return frame


@published
@given(st.lists(bodies(pages(lax=False)), min_size=1, max_size=2))
def test_polars_decodes_what_the_published_model_says(contents: list[bytes]) -> None:
    assert decode(contents).to_dicts() == rows(contents)


@published
@given(st.lists(bodies(pages(lax=False) | pages(lax=True)), min_size=1, max_size=2))
def test_the_models_decode_the_same(contents: list[bytes]) -> None:
    assert decode_by_models(contents, "acme", BEGAN).to_dicts() == rows(contents)


@published
@given(st.lists(bodies(pages(lax=True)), min_size=1, max_size=2))
def test_values_that_pydantic_converts_are_decoded_as_it_does(contents: list[bytes]) -> None:
    assert decode(contents).to_dicts() == rows(contents)


@published
@given(st.lists(bodies(pages(lax=False).map(seed_page)), min_size=1, max_size=2))
def test_pages_of_the_seed_generation_are_decoded_alike(contents: list[bytes]) -> None:
    assert decode(contents).to_dicts() == rows(contents)
    assert decode_by_models(contents, "acme", BEGAN).to_dicts() == rows(contents)


@published
@given(bodies(pages(lax=False) | pages(lax=True)))
def test_fields_that_no_model_knows_are_counted(content: bytes) -> None:
    page = ProgrammaticProductSearchPage.model_validate_json(content)
    assert read(content).unknown == unknown_fields(page)


@pytest.mark.parametrize("count", [2**63 - 1, -(2**63), 2**63, 10**30])
def test_an_integer_is_kept_if_a_column_can_hold_it(count: int) -> None:
    product = {"uuid": "u", "productUrl": "p", "rating": {"count": count}}
    content = json.dumps({"items": [product]}).encode()
    (said,) = rows([content])
    assert said["rating"]["count"] == count

    expected = count if count < 2**63 else None
    for frame in (decode([content]), decode_by_models([content], "acme", BEGAN)):
        (row,) = frame.to_dicts()
        assert row == said | {"rating": {"average": None, "count": expected}}


@pytest.mark.parametrize("number", ["NaN", "-Infinity", '"Infinity"', "1e400"])
def test_a_number_that_is_not_finite_is_refused(number: str) -> None:
    # The published models take infinity, and NaN, which is not JSON.
    content = f'{{"items": [{{"uuid": "u", "productUrl": "p", "currentPrice": {number}}}]}}'
    with pytest.raises(OctogenResponseError, match=r"a product 'u' \(item 0\) whose currentPrice"):
        read(content.encode())


@pytest.mark.parametrize("items", [{}, {"items": None}, {"items": []}])
def test_a_page_without_items_is_empty(items: dict[str, Any]) -> None:
    page = {"effectiveQuery": EFFECTIVE_QUERY, "requestId": "r", "nextCursor": "c", **items}
    content = json.dumps(page).encode()
    assert not ProgrammaticProductSearchPage.model_validate(page).items

    got = read(content)

    assert (got.uuids, got.next_cursor, got.unknown) == ([], "c", Counter())
    assert decode([content]).is_empty()
    full = json.dumps({"items": [{"uuid": "u", "productUrl": "p"}]}).encode()
    assert decode([content, full, content])["uuid"].to_list() == ["u"]


@pytest.mark.parametrize("content", [b"{}", b'{"message": "down", "requestId": "r"}'])
def test_an_object_that_is_no_page_is_not_an_empty_one(content: bytes) -> None:
    with pytest.raises(OctogenResponseError, match=r"^Page was .* a wrong items: field required"):
        read(content)
