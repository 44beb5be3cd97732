from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from octogen_dagster.errors import OctogenResponseError
from octogen_dagster.frames.decode import PageDecoder
from octogen_dagster.frames.schema import PRODUCT_SCHEMA
from octogen_dagster.frames.wire import read_page
from tests.frames.products import PRODUCT, answer, pages
from tests.frames.reference import decode_by_models

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def decode(*documents: Any, columns: list[str] | None = None) -> pl.DataFrame:
    decoder = PageDecoder(columns or list(PRODUCT_SCHEMA), BEGAN)
    return decoder.decode([read_page(answer(page), "Page") for page in documents], "acme")


def expected(*documents: Any) -> pl.DataFrame:
    return decode_by_models([answer(page).content for page in documents], "acme", BEGAN)


@settings(deadline=None)
@given(st.lists(pages(), min_size=1, max_size=3))
def test_the_fast_path_and_the_models_agree_on_every_valid_page(documents: list[Any]) -> None:
    fast = decode(*documents)

    assert_frame_equal(fast, expected(*documents))
    assert fast.schema == PRODUCT_SCHEMA
    assert fast["uuid"].to_list() == [item["uuid"] for page in documents for item in page["items"]]


@settings(deadline=None, max_examples=30)
@given(pages(), st.sets(st.sampled_from(list(PRODUCT_SCHEMA)), min_size=1))
def test_a_projection_is_the_same_columns_of_the_whole(page: Any, columns: set[str]) -> None:
    wanted = [name for name in PRODUCT_SCHEMA if name in columns]
    assert_frame_equal(decode(page, columns=wanted).select(wanted), decode(page).select(wanted))


def test_values_keep_their_types() -> None:
    item = {
        **PRODUCT,
        "title": 'Chaise "longue" é | 1',
        "brand": {"name": "Acme", "slug": "acme"},
        "currentPrice": 12,
        "rating": {"average": 4.5, "count": 7},
        "images": ["https://img.example/1.jpg"],
        "updatedAt": "2026-11-01T12:34:56.123456+02:00",
    }
    (row,) = decode({"items": [item]}).to_dicts()

    assert row["title"] == 'Chaise "longue" é | 1'
    assert row["brand"] == {"name": "Acme", "slug": "acme", "url": None, "description": None}
    assert row["current_price"] == 12.0
    assert row["rating"] == {"average": 4.5, "count": 7}
    assert row["images"][0]["url"] == "https://img.example/1.jpg"
    assert row["images"][0]["width"] is None
    assert row["updated_at"] == datetime(2026, 11, 1, 10, 34, 56, 123456, tzinfo=timezone.utc)
    assert row["fetched_at"] == BEGAN
    assert row["catalog_key"] == "acme"


def test_the_catalog_that_the_server_names_wins() -> None:
    assert decode({"items": [{**PRODUCT, "catalogKey": "zen"}]})["catalog_key"].to_list() == ["zen"]


def test_an_empty_page_has_the_whole_schema() -> None:
    frame = decode({"items": [], "nextCursor": None})
    assert frame.is_empty()
    assert frame.schema == PRODUCT_SCHEMA


@pytest.mark.parametrize(
    ("field", "value", "column", "normal"),
    [
        ("title", 5, "title", "5"),
        ("currentPrice", "12.50", "current_price", 12.5),
        ("inStock", "true", "in_stock", True),
        ("rating", {"count": 3.0}, "rating", {"average": None, "count": 3}),
        ("rating", {"count": 2**63}, "rating", {"average": None, "count": None}),
        (
            "updatedAt",
            "2026-11-01T12:34:56",
            "updated_at",
            datetime(2026, 11, 1, 12, 34, 56, tzinfo=timezone.utc),
        ),
        ("primaryImage", "https://img.example/1.jpg", "primary_image", "https://img.example/1.jpg"),
    ],
)
def test_a_value_in_another_form_is_normalised(
    field: str, value: Any, column: str, normal: Any
) -> None:
    (got,) = decode({"items": [{**PRODUCT, field: value}]})[column].to_list()
    assert (got["url"] if column == "primary_image" else got) == normal


@pytest.mark.parametrize(
    ("twice", "once"),
    [
        ('"title": "a", "title": "b"', '"title": "b"'),
        ('"title": "a", "title": null', '"title": null'),
        ('"brand": {"name": "a", "url": "x"}, "brand": {"name": "b"}', '"brand": {"name": "b"}'),
        ('"brand": {"name": "a", "name": "b"}', '"brand": {"name": "b"}'),
        ('"images": [{"url": "a", "url": "b"}]', '"images": [{"url": "b"}]'),
        ('"colors": ["a"], "colors": ["b", "c"]', '"colors": ["b", "c"]'),
        ('"mood": 1, "mood": 2', '"mood": 2'),
    ],
)
def test_of_two_fields_of_one_name_the_last_counts(twice: str, once: str) -> None:
    first, second = (
        b'{"items": [{"uuid": "u", "productUrl": "p", %s}]}' % fields.encode()
        for fields in (twice, once)
    )
    assert_frame_equal(decode(first), decode(second))
    assert_frame_equal(decode(first), expected(first))
    assert read_page(answer(first), "Page").unknown == read_page(answer(second), "Page").unknown


@pytest.mark.parametrize("number", ["12.0", "1.2e1", "0.12E+2", "12.000"])
def test_a_whole_number_is_an_integer_however_it_is_written(number: str) -> None:
    image = b'{"url": "x", "width": %s}' % number.encode()
    content = b'{"items": [{"uuid": "u", "productUrl": "p", "images": [%s]}]}' % image
    assert_frame_equal(decode(content), expected(content))
    assert decode(content)["images"][0][0]["width"] == 12


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 2**63, 1e18, 10**30])
def test_an_integer_beyond_64_bits_is_null(value: float) -> None:
    page = {"items": [PRODUCT, {**PRODUCT, "rating": {"count": value, "average": 1}}]}
    assert_frame_equal(decode(page), expected(page))
    (count,) = decode(page)["rating"].drop_nulls().struct.field("count")
    assert count == (value if -(2**63) <= value < 2**63 else None)


@pytest.mark.parametrize("form", ["{0}{1}", "{1}{0}{1}", "{2}{0}{2}{1}", "{2}{2}{1}", "{3}{0}"])
def test_images_of_both_forms_are_one_column_in_any_order(form: str) -> None:
    images = [["a", "b"], [{"url": "a", "width": 1}], None, ["a", {"url": "b", "mimeType": "x"}]]
    documents = [
        {"items": [{**PRODUCT, "images": images[int(each)]}]} for each in form if each.isdigit()
    ]
    assert_frame_equal(decode(*documents), expected(*documents))
    together = {"items": [item for document in documents for item in document["items"]]}
    assert_frame_equal(decode(together), decode(*documents))


def test_what_is_large_is_decoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    titles = ["a", "b" * 100, "c", "d", "e" * 100]
    document = {"items": [{**PRODUCT, "title": title} for title in titles]}
    monkeypatch.setattr("octogen_dagster.frames.wire._MAX_PRODUCTS", 2)
    monkeypatch.setattr("octogen_dagster.frames.decode._MAX_BYTES_AT_ONCE", 300)
    decoded: list[int] = []
    decode_run = PageDecoder._decode_run

    def counted(self: PageDecoder, run: list[bytes], *args: Any, **options: Any) -> pl.DataFrame:
        decoded.append(len(run))
        return decode_run(self, run, *args, **options)

    monkeypatch.setattr(PageDecoder, "_decode_run", counted)
    assert_frame_equal(decode(document, document), expected(document, document))
    assert sum(decoded) == 6  # three parts of each page
    assert len(decoded) > 2


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("uuid", "", "uuid"),
        ("updatedAt", "2026-06-30T23:59:60Z", "updatedAt"),
        ("currentPrice", "null", "currentPrice"),
        ("rating", {"count": "null"}, "rating.count"),
        ("rating", 5, "rating"),
        ("primaryImage", {}, "primaryImage.url"),
        ("colors", [None], "colors.0"),
        ("currentPrice", "cheap", "currentPrice"),
        ("currentPrice", {"amount": 3}, "currentPrice"),
        ("rating", {"count": 2.5}, "rating.count"),
        ("title", True, "title"),
        ("colors", "blue", "colors"),
        ("images", [{"cdnUrl": "x"}], "images.0.url"),
        ("updatedAt", "yesterday", "updatedAt"),
        ("productUrl", None, "productUrl"),
    ],
)
def test_a_bad_product_is_named_with_its_field(field: str, value: Any, named: str) -> None:
    bad = {**PRODUCT, "uuid": "bad-one", field: value}

    product = r"'bad-one' \(item 1\)" if bad["uuid"] else "at item 1"
    with pytest.raises(OctogenResponseError, match=f"{product} whose {named}") as raised:
        decode({"items": [PRODUCT, bad]})
    assert "Page was answered with 200 and a product" in str(raised.value)
    assert raised.value.request_id == "r-1"


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00"])
def test_a_time_that_python_cannot_represent_is_null_and_stops_no_other(time: str) -> None:
    times = [time, "2026-01-02T00:00:00Z"]
    page = {"items": [{**PRODUCT, "updatedAt": each} for each in times]}
    representable = [None, datetime(2026, 1, 2, tzinfo=timezone.utc)]
    assert decode(page)["updated_at"].to_list() == representable
    assert expected(page)["updated_at"].to_list() == representable


def test_unknown_fields_are_counted_by_path_and_the_rest_is_read() -> None:
    item = {**PRODUCT, "brand": {"name": "Acme", "founder": "W. E."}, "mood": "blue", "title": "T"}
    decoder = PageDecoder(list(PRODUCT_SCHEMA), BEGAN)
    page = {"items": [item, {**item, "uuid": "2"}, {**PRODUCT, "uuid": "3"}], "debug": {}}

    frame = decoder.decode([read_page(answer(page), "Page")], "acme")

    assert frame["title"].to_list() == ["T", "T", None]
    assert decoder.unknown_fields == {"debug": 1, "items.brand.founder": 2, "items.mood": 2}


def test_unknown_fields_are_counted_on_pages_that_the_models_read_as_well() -> None:
    decoder = PageDecoder(list(PRODUCT_SCHEMA), BEGAN)
    page = {"items": [{**PRODUCT, "title": 5, "mood": "blue"}]}
    decoder.decode([read_page(answer(page), "Page")], "acme")
    assert decoder.unknown_fields == {"items.mood": 1}


@pytest.mark.parametrize(
    "content", [b"<html>", b"", b'{"items": [', b"[]", b"null", b'{"items": {}}']
)
def test_what_is_not_a_page_is_an_error_and_never_an_empty_result(content: bytes) -> None:
    with pytest.raises(OctogenResponseError, match=r"^Page was answered with 200 and "):
        read_page(answer(content), "Page")
