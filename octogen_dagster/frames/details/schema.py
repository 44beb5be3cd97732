"""The schema of details snapshots, derived from the models of a lookup and of the full view.

The decoding is in `wire`, the lookups are in `lookups`.
"""

from __future__ import annotations

from datetime import datetime
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import polars as pl
from pydantic import BaseModel

from octogen_dagster.api.models import MerchantProductUrlLookupResponse, MerchantProductView
from octogen_dagster.frames.schema import COLUMN_DESCRIPTIONS, PRODUCT_SCHEMA

DETAIL_SCHEMA_VERSION = 2

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
# The snapshot says which product it is, and a lookup has no search, so no scores.
_NO_COLUMNS = {*IDENTITY, "display_match_score", "raw_score"}
_NO_ENVELOPE_COLUMNS = {*IDENTITY, "product", "request_id"}


def _dtype(annotation: Any, *, wire: bool) -> pl.DataType:
    """Return the Polars type for the type of a field of a model, or for its JSON."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _dtype(arguments[0], wire=wire)
    if origin in (Union, UnionType):
        (inner,) = set(arguments) - {type(None)}
        return _dtype(inner, wire=wire)
    if origin is list:
        return pl.List(_dtype(arguments[0], wire=wire))
    if origin is dict:
        values = _dtype(arguments[1], wire=wire)
        return pl.List(pl.Struct({"name": pl.String(), "values": values}))
    if issubclass(annotation, BaseModel):
        return pl.Struct(_columns(annotation, set(), wire=wire))
    return _SCALARS[annotation]


def _columns(model: type[BaseModel], without: set[str], *, wire: bool) -> dict[str, pl.DataType]:
    return {
        (field.alias or name) if wire else name: _dtype(field.annotation, wire=wire)
        for name, field in model.model_fields.items()
        if name not in without
    }


ENVELOPE_SCHEMA, WIRE_ENVELOPE = (
    _columns(MerchantProductUrlLookupResponse, _NO_ENVELOPE_COLUMNS, wire=wire)
    for wire in (False, True)
)
"""The columns of what a response says of the lookup, and the same in its JSON."""

VIEW_SCHEMA, WIRE_VIEW = (
    _columns(MerchantProductView, _NO_COLUMNS | ENVELOPE_SCHEMA.keys(), wire=wire)
    for wire in (False, True)
)
"""The columns of the full view without those of the lookup, and the same in its JSON."""

DETAIL_SCHEMA = pl.Schema(
    {
        **{name: PRODUCT_SCHEMA[name] for name in IDENTITY},
        "status": pl.String(),
        "error": pl.String(),
        "looked_up_at": pl.Datetime("us", "UTC"),
        "listed": pl.Struct({name: PRODUCT_SCHEMA[name] for name in LISTED}),
        **ENVELOPE_SCHEMA,
        **VIEW_SCHEMA,
    }
)
"""One row for each product of a product snapshot. Only `uuid` and `status` are never null."""

DETAIL_DESCRIPTIONS = {
    **{name: text for name, text in COLUMN_DESCRIPTIONS.items() if name in VIEW_SCHEMA},
    "uuid": COLUMN_DESCRIPTIONS["uuid"],
    "catalog_key": "The catalog the product belongs to, as in the product snapshot.",
    "product_url": "The product's page at the merchant, which was looked up.",
    "status": "found; gone: no catalog has the product any more; mismatch: its address leads to "
    "another product; failed: the lookup failed.",
    "error": "The reason for the status mismatch or failed.",
    "looked_up_at": "When the product was looked up (UTC).",
    "listed": "Values of the product snapshot, by which later changes of the product are noticed.",
    "catalog_display_name": COLUMN_DESCRIPTIONS["catalog_display_name"],
    "source_base_url": "The address of the merchant's site.",
    "source": "indexed, or where else the response of a product that is gone comes from; null in "
    "the seed generation.",
    "requested_url": "The address that was looked up, as the service read it.",
    "normalized_url": "The stable address of the product, to look it up again.",
    "resolved_url": "The address that the requested one leads to.",
    "canonical_url": "The address that the product's page names as its own.",
    "matched_via": "How the address was matched to the product.",
    "cache_status": "hit, miss or refresh, for a response from the merchant's page.",
    "resolution": "How the product was read, for a response from the merchant's page.",
    "warnings": "What the service warns of in its response.",
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
    "enrichment": "Data that Octogen adds: canonical brand, facets, attributes, summary. Its "
    "`category_path` leaves out the root, with which the column `category_path` begins.",
}
"""The description of each column of `DETAIL_SCHEMA`."""
