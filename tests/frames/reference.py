"""Decodes pages by the pydantic models, a row at a time: what the bulk path must equal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import polars as pl
from pydantic import BaseModel

from octogen_dagster.api.models import MerchantProductListPage
from octogen_dagster.api.responses import parsed
from octogen_dagster.frames.schema import PRODUCT_SCHEMA
from tests.frames.products import answer


def decode_by_models(contents: Sequence[bytes], catalog: str, fetched_at: datetime) -> pl.DataFrame:
    """The products of pages."""
    rows = [
        {
            **_plain(item),
            "catalog_key": catalog if item.catalog_key is None else item.catalog_key,
            "fetched_at": fetched_at,
        }
        for content in contents
        for item in parsed(MerchantProductListPage, answer(content), "Page").items
    ]
    return pl.DataFrame(rows, schema=PRODUCT_SCHEMA)


def _plain(value: Any) -> Any:
    match value:
        case BaseModel():
            return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
        case list():
            return [_plain(entry) for entry in value]
        case _:
            return value
