"""Odd values of pages and lookups: what is read, what becomes null, what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from octogen_dagster.api.http import Response
from octogen_dagster.api.models import UtcDatetime
from octogen_dagster.errors import OctogenResponseError
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.reading.decode import product_frame, read_lookup, read_page, with_details
from octogen_dagster.reading.execution import SeenProducts

PRODUCT = {"uuid": "u", "productUrl": "p"}
by_model = TypeAdapter(UtcDatetime | None)


def response(document: Any) -> Response:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Response(200, {"content-type": "application/json"}, content)


def values(name: str, *documents: Any) -> list[Any]:
    """The values of a column, of all pages."""
    pages = [read_page(response(document), "Page") for document in documents]
    frame = product_frame(pages, [*PRODUCT_SCHEMA], "acme", datetime.now(UTC))
    assert frame.schema == PRODUCT_SCHEMA
    return frame.get_column(name).to_list()


def page(**fields: Any) -> dict[str, Any]:
    return {"items": [PRODUCT | fields]}


@pytest.mark.parametrize("of_lookups", [False, True], ids=["pages", "lookups"])
@pytest.mark.parametrize(
    "text",
    [
        "2026-01-02T03:04:05Z",
        "2026-01-02t03:04:05.123456789+05:30",
        "2026-01-02T03:04:05.9999999Z",
        "2026-01-02 03:04:05z",
        "2026-01-02T03:04:05",
        "2026-01-02 03:04:05.1234567",
        "2026-01-02T03:04Z",
        "2026-01-02T03:04:05,5Z",
        "2026-01-02T03:04:05+0530",
        "1767323045",
        "2026-01-02",
        "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:59:59-05:00",
        "0001-01-01T00:00:00Z",
        "2026-01-02T03:04:60Z",
        "2026-01-02T24:00:00Z",
        "2026-02-30T03:04:05Z",
        " 2026-01-02T03:04:05Z",
        "yesterday",
        "",
    ],
)
def test_a_time_is_read_as_the_model_reads_it(text: str, of_lookups: bool) -> None:
    def read() -> Any:
        if not of_lookups:
            return values("updated_at", {"items": [PRODUCT, PRODUCT | {"updatedAt": text}]})[1]
        product = PRODUCT | {"updatedAt": text, "reviews": [{"publishedAt": text}, {}]}
        lookup = read_lookup(response({"product": product}), "It")
        frame = pl.DataFrame({"lookup": [lookup.content], "status": ["found"]})
        (row,) = with_details(frame).to_dicts()
        assert row["reviews"][0]["published_at"] == row["updated_at"]
        return row["updated_at"]

    try:
        expected = by_model.validate_python(text)
    except ValidationError:
        with pytest.raises(OctogenResponseError, match="updatedAt"):
            read()
    else:
        assert read() == expected


@pytest.mark.parametrize("number", ["12.0", "1.2e1", "0.12E+2", "12.000"])
def test_a_whole_number_is_an_integer_however_it_is_written(number: str) -> None:
    content = b'{"items": [{"uuid": "u", "productUrl": "p", "rating": {"count": %s}}]}'
    assert values("rating", content % number.encode()) == [{"average": None, "count": 12}]


def test_images_of_both_forms_are_one_column() -> None:
    forms: list[Any] = [["a", "b"], [{"url": "a", "width": 1}], None, [], ["a", {"url": "b"}]]
    pages = [page(images=images) for images in forms]
    expected = [None if each is None else [url_of(image) for image in each] for each in forms]
    assert urls(values("images", *pages)) == expected
    together = {"items": [item for page in pages for item in page["items"]]}
    assert values("images", together) == values("images", *pages)
    assert urls([values("primary_image", page(primaryImage="a"))]) == [["a"]]


def url_of(image: Any) -> str:
    return str(image["url"] if isinstance(image, dict) else image)


def urls(lists: list[Any]) -> list[Any]:
    return [images if images is None else [url_of(image) for image in images] for images in lists]


@given(
    st.lists(st.lists(st.integers(0, 60).map(str), max_size=20), max_size=20),
    st.sampled_from([0, 30, 20_000]),
)
def test_each_product_is_new_once(batches: list[list[str]], recent: int) -> None:
    seen, known = SeenProducts(recent), set[str]()
    for batch in batches:
        expected = [uuid not in {*known, *batch[:at]} for at, uuid in enumerate(batch)]
        known.update(batch)
        assert seen.add(batch).to_list() == expected


def test_many_batches_of_many_products() -> None:
    seen = SeenProducts(4_096)
    for start in range(0, 50_000, 1_000):
        batch = [str(number) for number in range(start, start + 1_500)]
        assert seen.add(batch).sum() == (1_500 if start == 0 else 1_000)
