"""Derives the columns of snapshots, and their JSON types, from the API's response models.

Each response's fields are defined once, in its model. From the model, this module derives the
Polars schema, the type to which Polars decodes JSON, and a strict msgspec type. The msgspec type
accepts exactly the values that a column can hold without loss. `decode` decodes the responses.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec
import polars as pl
from pydantic import BaseModel, BeforeValidator

from octogen_dagster.api.models import MerchantProductListPage, MerchantProductUrlLookupResponse

SCHEMA_VERSION = 1
DETAIL_SCHEMA_VERSION = 3

IDENTITY = ("uuid", "catalog_key", "product_url")
LISTED = ("title", "current_price", "original_price", "in_stock", "is_active", "updated_at")
DIGEST = "digest"
"""The field in the `listed` column that contains a hash of the `DIGESTED` columns."""
DIGESTED = ("brand", "category_path", "colors", "sizes", "currency", "images")
FOUND, GONE, MISMATCH, FAILED = "found", "gone", "mismatch", "failed"
"""The `status` values in product details."""
VIEW = "product"
"""The field in a lookup response that contains the full product."""

Convert = Callable[[list[Any]], list[Any]]
"""Converts all values of a field, including None, to values that Polars can decode."""

TIME = pl.Datetime("us", "UTC")
"""The type for all times."""
_AwareTime = Annotated[datetime, msgspec.Meta(tz=True)]
_LIMITS = {1, 9999}  # Python cannot represent every time in these years in UTC


class JsonType(NamedTuple):
    """The Polars and msgspec types for one JSON type.

    `wire` is the Polars type to which the JSON is decoded. It is `dtype` with the JSON field names,
    and with strings instead of times.
    """

    dtype: pl.DataType  # the column's type
    wire: pl.DataType
    kind: Any  # the type to which msgspec decodes JSON
    convert: Convert | None = None  # from msgspec's values to `wire`; None if they match
    fields: Mapping[str, JsonType] = {}  # an object's or list's fields, by JSON name


def _times(texts: list[str | None]) -> list[str | None]:
    with contextlib.suppress(msgspec.ValidationError):
        moments = msgspec.convert(texts, list[_AwareTime | None])
        if _LIMITS.isdisjoint(moment.year for moment in moments if moment):
            return texts
    return [text if text is None else _time(text) for text in texts]


def _time(text: str) -> str:
    moment = msgspec.convert(text, datetime)  # rejects February 30 and second 60
    if moment.tzinfo is None:
        return f"{text}Z"
    moment.astimezone(UTC)  # the model catches OverflowError, warns and reads null
    return text


_INTEGER = (
    Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    # JSON treats 12.0 as an integer, and Polars decodes it as one.
    | Annotated[float, msgspec.Meta(ge=-(2.0**63), lt=2.0**63, multiple_of=1)]
)
_SCALARS: Mapping[Any, JsonType] = {
    str: JsonType(pl.String(), pl.String(), str),
    int: JsonType(pl.Int64(), pl.Int64(), _INTEGER),
    float: JsonType(pl.Float64(), pl.Float64(), float),
    bool: JsonType(pl.Boolean(), pl.Boolean(), bool),
    datetime: JsonType(TIME, pl.String(), str, _times),
    Any: JsonType(pl.String(), pl.String(), msgspec.Raw),
}


def _json_type(annotation: Any) -> JsonType:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = _json_type(arguments[0])
        for validator in arguments[1:]:
            if isinstance(validator, BeforeValidator):  # an object that can arrive as a string
                convert = partial(_objects_of_texts, validator.func)
                return inner._replace(kind=inner.kind | str, convert=convert)
        return inner
    if origin in (Union, UnionType):
        (of_value,) = set(arguments) - {type(None)}
        inner = _json_type(of_value)
        return inner._replace(kind=inner.kind | None)
    if origin is list:
        of = _json_type(arguments[0])
        kind = list.__class_getitem__(of.kind)
        of_lists = partial(_of_lists, of.convert) if of.convert else None
        return JsonType(pl.List(of.dtype), pl.List(of.wire), kind, of_lists, of.fields)
    if origin is dict:
        values = _json_type(arguments[1]).dtype
        pairs = pl.List(pl.Struct({"name": pl.String(), "values": values}))
        return JsonType(pairs, pairs, annotation, _names_and_values)
    return _SCALARS[annotation] if annotation in _SCALARS else _object(annotation)


def _object(model: type[BaseModel]) -> JsonType:
    fields: dict[str, JsonType] = {}
    members: list[tuple[Any, ...]] = []
    for name, described in model.model_fields.items():
        in_json = described.alias or name
        field = fields[in_json] = _json_type(described.annotation)
        kind = field.kind
        if any(getattr(limit, "min_length", None) for limit in described.metadata):
            kind = Annotated[kind, msgspec.Meta(min_length=1)]
        if described.is_required():
            members.append((in_json, kind))
        elif described.default is None:
            members.append((in_json, kind, None))
        else:
            # Only a missing `isActive` has a meaning: true. The default is a factory because
            # msgspec does not write values that equal a default.
            members.append((in_json, kind, msgspec.field(default_factory=lambda: True)))
    names = zip(model.model_fields, fields.values(), strict=True)
    return JsonType(
        pl.Struct({name: field.dtype for name, field in names}),
        pl.Struct({name: field.wire for name, field in fields.items()}),
        msgspec.defstruct(model.__name__, members, omit_defaults=True, kw_only=True, gc=False),
        fields=fields,
    )


def _objects_of_texts(validate: Callable[..., Any], values: list[Any]) -> list[Any]:
    if str not in map(type, values):
        return values
    return [validate(value) if type(value) is str else value for value in values]


def _of_lists(convert: Convert, lists: list[list[Any] | None]) -> list[Any]:
    flat = [value for values in lists if values for value in values]
    converted = convert(flat)
    if converted is flat:
        return lists
    rest = iter(converted)
    return [values and list(itertools.islice(rest, len(values))) for values in lists]


def _names_and_values(objects: list[Mapping[str, Any] | None]) -> list[Any]:
    return [
        None if each is None else [{"name": name, "values": each[name]} for name in each]
        for each in objects
    ]


class Conversion(NamedTuple):
    """Converts the values of one field. `path` leads to the objects that contain the field."""

    path: tuple[str, ...]
    field: str
    convert: Convert

    def apply(self, response: Any) -> None:
        """Convert all values of the field in a response."""
        objects = [response]
        for name in self.path:
            values = [getattr(each, name) for each in objects]
            objects = [inner for value in values for inner in _listed(value)]
        values = [getattr(each, self.field) for each in objects]
        converted = self.convert(values)
        if converted is not values:
            for each, value in zip(objects, converted, strict=True):
                setattr(each, self.field, value)


def _listed(value: Any) -> Sequence[Any]:
    if type(value) is list:
        return value
    return () if value is None else (value,)


def _conversions(
    fields: Mapping[str, JsonType], path: tuple[str, ...] = ()
) -> Iterator[Conversion]:
    for name, field in fields.items():
        if field.convert:
            yield Conversion(path, name, field.convert)
        yield from _conversions(field.fields, (*path, name))


class Table(NamedTuple):
    """A table's columns, and a decoder that reads their values from responses."""

    model: type[BaseModel]  # the response
    schema: pl.Schema
    response: JsonType
    rows: JsonType  # the response part whose fields become columns
    own: Collection[str]  # columns that do not come from the response
    decoder: msgspec.json.Decoder[Any]  # strict; `conversions` then unify its values
    conversions: Sequence[Conversion]  # applied to the decoder's result


def unknown_fields(value: Any, fields: Mapping[str, JsonType], path: str = "") -> Iterator[str]:
    """Yield the path of each field that is not in `fields`, such as "items.brand.founder"."""
    if isinstance(value, list):
        for entry in value:
            yield from unknown_fields(entry, fields, path)
    elif isinstance(value, dict):
        for name, inner in value.items():
            field = fields.get(name)
            if field is None:
                yield f"{path}{name}"
            elif field.fields:
                yield from unknown_fields(inner, field.fields, f"{path}{name}.")


def table_of(
    model: type[BaseModel],
    rows: str,
    columns: Mapping[str, str],
    own: Mapping[str, pl.DataType],
) -> Table:
    """Derive a table from its column descriptions.

    Each column is in `own`, or it is a field of the response, or of the products in the response's
    field `rows`.
    """
    response = _object(model)
    types: dict[str, pl.DataType] = {}
    for dtype in (response.fields[rows].dtype, response.dtype):
        struct: Any = dtype.inner if isinstance(dtype, pl.List) else dtype
        types |= {field.name: field.dtype for field in struct.fields}
    types |= own
    schema = pl.Schema({name: types[name] for name in columns})
    decoder = msgspec.json.Decoder(response.kind)
    conversions = [*_conversions(response.fields)]
    return Table(model, schema, response, response.fields[rows], set(own), decoder, conversions)


COLUMN_DESCRIPTIONS: Mapping[str, str] = {
    "uuid": "The product's ID in Octogen.",
    "catalog_key": "The key of the product's catalog. Null if the service uses the older API "
    "contract and the search does not specify catalogs.",
    "catalog_display_name": "The catalog's display name.",
    "product_url": "The product's URL at the merchant.",
    "title": "Title as the merchant shows it.",
    "brand": "Brand as the merchant shows it. Facets filter by the canonical brand instead.",
    "current_price": "Current price, in `currency`.",
    "original_price": "Price before a discount, in `currency`.",
    "currency": "ISO 4217 code for both prices.",
    "in_stock": "True if the merchant has the product in stock.",
    "is_active": "True if the product is active in the index, or if the service sends no value. "
    "Null if the service reports the status as unknown.",
    "gender": "male, female or unisex.",
    "category_path": "Categories from broadest to narrowest, starting with the root, such as "
    "Apparel & Accessories. The `category_path` in the enrichment omits the root.",
    "colors": "Available colors.",
    "sizes": "Available sizes.",
    "image_url": "URL of the main image.",
    "primary_image": "The main image with its dimensions.",
    "images": "All images; only `url` is always set.",
    "rating": "Average rating and number of ratings on the merchant's site.",
    "updated_at": "When the product last changed, in UTC.",
    "display_match_score": "Search match score for display.",
    "raw_score": "Score used for ranking.",
    "fetched_at": "Start time of the read that returned this row, in UTC.",
}
"""Column descriptions for `PRODUCT_SCHEMA`, in order."""

PRODUCTS = table_of(MerchantProductListPage, "items", COLUMN_DESCRIPTIONS, {"fetched_at": TIME})
PRODUCT_SCHEMA = PRODUCTS.schema


def _of_products(*names: str) -> dict[str, str]:
    return {name: COLUMN_DESCRIPTIONS[name] for name in names}


DETAIL_DESCRIPTIONS: Mapping[str, str] = {
    **_of_products("uuid"),
    "catalog_key": "The key of the product's catalog, as in the product snapshot.",
    "product_url": "The URL that was looked up.",
    "status": "found, gone (no catalog contains the product anymore), mismatch (the URL leads to a "
    "different product) or failed (the lookup failed).",
    "error": "The reason, if the status is mismatch or failed.",
    "looked_up_at": "When the product was looked up, in UTC.",
    "listed": "Values from the product snapshot, used to detect later changes. `digest` is a hash "
    "of the brand, categories, colors, sizes, currency and images.",
    **_of_products("catalog_display_name"),
    "source_base_url": "URL of the merchant's site.",
    "source": "Where the service found the product: indexed if a catalog contains it, or another "
    "source if the product is gone. Null if the service uses the older API contract.",
    "requested_url": "The URL that was looked up, as returned by the service.",
    "normalized_url": "Stable product URL for lookups and joins.",
    "resolved_url": "The final URL to which the requested URL leads.",
    "canonical_url": "The canonical URL given on the product's page. Since August 2026, it is null "
    "for indexed products, so use `normalized_url` for joins.",
    "matched_via": "How the URL was matched to the product.",
    "cache_status": "Result of the service's cache lookup (hit, miss or refresh), if the response "
    "comes from the merchant's page.",
    "resolution": "How the product was read, if the response comes from the merchant's page.",
    "warnings": "Warnings in the service's response.",
    **_of_products("title", "brand", "current_price", "original_price", "image_url", "images"),
    **_of_products("rating", "updated_at", "is_active", "category_path"),
    "colors": "Available colors, with swatches.",
    **_of_products("sizes", "currency", "gender", "in_stock", "primary_image"),
    "description": "Description as the merchant shows it.",
    "categories": "Categories on the merchant's site.",
    "tags": "Tags on the merchant's site.",
    "variants": "Available variants, with color, size and stock.",
    "details": "Materials, fit, dimensions and patterns.",
    "audience": "Target genders and age groups.",
    "identifiers": "Merchant and industry identifiers.",
    "breadcrumbs": "The product's category path on the merchant's site, broadest category first.",
    "promotions": "Promotions that apply.",
    "reviews": "Reviews on the merchant's site.",
    "videos": "Product videos.",
    "enrichment": "Data added by Octogen: canonical brand, facets, attributes and summary. The "
    "`category_path` in the enrichment omits the root.",
}
"""Column descriptions for `DETAIL_SCHEMA`, in order."""

LOOKUPS = table_of(
    MerchantProductUrlLookupResponse,
    VIEW,
    DETAIL_DESCRIPTIONS,
    {
        **{name: PRODUCT_SCHEMA[name] for name in IDENTITY},
        "status": pl.String(),
        "error": pl.String(),
        "looked_up_at": TIME,
        "listed": pl.Struct(
            {**{name: PRODUCT_SCHEMA[name] for name in LISTED}, DIGEST: pl.UInt64()}
        ),
    },
)
DETAIL_SCHEMA = LOOKUPS.schema
"""One row for each product in a product snapshot.

All columns except `uuid` and `status` can be null.
"""


def evolved(frame: pl.LazyFrame, schema: pl.Schema) -> tuple[pl.LazyFrame, list[str]]:
    """Cast a frame to `schema`, which might have changed since the frame was stored.

    Columns and fields that the frame lacks become null, and their paths are returned. Rows with a
    value that cannot be cast are dropped.

    Raises:
        ValueError: A nested column has a different type.
    """
    before, lacking = frame.collect_schema(), list[str]()
    columns, casts = list[pl.Expr](), list[pl.Expr]()
    for name, dtype in schema.items():
        column = pl.col(name)
        if name not in before:
            lacking.append(name)
            column = pl.lit(None, dtype)
        elif not (dtype.is_nested() or before[name].is_nested()):
            cast = column.cast(dtype, strict=False)
            casts.append(column.is_null() | cast.is_not_null())
            column = cast
        else:
            column = _evolved(column, before[name], dtype, name, lacking)
        columns.append(column.alias(name))
    return frame.filter(*casts).select(columns), lacking


def _evolved(value: pl.Expr, before: Any, dtype: Any, path: str, lacking: list[str]) -> pl.Expr:
    if before == dtype:
        return value
    if isinstance(before, pl.List) and isinstance(dtype, pl.List):
        inner = _evolved(pl.element(), before.inner, dtype.inner, path, lacking)
        return value.list.eval(inner)
    if not (isinstance(before, pl.Struct) and isinstance(dtype, pl.Struct)):
        raise ValueError(
            f"its column {path} has the type {before}, but this version needs {dtype}."
        )
    known = before.to_schema()
    fields = []
    for name, field in dtype.to_schema().items():
        if name in known:
            of = value.struct.field(name)
            fields.append(_evolved(of, known[name], field, f"{path}.{name}", lacking).alias(name))
        else:
            lacking.append(f"{path}.{name}")
            fields.append(pl.lit(None, field).alias(name))
    return pl.when(value.is_not_null()).then(pl.struct(fields))
