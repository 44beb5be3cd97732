"""A search page's JSON, checked before Polars decodes it."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from octogen_dagster.errors import OctogenResponseError
from octogen_dagster.frames.schema import PRODUCT_SCHEMA
from octogen_dagster.frames.wire import WirePage, read_page, wire_dtype
from tests.frames.products import PRODUCT, answer


def read(*items: dict[str, Any], **fields: Any) -> WirePage:
    return read_page(answer({"items": [PRODUCT | item for item in items], **fields}), "Page")


def test_a_page_has_its_products_and_its_cursor() -> None:
    page = read({"uuid": "a"}, {"uuid": "b"}, nextCursor="c1")
    assert (page.uuids, page.next_cursor, page.request_id) == (["a", "b"], "c1", "r-1")
    assert not page.unknown


def test_the_size_of_a_page_counts_the_response_and_the_products_for_polars() -> None:
    response = answer({"items": [PRODUCT], "nextCursor": "c" * 1000})
    page = read_page(response, "Page")
    assert 1000 < len(response.content) < page.size < 2 * len(response.content)


def test_the_last_page_has_no_cursor() -> None:
    assert read().next_cursor is None
    assert read(nextCursor=None).next_cursor is None


@pytest.mark.parametrize("item", [{}, {"title": 5}])
@pytest.mark.parametrize(
    ("fields", "query"),
    [
        ({"effectiveQuery": {"text": "a", "facets": []}}, {"text": "a", "facets": []}),
        ({"effectiveQuery": None}, None),
        ({"effectiveQuery": "a"}, None),
        ({}, None),
    ],
)
def test_a_page_has_its_effective_query(
    item: dict[str, Any], fields: dict[str, Any], query: dict[str, Any] | None
) -> None:
    assert read(item, **fields).effective_query == query


@pytest.mark.parametrize(
    ("images", "are_text"),
    [
        ([["https://img.example/1.jpg"]], True),
        ([[{"url": "https://img.example/1.jpg"}]], False),
        ([None, [], ["https://img.example/1.jpg"]], True),
        ([None, []], None),
    ],
)
def test_the_first_image_shows_their_form(images: list[Any], are_text: bool | None) -> None:
    assert read(*({"images": each} for each in images)).images_are_text is are_text


def test_unknown_fields_are_counted_by_path() -> None:
    page = read(
        {"mood": "calm"},
        {"brand": {"url": "https://b.example", "founder": "W. E."}},
        {"mood": None, "images": ["x", {"url": "y", "hash": 1}, {"url": "z", "hash": [2]}]},
        debug={},
    )
    assert page.unknown == {
        "debug": 1,
        "items.mood": 2,
        "items.brand.founder": 1,
        "items.images.hash": 2,
    }


def test_a_product_without_an_identity_is_refused() -> None:
    with pytest.raises(OctogenResponseError, match="a product at item 0 whose uuid is wrong"):
        read({"uuid": ""})


def test_polars_decodes_only_the_columns_that_are_wanted() -> None:
    dtype = wire_dtype(["uuid", "updated_at", "primary_image", "fetched_at"], images_are_text=False)
    item = dtype.inner
    assert isinstance(item, pl.Struct)
    schema = dict(item.to_schema())
    assert schema.keys() == {"uuid", "updatedAt", "primaryImage"}
    assert schema["updatedAt"] == pl.String
    image = schema["primaryImage"]
    assert isinstance(image, pl.Struct)
    assert [field.name for field in image.fields][1] == "cdnUrl"


@pytest.mark.parametrize(("as_text", "is_struct"), [(True, False), (False, True)])
def test_images_are_decoded_in_the_form_of_the_page(as_text: bool, is_struct: bool) -> None:
    dtype = wire_dtype(list(PRODUCT_SCHEMA), images_are_text=as_text)
    item = dtype.inner
    assert isinstance(item, pl.Struct)
    images = dict(item.to_schema())["images"]
    assert isinstance(images, pl.List)
    assert isinstance(images.inner, pl.Struct) is is_struct


def test_what_only_the_models_read_is_an_error_that_says_where() -> None:
    content = answer({"items": [PRODUCT]}).content.replace(b'{"items"', b'{"mood": NaN, "items"')
    with pytest.raises(OctogenResponseError) as raised:
        read_page(answer(content), "Page")
    assert str(raised.value) == (
        "Page was answered with 200 and a body that cannot be decoded: JSON is malformed: invalid "
        "character (byte 9) (application/json, request r-1). Check base_url, or report it to "
        "Octogen."
    )
