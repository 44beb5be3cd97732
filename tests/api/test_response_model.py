from __future__ import annotations

import logging
from datetime import datetime, timezone

import pytest

from octogen_dagster.api.models import MerchantCatalogSummary, MerchantProductView, ProductReview
from octogen_dagster.api.response_model import Int64, ResponseModel, UtcDatetime


class Moment(ResponseModel):
    at: UtcDatetime | None = None
    views: Int64 | None = None
    in_words: str | None = None


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2026-03-01T12:00:00", 0),
        ("2026-03-01T12:00:00Z", 0),
        ("2026-03-01t12:00:00z", 0),
        ("2026-03-01T14:00:00+02:00", 0),
        ("2026-03-01T12:00:00.5Z", 500_000),
        ("2026-03-01T12:00:00.123456Z", 123_456),
        ("2026-03-01T12:00:00.123456789Z", 123_456),
    ],
)
def test_a_time_becomes_utc_and_one_without_a_zone_is_utc(text: str, microsecond: int) -> None:
    moment = Moment.model_validate({"at": text}).at
    assert moment == datetime(2026, 3, 1, 12, 0, 0, microsecond, timezone.utc)
    assert moment.tzinfo is timezone.utc


@pytest.mark.parametrize("text", ["0001-01-01T00:00:07+05:00", "9999-12-31T23:59:57.5-00:01"])
def test_a_time_that_python_cannot_say_in_utc_is_null_with_one_warning(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert Moment.model_validate({"at": text, "inWords": "long ago"}).at is None
    (record,) = caplog.records
    assert f"the timestamp {text.partition('.')[0]}" in record.getMessage()
    assert "outside of the years 1 to 9999 in UTC. It is read as null" in record.getMessage()


@pytest.mark.parametrize(
    ("number", "kept"),
    [(2**63 - 1, True), (-(2**63), True), (2**63 + 7, False), (-(2**63) - 7, False)],
)
def test_a_number_that_no_column_can_hold_is_null_with_one_warning(
    number: int, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert Moment.model_validate({"views": number}).views == (number if kept else None)
    assert [record.getMessage() for record in caplog.records] == [
        f"The service sent the number {number}, which is outside of 64 bits. It is read as null: "
        "report it to Octogen."
    ] * (not kept)


def test_such_a_time_loses_nothing_else() -> None:
    text = "0001-01-01T00:00:00+14:00"
    catalog = {"catalog": "a", "displayName": "A", "productCount": 1, "lastIndexedAt": text}
    assert MerchantCatalogSummary.model_validate(catalog).last_indexed_at is None
    product = {
        "uuid": "u",
        "productUrl": "https://shop.example/u",
        "updatedAt": text,
        "reviews": [{"publishedAt": text, "rating": 4}],
    }
    view = MerchantProductView.model_validate(product)
    assert (view.uuid, view.updated_at) == ("u", None)
    assert view.reviews == [ProductReview(rating=4)]


def test_fields_are_camel_case_on_the_wire_and_unknown_ones_are_kept() -> None:
    moment = Moment.model_validate({"inWords": 5, "newField": 1})
    assert (moment.in_words, moment.model_extra) == ("5", {"newField": 1})
    assert Moment(in_words="now").in_words == "now"
