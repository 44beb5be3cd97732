"""WireLookup: the response to a lookup, checked and in one form for Polars, which decodes many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
from pydantic import ValidationError

from octogen_dagster.api.models import MerchantProductUrlLookupResponse
from octogen_dagster.api.responses import invalid_body, parsed
from octogen_dagster.frames.details.lookup_types import parse_lookup
from octogen_dagster.frames.details.schema import (
    ENVELOPE_SCHEMA,
    VIEW_SCHEMA,
    WIRE_ENVELOPE,
    WIRE_VIEW,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from octogen_dagster.api.http import Response

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValidationError)
_VIEW = "product"
_WIRE = pl.Struct({**WIRE_ENVELOPE, _VIEW: pl.Struct(WIRE_VIEW)})
_encoder = msgspec.json.Encoder()


class WireLookup(msgspec.Struct, frozen=True, gc=False):
    """A response to a lookup that was checked.

    Attributes:
        uuid: The uuid of its product.
        source: Where the product comes from.
        content: The JSON of the response, which Polars decodes.
        unknown: The path of each field that the schema does not know.
    """

    uuid: str | None
    source: str | None
    content: bytes
    unknown: list[str]

    def unknown_fields(self, *, of_view: bool) -> list[str]:
        """Return the unknown fields, those of the product only if `of_view` is true."""
        return [path for path in self.unknown if of_view or not path.startswith(f"{_VIEW}.")]


def read_lookup(response: Response, subject: str) -> WireLookup:
    """Check a response to a lookup.

    Values of another JSON type are converted by the models, such as "12.5" as a price.

    Args:
        response: The response.
        subject: What was looked up; begins error messages.

    Raises:
        OctogenResponseError: The body is not the response to a lookup; the message names the field.
    """
    try:
        return _wire_lookup(response.content)
    except _UNREADABLE:
        model = parsed(MerchantProductUrlLookupResponse, response, subject)
    try:
        return _wire_lookup(model.model_dump_json(by_alias=True).encode())
    except _UNREADABLE as error:
        problem = str(error)
    raise invalid_body(response, subject, f"a body that cannot be decoded: {problem}")


def _wire_lookup(content: bytes) -> WireLookup:
    lookup, unknown = parse_lookup(content)
    return WireLookup(lookup.product.uuid, lookup.source, _encoder.encode(lookup), unknown)


def decoded(contents: pl.Expr) -> pl.Expr:
    """Return an expression that decodes the `WireLookup.content` of responses; null stays null."""
    return contents.cast(pl.String).str.json_decode(_WIRE)


def view_of(lookup: pl.Expr) -> pl.Expr:
    """Return the full views of decoded responses."""
    return lookup.struct.field(_VIEW)


def envelope_columns(lookup: pl.Expr) -> Iterable[pl.Expr]:
    """Return the columns of what decoded responses say of the lookup."""
    return _columns(lookup, WIRE_ENVELOPE, ENVELOPE_SCHEMA)


def view_columns(view: pl.Expr) -> Iterable[pl.Expr]:
    """Return the columns of full views."""
    return _columns(view, WIRE_VIEW, VIEW_SCHEMA)


def _columns(
    value: pl.Expr, wire: Mapping[str, pl.DataType], schema: Mapping[str, pl.DataType]
) -> Iterable[pl.Expr]:
    for (field, wire_dtype), (name, dtype) in zip(wire.items(), schema.items(), strict=True):
        yield _renamed(value.struct.field(field), wire_dtype, dtype).alias(name)


def _renamed(value: pl.Expr, wire: Any, dtype: Any) -> pl.Expr:
    """Rename the fields of structs, at any depth."""
    if wire == dtype:
        return value
    if isinstance(wire, pl.List):
        return value.list.eval(_renamed(pl.element(), wire.inner, dtype.inner))
    inner = [
        _renamed(pl.field(field.name), field.dtype, named.dtype)
        for field, named in zip(wire.fields, dtype.fields, strict=True)
        if field.dtype != named.dtype
    ]
    renamed = value.struct.with_fields(*inner) if inner else value
    return renamed.struct.rename_fields([field.name for field in dtype.fields])
