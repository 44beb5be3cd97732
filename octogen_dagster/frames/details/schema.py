"""The schema of details snapshots, derived from the model of the full view.

The conversion of a view to values of the schema is here too, so that both stay in step. The lookups
are in `lookups`.
"""

from __future__ import annotations

from datetime import datetime
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import polars as pl
from pydantic import BaseModel

from octogen_dagster.api.models import MerchantProductView
from octogen_dagster.frames.schema import COLUMN_DESCRIPTIONS, PRODUCT_SCHEMA

if TYPE_CHECKING:
    from collections import Counter

DETAIL_SCHEMA_VERSION = 1

FOUND, GONE, MISMATCH, FAILED = "found", "gone", "mismatch", "failed"
IDENTITY = ("uuid", "catalog_key", "product_url")
LISTED = ("title", "current_price", "original_price", "in_stock", "is_active", "updated_at")

_SCALARS: dict[Any, pl.DataType] = {
    str: pl.String(),
    int: pl.Int64(),
    float: pl.Float64(),
    bool: pl.Boolean(),
    datetime: pl.Datetime("us", "UTC"),
}
# A lookup has no search, so its products have no scores.
_NO_COLUMNS = {*IDENTITY, "display_match_score", "raw_score"}


def _dtype(annotation: Any) -> pl.DataType:
    """Return the Polars type for the type of a field of a model."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _dtype(arguments[0])
    if origin in (Union, UnionType):
        (inner,) = set(arguments) - {type(None)}
        return _dtype(inner)
    if origin is list:
        return pl.List(_dtype(arguments[0]))
    if origin is dict:
        return pl.List(pl.Struct({"name": pl.String(), "values": _dtype(arguments[1])}))
    if issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return pl.Struct({name: _dtype(field.annotation) for name, field in fields})
    return _SCALARS[annotation]


_VIEW_SCHEMA = {
    name: _dtype(field.annotation)
    for name, field in MerchantProductView.model_fields.items()
    if name not in _NO_COLUMNS
}

DETAIL_SCHEMA = pl.Schema(
    {
        **{name: PRODUCT_SCHEMA[name] for name in IDENTITY},
        "status": pl.String(),
        "error": pl.String(),
        "looked_up_at": pl.Datetime("us", "UTC"),
        "listed": pl.Struct({name: PRODUCT_SCHEMA[name] for name in LISTED}),
        **_VIEW_SCHEMA,
    }
)
"""One row for each product of a product snapshot. Only `uuid` and `status` are never null."""

DETAIL_DESCRIPTIONS = {
    **{name: text for name, text in COLUMN_DESCRIPTIONS.items() if name in _VIEW_SCHEMA},
    "uuid": COLUMN_DESCRIPTIONS["uuid"],
    "catalog_key": "The catalog the product belongs to, as in the product snapshot.",
    "product_url": "The product's page at the merchant, which was looked up.",
    "status": "found; gone: no granted catalog has the product any more; mismatch: its address "
    "leads to another product; failed: the lookup failed.",
    "error": "The reason for the status mismatch or failed.",
    "looked_up_at": "When the product was looked up (UTC).",
    "listed": "Values of the product snapshot, by which later changes of the product are noticed.",
    "catalog_display_name": COLUMN_DESCRIPTIONS["catalog_display_name"],
    "colors": "Colours on offer, with swatches.",
    "description": "Description as the merchant shows it.",
    "categories": "Categories at the merchant.",
    "tags": "Tags at the merchant.",
    "variants": "Variants on offer: colour, size, stock.",
    "details": "Materials, fit, dimensions and patterns.",
    "audience": "Genders and age groups it is made for.",
    "identifiers": "Identifiers of the merchant and of the trade.",
    "breadcrumbs": "The path to the product on the merchant's site, from the widest category.",
    "promotions": "Promotions that apply.",
    "reviews": "Reviews at the merchant.",
    "videos": "Videos of the product.",
    "enrichment": "Data that Octogen adds: canonical brand, facets, attributes, summary.",
}
"""The description of each column of `DETAIL_SCHEMA`."""


def view_values(view: MerchantProductView, unknown: Counter[str]) -> dict[str, Any]:
    """Convert a full view to values of the schema's columns, without those of `IDENTITY`.

    Args:
        view: The view that a lookup found.
        unknown: Counts the fields that the schema does not know, by path.
    """
    values: dict[str, Any] = _plain(view, "product", unknown)
    return {name: values[name] for name in _VIEW_SCHEMA}


def _plain(value: Any, path: str, unknown: Counter[str]) -> Any:
    if isinstance(value, BaseModel):
        unknown.update(f"{path}.{name}" for name in value.model_extra or ())
        return {
            name: _plain(getattr(value, name), f"{path}.{field.alias or name}", unknown)
            for name, field in type(value).model_fields.items()
        }
    if isinstance(value, list):
        return [_plain(entry, path, unknown) for entry in value]
    if isinstance(value, dict):
        return [{"name": name, "values": values} for name, values in value.items()]
    return value
