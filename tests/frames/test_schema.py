"""The columns of a product snapshot."""

from __future__ import annotations

import polars as pl
import pytest

from octogen_dagster.api.models import MerchantProductListItem
from octogen_dagster.frames.schema import COLUMN_DESCRIPTIONS, COLUMNS, PRODUCT_SCHEMA


def test_every_field_of_the_service_is_a_column() -> None:
    from_service = {column.name for column in COLUMNS if column.from_service}
    assert from_service == MerchantProductListItem.model_fields.keys()
    assert PRODUCT_SCHEMA.keys() - from_service == {"fetched_at"}


def test_a_columns_field_is_the_one_on_the_wire() -> None:
    fields = MerchantProductListItem.model_fields
    for column in COLUMNS:
        if column.from_service:
            assert column.field == fields[column.name].alias


def test_required_columns_are_those_that_the_service_always_sends() -> None:
    required = {
        name for name, field in MerchantProductListItem.model_fields.items() if field.is_required()
    }
    assert {column.name for column in COLUMNS if column.required} == required


def test_every_column_is_described_in_a_sentence() -> None:
    assert COLUMN_DESCRIPTIONS.keys() == PRODUCT_SCHEMA.keys()
    assert all(text.endswith(".") for text in COLUMN_DESCRIPTIONS.values())


@pytest.mark.parametrize("name", ["updated_at", "fetched_at"])
def test_times_are_in_utc(name: str) -> None:
    assert PRODUCT_SCHEMA[name] == pl.Datetime("us", "UTC")
