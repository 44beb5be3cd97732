"""Decodes search pages and lookups: msgspec validates and normalizes them, Polars reads the result.

Polars silently accepts JSON values that do not match the schema, and loses data: 5 for a string,
2.5 for an integer, a scalar for a list, or a duplicate field. Therefore, msgspec decodes each
response strictly. It then re-encodes the known fields in a uniform format for Polars.
"""

from __future__ import annotations

import functools
import itertools
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import polars as pl
from pydantic_core import from_json

from octogen_dagster.api.responses import invalid_body, parsed
from octogen_dagster.frames.columns import (
    FOUND,
    LOOKUPS,
    PRODUCT_SCHEMA,
    PRODUCTS,
    VIEW,
    JsonType,
    Table,
    unknown_fields,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from octogen_dagster.api.http import Response
    from octogen_dagster.frames.effective_query import EffectiveQuery

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError)
_IMAGES = "images"
_MAX_UNKNOWN = 100  # field names; an object keyed by IDs would add one for each product
_encoder = msgspec.json.Encoder()
_T = TypeVar("_T")


# Pages saved by a version with other fields have another format and are not decoded.
_FORMAT = zlib.crc32(repr(PRODUCTS.rows.wire).encode())


class ProductPage(msgspec.Struct, array_like=True, tag=_FORMAT, gc=False):
    """A validated page of search results."""

    uuids: list[str]  # the products' IDs, in order
    next_cursor: str | None  # None on the last page
    request_id: str | None
    items: bytes  # the products as JSON, which Polars decodes
    unknown: dict[str, int]  # the number of unknown fields by path; counted only on page 1
    query: bytes | None  # the effective query as JSON; None from older services
    images_are_text: bool  # True if all images are URLs, as in the older API contract

    @property
    def effective_query(self) -> EffectiveQuery | None:
        """The search as interpreted by the service; decoded on each access."""
        try:
            query = msgspec.json.decode(self.query or b"null")
        except _UNREADABLE:
            return None
        return query if isinstance(query, dict) else None


def read_page(response: Response, subject: str, *, is_first: bool = False) -> ProductPage:
    """Validate a search response. Error messages name the product and the field."""
    page, images_are_text = _checked(PRODUCTS, _parsed_page, response, subject)
    return ProductPage(
        uuids=[item.uuid for item in page.items],
        next_cursor=page.nextCursor,
        request_id=response.headers.get("x-request-id"),
        items=_encoder.encode(page.items),
        unknown=_unknown_fields(PRODUCTS, response.content) if is_first else {},
        query=None if page.effectiveQuery is None else bytes(page.effectiveQuery),
        images_are_text=images_are_text,
    )


def _parsed_page(content: bytes) -> tuple[Any, bool]:
    """Return a pair: the normalized page, and True if every image on the page is a string.

    Images that are strings are half as expensive to process as image objects.
    """
    page = PRODUCTS.decoder.decode(content)
    are_text = all(type(image) is str for item in page.items for image in item.images or ())
    for conversion in PRODUCTS.conversions:
        if not (are_text and conversion.field == _IMAGES):
            conversion.apply(page)
    return page, are_text


class CheckedLookup(msgspec.Struct, frozen=True, gc=False):
    """A validated lookup response."""

    uuid: str | None
    source: str | None  # where the product comes from
    content: bytes  # the response as JSON, which Polars decodes
    unknown: Mapping[str, int]  # unknown fields by path


def read_lookup(response: Response, subject: str) -> CheckedLookup:
    """Validate a lookup response. Error messages contain the field."""
    lookup = _checked(LOOKUPS, _parsed_lookup, response, subject)
    unknown = _unknown_fields(LOOKUPS, response.content)
    return CheckedLookup(lookup.product.uuid, lookup.source, _encoder.encode(lookup), unknown)


def _parsed_lookup(content: bytes) -> Any:
    lookup = LOOKUPS.decoder.decode(content)
    for conversion in LOOKUPS.conversions:
        conversion.apply(lookup)
    return lookup


def _checked(table: Table, parse: Callable[[bytes], _T], response: Response, subject: str) -> _T:
    """Parse a response strictly or, if this fails, with its model.

    The model is more lenient: for example, it converts the string "12.5" to a price.
    """
    try:
        return parse(response.content)
    except _UNREADABLE:
        model = parsed(table.model, response, subject)  # its errors contain product and field
    try:
        return parse(model.model_dump_json(by_alias=True).encode())
    except _UNREADABLE as error:
        problem = str(error)
    raise invalid_body(response, subject, f"a body that cannot be decoded: {problem}")


def _unknown_fields(table: Table, content: bytes) -> dict[str, int]:
    try:
        unknown = unknown_fields(from_json(content), table.response.fields)
        return dict(Counter(unknown).most_common(_MAX_UNKNOWN))
    except ValueError:  # an unread field is not UTF-8
        return {}


def product_frame(
    pages: Sequence[ProductPage],
    columns: Collection[str],
    catalog: str | None,
    fetched_at: datetime,
) -> pl.DataFrame:
    """Decode one catalog's pages into products, in order and with duplicates."""
    names = tuple(name for name in PRODUCT_SCHEMA if name in {"uuid", *columns})
    frames: list[pl.DataFrame] = []
    for images_are_text, run in itertools.groupby(pages, lambda page: page.images_are_text):
        items, values = _products(names, catalog, fetched_at, images_are_text)
        frame = pl.LazyFrame({"items": [page.items for page in run]}, schema={"items": pl.Binary})
        query = frame.select(items).unnest("items").select(values)
        frames.append(query.collect(engine="in-memory"))  # uses less CPU for so few rows
    if not frames:
        return pl.DataFrame(schema={name: PRODUCT_SCHEMA[name] for name in names})
    return pl.concat(frames)


@functools.lru_cache(maxsize=32)
def _products(
    names: tuple[str, ...], catalog: str | None, fetched_at: datetime, images_are_text: bool
) -> tuple[pl.Expr, list[pl.Expr]]:
    """Return a pair: the expression that decodes a page, and a list of column expressions."""
    fields = _fields(PRODUCTS.rows, names)
    if images_are_text:
        text = pl.Field(_IMAGES, pl.List(pl.String))
        fields = [(text if column.name == _IMAGES else field, column) for field, column in fields]
    dtype = pl.List(pl.Struct([field for field, _ in fields]))
    values = {
        column.name: _column(pl.col(field.name), field.dtype, column.dtype)
        for field, column in fields
    }
    values["fetched_at"] = pl.lit(fetched_at, dtype=PRODUCT_SCHEMA["fetched_at"])
    if "catalog_key" in values:
        named = pl.lit(catalog, dtype=pl.String)
        values["catalog_key"] = pl.coalesce(values["catalog_key"], named)
    items = pl.col("items").cast(pl.String).str.json_decode(dtype).explode(empty_as_null=False)
    return items, [values[name].alias(name) for name in names]


def with_details(rows: pl.DataFrame) -> pl.DataFrame:
    """Replace the `lookup` column (responses as JSON) with the columns decoded from it."""
    lookup = pl.col("lookup")
    wire, columns, view_columns = _lookups()
    view_of_found = pl.when(pl.col("status") == FOUND).then(lookup.struct.field(VIEW))
    return (
        rows.with_columns(lookup.cast(pl.String).str.json_decode(wire))
        .with_columns(view_of_found.alias(VIEW))
        .with_columns(*columns, *view_columns)
        .drop("lookup", VIEW)
    )


@functools.cache
def _lookups() -> tuple[pl.Struct, list[pl.Expr], list[pl.Expr]]:
    """Return the JSON type of a lookup, its top-level columns, and the columns of its product."""
    names = LOOKUPS.schema.keys() - LOOKUPS.own
    envelope = _fields(LOOKUPS.response, names)
    view = _fields(LOOKUPS.rows, names - {column.name for _, column in envelope})
    of_view = pl.Struct([field for field, _ in view])
    wire = pl.Struct([*(field for field, _ in envelope), pl.Field(VIEW, of_view)])
    columns, view_columns = (
        [
            _column(of.struct.field(field.name), field.dtype, column.dtype).alias(column.name)
            for field, column in fields
        ]
        for of, fields in ((pl.col("lookup"), envelope), (pl.col(VIEW), view))
    )
    return wire, columns, view_columns


_Fields = list[tuple[pl.Field, pl.Field]]


def _fields(of: JsonType, names: Collection[str]) -> _Fields:
    """Return a pair for each column in `names`: the JSON field and the column."""
    wire: Any
    dtype: Any
    wire, dtype = (getattr(each, "inner", each) for each in (of.wire, of.dtype))
    pairs = zip(wire.fields, dtype.fields, strict=True)
    return [(field, column) for field, column in pairs if column.name in names]


def _column(value: pl.Expr, wire: Any, dtype: Any) -> pl.Expr:
    """Convert a decoded value to a column's type: rename nested fields, and parse strings."""
    if wire == dtype:
        return value
    if isinstance(dtype, pl.Datetime):
        return value.str.to_datetime("%+", time_unit="us", time_zone="UTC")
    if wire == pl.String:  # a string in place of an object
        first, *others = dtype.fields
        nulls = (pl.lit(None, dtype=each.dtype).alias(each.name) for each in others)
        return pl.struct(value.alias(first.name), *nulls)
    if isinstance(wire, pl.List):
        return value.list.eval(_column(pl.element(), wire.inner, dtype.inner))
    inner = [
        _column(pl.field(field.name), field.dtype, named.dtype)
        for field, named in zip(wire.fields, dtype.fields, strict=True)
        if field.dtype != named.dtype
    ]
    renamed = value.struct.with_fields(*inner) if inner else value
    return renamed.struct.rename_fields([field.name for field in dtype.fields])
