"""WirePage: the JSON of a search page, checked before Polars decodes it.

Without an error, Polars decodes 5 as text, 2.5 as an integer and a single value as a list, and
drops fields that it does not know. So msgspec checks the types of each page strictly first.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import polars as pl
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

from octogen_dagster.api.models import MerchantProductListPage
from octogen_dagster.api.responses import parsed
from octogen_dagster.frames.schema import COLUMNS, IMAGE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from octogen_dagster.api.http import Response
    from octogen_dagster.frames.effective_query import EffectiveQuery

_Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_SCALARS: Mapping[type[pl.DataType], Any] = {
    pl.String: str,
    pl.Float64: float,
    pl.Int64: _Integer,
    pl.Boolean: bool,
    pl.Datetime: str,
}
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_PAGE_FIELDS = {"items", "nextCursor", "requestId", "effectiveQuery"}


def _strict(dtype: pl.DataType, *, known_only: bool) -> Any:
    """Return the msgspec type that accepts exactly the values that `dtype` holds without loss."""
    match dtype:
        case pl.Struct():
            required = IMAGE.fields[:1] if dtype == IMAGE else []
            fields = [
                _field(field.name, _instance(field.dtype), field in required, known_only)
                for field in dtype.fields
            ]
            return _struct("Part", fields, known_only)
        case pl.List(inner=inner):
            kind: Any = _strict(_instance(inner), known_only=known_only)
            # The seed generation sends an image as its URL alone.
            return list.__class_getitem__(kind | str if inner == IMAGE else kind)
        case _:
            return _SCALARS[type(dtype)]


def _field(name: str, dtype: pl.DataType, required: bool, known_only: bool) -> tuple[Any, ...]:
    kind = _strict(dtype, known_only=known_only)
    return (to_camel(name), kind) if required else (to_camel(name), kind | None, None)


def _struct(name: str, fields: list[tuple[Any, ...]], known_only: bool) -> Any:
    return msgspec.defstruct(
        name, sorted(fields, key=len), forbid_unknown_fields=known_only, gc=False
    )


def _instance(dtype: Any) -> pl.DataType:
    instance: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return instance


def _page_decoder(*, known_only: bool) -> msgspec.json.Decoder[Any]:
    item = _struct(
        "Item",
        [
            _field(column.name, column.dtype, column.required, known_only)
            for column in COLUMNS
            if column.from_service
        ],
        known_only,
    )
    fields: list[tuple[Any, ...]] = [
        ("items", list.__class_getitem__(item)),
        ("nextCursor", str | None, None),
        *((name, Any, None) for name in _PAGE_FIELDS - {"items", "nextCursor"}),
    ]
    return msgspec.json.Decoder(_struct("Page", fields, known_only))


_known_page = _page_decoder(known_only=True)
_any_page = _page_decoder(known_only=False)
_effective_query: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    _struct("Page", [("effectiveQuery", Any, None)], known_only=False)
)


class WirePage(msgspec.Struct, gc=False):
    """A search page that was checked.

    Attributes:
        response: The response of the service.
        uuids: The uuids of its products, in order.
        next_cursor: The cursor of the next page; None on the last one.
        images_are_text: True if images are URLs, False if they are objects; None without images.
        unknown: How often each field occurs that the schema does not know, by path.
        model: The page as parsed by the pydantic models; None if Polars can decode the page.
    """

    response: Response
    uuids: list[str]
    next_cursor: str | None
    images_are_text: bool | None = None
    unknown: Counter[str] = msgspec.field(default_factory=Counter)
    model: MerchantProductListPage | None = None

    @property
    def request_id(self) -> str | None:
        """The `x-request-id` of the response."""
        request_id: str | None = self.response.headers.get("x-request-id")
        return request_id

    @property
    def effective_query(self) -> EffectiveQuery | None:
        """What the service says it searched for; decoded anew in each call."""
        try:
            query = _effective_query.decode(self.response.content).effectiveQuery
        except _UNREADABLE:
            return None
        return query if isinstance(query, dict) else None


def read_page(response: Response, subject: str) -> WirePage:
    """Check the types of a page strictly, and count the fields that the schema does not know.

    A page that fails the check is parsed by the pydantic models, which normalise or refuse it.

    Args:
        response: The response to a search.
        subject: What was read; begins error messages.

    Raises:
        OctogenResponseError: The body is not a page of products; the message names the product and
            the field.
    """
    unknown: Counter[str] = Counter()
    try:
        page = _known_page.decode(response.content)
    except _UNREADABLE:
        try:
            page = _any_page.decode(response.content)
        except _UNREADABLE:
            return _page_by_models(response, subject)
        unknown = unknown_fields(response.content)
    uuids = [item.uuid for item in page.items]
    if not all(uuids):
        return _page_by_models(response, subject)
    first_image = next((item.images[0] for item in page.items if item.images), None)
    return WirePage(
        response,
        uuids,
        page.nextCursor,
        images_are_text=None if first_image is None else type(first_image) is str,
        unknown=unknown,
    )


def _page_by_models(response: Response, subject: str) -> WirePage:
    model = parsed(MerchantProductListPage, response, subject)
    unknown = unknown_fields(response.content)
    return WirePage(response, model.uuids, model.next_cursor, unknown=unknown, model=model)


def unknown_fields(content: bytes) -> Counter[str]:
    """Count the fields of a page that the schema does not know, by path: `items.brand.founder`."""
    unknown: Counter[str] = Counter()
    try:
        page = from_json(content)
    except ValueError:  # a field is nested more deeply than the parser allows
        return Counter({"(nested too deeply)": 1})
    if not isinstance(page, dict):
        return unknown
    unknown.update(page.keys() - _PAGE_FIELDS)
    items = page.get("items")
    schema = pl.Struct({column.field: column.dtype for column in COLUMNS if column.from_service})
    _count_unknown(items, pl.List(schema), "items", unknown)
    return unknown


def _count_unknown(value: Any, dtype: pl.DataType, path: str, unknown: Counter[str]) -> None:
    if isinstance(value, list) and isinstance(dtype, pl.List):
        for entry in value:
            _count_unknown(entry, _instance(dtype.inner), path, unknown)
    elif isinstance(value, dict) and isinstance(dtype, pl.Struct):
        known = {to_camel(field.name): _instance(field.dtype) for field in dtype.fields}
        for name, inner in value.items():
            if name in known:
                _count_unknown(inner, known[name], f"{path}.{name}", unknown)
            else:
                unknown[f"{path}.{name}"] += 1


def wire_dtype(columns: Collection[str], *, images_are_text: bool) -> pl.Struct:
    """Return the Polars type that a page is decoded to.

    Args:
        columns: The snapshot columns to decode.
        images_are_text: True if the page has images as URLs.
    """
    item = {
        column.field: _wire(column.dtype, text=column.name == "images" and images_are_text)
        for column in COLUMNS
        if column.from_service and column.name in columns
    }
    return pl.Struct({"items": pl.List(pl.Struct(item))})


def _wire(dtype: pl.DataType, *, text: bool = False) -> pl.DataType:
    match dtype:
        case pl.Struct():
            return pl.Struct(
                {to_camel(field.name): _wire(_instance(field.dtype)) for field in dtype.fields}
            )
        case pl.List():
            return pl.List(pl.String) if text else pl.List(_wire(_instance(dtype.inner)))
        case pl.Datetime():
            return pl.String()
        case _:
            return dtype
