"""WirePage: a search page whose JSON was checked and brought into one form for Polars.

Polars decodes JSON without an error where it loses data: 5 as text, 2.5 as an integer, a single
value as a list, the first of two fields of one name. So msgspec decodes each page strictly, and
Polars decodes what was checked, as msgspec writes it: known fields only, images in one form.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
from pydantic import ValidationError

from octogen_dagster.api.models import MerchantProductListPage
from octogen_dagster.api.responses import invalid_body, parsed
from octogen_dagster.frames.lax_values import convert_page, image_objects, utc_datetimes
from octogen_dagster.frames.page_parser import PageParser
from octogen_dagster.frames.page_types import instance, json_fields
from octogen_dagster.frames.schema import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Collection

    from octogen_dagster.api.http import Response
    from octogen_dagster.frames.effective_query import EffectiveQuery

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_strict_parser = PageParser(strict=True)
_lax_parser = PageParser(strict=False)
_encoder = msgspec.json.Encoder()
_MAX_PRODUCTS = 500  # Polars takes some 15 times the memory of the JSON while it decodes
_effective_query: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    msgspec.defstruct("Page", [("effectiveQuery", Any, None)])
)


class WirePage(msgspec.Struct, gc=False):
    """A search page that was checked.

    Attributes:
        response: The response of the service.
        uuids: The uuids of its products, in order.
        next_cursor: The cursor of the next page; None on the last one.
        items: The JSON of its products, which Polars decodes: lists of at most 500 products.
        images_are_text: True if images are URLs, False if they are objects; None without images.
        unknown: How often each field occurs that the schema does not know, by path.
    """

    response: Response
    uuids: list[str]
    next_cursor: str | None
    items: list[bytes] = []
    images_are_text: bool | None = None
    unknown: Counter[str] = msgspec.field(default_factory=Counter)

    @property
    def size(self) -> int:
        """The bytes of JSON that it holds: the response, and the products for Polars."""
        return len(self.response.content) + sum(map(len, self.items))

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
    """Check a page, and count the fields that the schema does not know.

    Args:
        response: The response to a search.
        subject: What was read; begins error messages.

    Raises:
        OctogenResponseError: The body is not a page of products; the message names the product and
            the field.
    """
    try:
        page, unknown = _parsed(response.content)
        items = _items(page)
        uuids = [item.uuid for item in items]
        if not all(uuids):
            raise msgspec.ValidationError("a product has no uuid")
        _check_times(items)
    except (*_UNREADABLE, ValidationError) as error:
        problem = error
    else:
        return WirePage(
            response,
            uuids,
            page.nextCursor,
            images_are_text=_unify_images(items),
            items=[
                _encoder.encode(items[begin : begin + _MAX_PRODUCTS])
                for begin in range(0, len(items), _MAX_PRODUCTS)
            ],
            unknown=unknown,
        )
    parsed(MerchantProductListPage, response, subject)  # its error names the product and the field
    raise invalid_body(response, subject, f"a body that cannot be decoded: {problem}")


def _parsed(content: bytes) -> tuple[Any, Counter[str]]:
    try:
        return _strict_parser.parse(content)
    except msgspec.ValidationError:
        page, unknown = _lax_parser.parse(content)
        convert_page(page)
        return page, unknown


def _items(page: Any) -> list[Any]:
    """Return the products of a page. The current generation may leave out `items` or send null."""
    if page.items is msgspec.UNSET and page.effectiveQuery is msgspec.UNSET:
        raise msgspec.ValidationError("an object with neither is no page, and no empty catalog")
    return page.items or []


def _check_times(items: list[Any]) -> None:
    """Refuse texts that are no times before their page is saved, and rewrite times of odd forms.

    Raises:
        pydantic.ValidationError: A text is no time.
    """
    times = [item.updatedAt for item in items]
    try:
        msgspec.convert(times, list[datetime | None])
    except msgspec.ValidationError:
        for item, time in zip(items, utc_datetimes(times), strict=True):
            item.updatedAt = time


def _unify_images(items: list[Any]) -> bool | None:
    """Bring images of both forms into that of objects; return `WirePage.images_are_text`."""
    forms = {type(image) for item in items if item.images for image in item.images}
    if str not in forms:
        return False if forms else None
    if len(forms) == 1:
        return True
    for item in items:
        if item.images:
            item.images = image_objects(item.images)
    return False


def wire_dtype(columns: Collection[str], *, images_are_text: bool) -> pl.List:
    """Return the Polars type that the products of a page are decoded to.

    Args:
        columns: The snapshot columns to decode.
        images_are_text: True if the page has images as URLs.
    """
    return pl.List(
        pl.Struct(
            {
                column.field: _wire(column.dtype, text=column.name == "images" and images_are_text)
                for column in COLUMNS
                if column.from_service and column.name in columns
            }
        )
    )


def _wire(dtype: pl.DataType, *, text: bool = False) -> pl.DataType:
    match dtype:
        case pl.Struct():
            return pl.Struct({name: _wire(inner) for name, inner in json_fields(dtype).items()})
        case pl.List():
            return pl.List(pl.String) if text else pl.List(_wire(instance(dtype.inner)))
        case pl.Datetime():
            return pl.String()
        case _:
            return dtype
