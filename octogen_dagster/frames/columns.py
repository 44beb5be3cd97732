"""The columns of snapshots and the types of their JSON, derived from the models of the responses.

A model says once which fields a response has. From it follow the Polars schema, the type that
Polars decodes JSON to, and a strict type of msgspec, which takes exactly the values that a column
holds without loss. The decoding is in `decode`.
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
"""The field of the column `listed` that stands for what else is listed."""
DIGESTED = ("brand", "category_path", "colors", "sizes", "currency", "images")
FOUND, GONE, MISMATCH, FAILED = "found", "gone", "mismatch", "failed"
"""The values of the column `status` of details."""
VIEW = "product"
"""The field of a lookup that has the full view."""

Convert = Callable[[list[Any]], list[Any]]
"""Returns values of a field, of which some are None, in the form that Polars decodes."""

TIME = pl.Datetime("us", "UTC")
"""The type of all times."""
_AwareTime = Annotated[datetime, msgspec.Meta(tz=True)]
_LIMITS = {1, 9999}  # years of which Python cannot represent each time in UTC


class JsonType(NamedTuple):
    """A type of JSON as each library knows it.

    Polars decodes JSON to `wire`, which is `dtype` with the names that fields have in JSON, and
    with texts for times.
    """

    dtype: pl.DataType  # of the column
    wire: pl.DataType
    kind: Any  # what msgspec decodes JSON to
    convert: Convert | None = None  # from what msgspec decoded to `wire`; None if it is that
    fields: Mapping[str, JsonType] = {}  # of the object, or of those in the list, by names in JSON


def _times(texts: list[str | None]) -> list[str | None]:
    with contextlib.suppress(msgspec.ValidationError):
        moments = msgspec.convert(texts, list[_AwareTime | None])
        if _LIMITS.isdisjoint(moment.year for moment in moments if moment):
            return texts
    return [text if text is None else _time(text) for text in texts]


def _time(text: str) -> str:
    moment = msgspec.convert(text, datetime)  # refuses February 30 and second 60
    if moment.tzinfo is None:
        return f"{text}Z"
    moment.astimezone(UTC)  # an OverflowError for the model, which warns and reads null
    return text


_INTEGER = (
    Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    # 12.0 is an integer in JSON, and Polars decodes it as one.
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
    """Return the type for the annotation of a model's field."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = _json_type(arguments[0])
        for validator in arguments[1:]:
            if isinstance(validator, BeforeValidator):  # an object that may come as a text
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
            # Only an absent `isActive` means something: true. It is made by a function because
            # msgspec does not write a value that equals a default.
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
    """The conversion of a field into one form: the path of its objects, its name and a function."""

    path: tuple[str, ...]
    field: str
    convert: Convert

    def apply(self, response: Any) -> None:
        """Convert the field in each object of a response."""
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
    """The columns of a snapshot, and how they come from a response."""

    model: type[BaseModel]  # of the response
    schema: pl.Schema
    response: JsonType
    rows: JsonType  # the part of the response whose fields are columns
    own: Collection[str]  # the columns that do not come from the response
    decoder: msgspec.json.Decoder[Any]  # strict; what it returns is not yet in one form
    conversions: Sequence[Conversion]  # bring it into one form


def unknown_fields(value: Any, fields: Mapping[str, JsonType], path: str = "") -> Iterator[str]:
    """Yield the path of each field that is none of these: "items.brand.founder"."""
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
    """Derive the table whose columns are these, by their descriptions.

    A column is one of `own`, a field of the response, or a field of the product (or of each
    product) in its field `rows`.
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
    "uuid": "The product's identity in Octogen.",
    "catalog_key": "The catalog the product belongs to; null if an older service was "
    "searched without naming a catalog.",
    "catalog_display_name": "The catalog's name, for people.",
    "product_url": "The product's page at the merchant.",
    "title": "Title as the merchant shows it.",
    "brand": "Brand as the merchant shows it; facets filter by a canonical one.",
    "current_price": "Price now, in `currency`.",
    "original_price": "Price before a reduction, in `currency`.",
    "currency": "ISO 4217 code of both prices.",
    "in_stock": "True if the merchant has it in stock.",
    "is_active": "True if the product is active in the index, which it is where the service does "
    "not say it; null if the service says that it does not know.",
    "gender": "male, female or unisex.",
    "category_path": "Categories from the widest to the narrowest. It begins with the root, such "
    "as Apparel & Accessories, which the `category_path` of the enrichment leaves out.",
    "colors": "Colours on offer.",
    "sizes": "Sizes on offer.",
    "image_url": "The main image's address.",
    "primary_image": "The main image with its dimensions.",
    "images": "All images; only `url` is certain.",
    "rating": "Average and number of ratings at the merchant.",
    "updated_at": "When the product changed last (UTC).",
    "display_match_score": "How well it matches the search, for display.",
    "raw_score": "The score it was ranked by.",
    "fetched_at": "When the read that this row is from began (UTC).",
}
"""The description of each column of `PRODUCT_SCHEMA`, in their order."""

PRODUCTS = table_of(MerchantProductListPage, "items", COLUMN_DESCRIPTIONS, {"fetched_at": TIME})
PRODUCT_SCHEMA = PRODUCTS.schema


def _of_products(*names: str) -> dict[str, str]:
    return {name: COLUMN_DESCRIPTIONS[name] for name in names}


DETAIL_DESCRIPTIONS: Mapping[str, str] = {
    **_of_products("uuid"),
    "catalog_key": "The catalog the product belongs to, as in the product snapshot.",
    "product_url": "The product's page at the merchant, which was looked up.",
    "status": "found; gone: no catalog has the product any more; mismatch: its address leads to "
    "another product; failed: the lookup failed.",
    "error": "The reason for the status mismatch or failed.",
    "looked_up_at": "When the product was looked up (UTC).",
    "listed": "Values of the product snapshot, by which later changes of the product are noticed. "
    "`digest` stands for brand, categories, colours, sizes, currency and images.",
    **_of_products("catalog_display_name"),
    "source_base_url": "The address of the merchant's site.",
    "source": "indexed, or where else the response of a product that is gone comes from; null in "
    "answers of an older service.",
    "requested_url": "The address that was looked up, as the service read it.",
    "normalized_url": "The stable address of the product, to look it up again and to join by.",
    "resolved_url": "The address that the requested one leads to.",
    "canonical_url": "The address that the product's page names as its own; null for products of "
    "the index since August 2026, so join by `normalized_url`.",
    "matched_via": "How the address was matched to the product.",
    "cache_status": "hit, miss or refresh, for a response from the merchant's page.",
    "resolution": "How the product was read, for a response from the merchant's page.",
    "warnings": "What the service warns of in its response.",
    **_of_products("title", "brand", "current_price", "original_price", "image_url", "images"),
    **_of_products("rating", "updated_at", "is_active", "category_path"),
    "colors": "Colours on offer, with swatches.",
    **_of_products("sizes", "currency", "gender", "in_stock", "primary_image"),
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
"""The description of each column of `DETAIL_SCHEMA`, in their order."""

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
"""One row for each product of a product snapshot. Only `uuid` and `status` are never null."""


def evolved(frame: pl.LazyFrame, schema: pl.Schema) -> tuple[pl.LazyFrame, list[str]]:
    """Return the rows of another version's frame in a schema, and the paths of what it lacks.

    What it lacks is null. Rows with a value that does not cast are left out, and a column of
    another type that has fields is a ValueError.
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
        raise ValueError(f"its column {path} is {before}, and {dtype} in this version.")
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
