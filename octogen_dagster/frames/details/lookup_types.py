"""The msgspec types that a lookup is decoded to, made from the models of the response.

The types accept exactly the values that a column holds without loss. Their attributes have the
names of the fields in JSON.
"""

from __future__ import annotations

import functools
from datetime import datetime
from functools import partial
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Union, cast, get_args, get_origin

import msgspec
from pydantic import BaseModel, BeforeValidator

from octogen_dagster.api.models import MerchantProductUrlLookupResponse
from octogen_dagster.frames.lax_values import utc_datetimes
from octogen_dagster.frames.page_types import ABSENT, INTEGER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Convert = Callable[[Any], Any]

_UNKNOWN_FIELD = "Object contains unknown field"


class _Field(NamedTuple):
    """A field of an object.

    Attributes:
        kind: The msgspec type of its values.
        convert: Brings a value into the form that Polars decodes; None if it is in that form.
        fields: The fields of its object, or of the objects in its list; None if it has none.
    """

    kind: Any
    convert: Convert | None = None
    fields: Mapping[str, _Field] | None = None


def _timestamp(text: str) -> datetime | None:
    return utc_datetimes([text])[0]


_SCALARS: Mapping[Any, _Field] = {
    str: _Field(str),
    int: _Field(INTEGER),
    float: _Field(float),
    bool: _Field(bool),
    datetime: _Field(str, _timestamp),
}


def _field(annotation: Any, *, known_only: bool) -> _Field:
    """Return the field for the type of a field of a model."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        kind, convert, fields = _field(arguments[0], known_only=known_only)
        for validator in arguments[1:]:
            if isinstance(validator, BeforeValidator):  # an object that may come as a text
                kind, convert = kind | str, cast("Convert", validator.func)
        return _Field(kind, convert, fields)
    if origin in (Union, UnionType):
        (inner,) = set(arguments) - {type(None)}
        kind, convert, fields = _field(inner, known_only=known_only)
        return _Field(kind | None, convert, fields)
    if origin is list:
        kind, convert, fields = _field(arguments[0], known_only=known_only)
        of_each = partial(_each, convert) if convert else None
        return _Field(list.__class_getitem__(kind), of_each, fields)
    if origin is dict:
        return _Field(annotation, _names_and_values)
    if issubclass(annotation, BaseModel):
        return _object(annotation, known_only=known_only)
    return _SCALARS[annotation]


def _object(model: type[BaseModel], *, known_only: bool) -> _Field:
    fields: dict[str, _Field] = {}
    members: list[tuple[Any, ...]] = []
    for name, described in model.model_fields.items():
        in_json = described.alias or name
        field = fields[in_json] = _field(described.annotation, known_only=known_only)
        # A product without a uuid, whose `isActive` is unknown, has no columns.
        default = () if described.is_required() else (ABSENT.get(in_json),)
        members.append((in_json, field.kind, *default))
    kind = msgspec.defstruct(
        model.__name__,
        members,
        forbid_unknown_fields=known_only,
        omit_defaults=True,
        kw_only=True,
        gc=False,
    )
    conversions = {name: field.convert for name, field in fields.items() if field.convert}
    return _Field(kind, partial(_in_place, conversions) if conversions else None, fields)


def _in_place(conversions: Mapping[str, Convert], value: Any) -> Any:
    for name, convert in conversions.items():
        if (inner := getattr(value, name)) is not None:
            setattr(value, name, convert(inner))
    return value


def _each(convert: Convert, values: list[Any]) -> list[Any]:
    return [convert(value) for value in values]


def _names_and_values(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "values": some} for name, some in values.items()]


@functools.cache
def _lookup(*, known_only: bool) -> tuple[_Field, msgspec.json.Decoder[Any]]:
    """Return the object that a response is, and its decoder."""
    lookup = _object(MerchantProductUrlLookupResponse, known_only=known_only)
    return lookup, msgspec.json.Decoder(lookup.kind)


def parse_lookup(content: bytes) -> tuple[Any, list[str]]:
    """Decode a response, and bring its values into the form that Polars decodes.

    Args:
        content: The JSON of the response.

    Returns:
        The response, and the path of each field that the models do not know:
        "product.variants.weightGrams".

    Raises:
        msgspec.MsgspecError: The content is not JSON or has another type.
        UnicodeDecodeError: The content is not UTF-8.
        RecursionError: It is nested too deeply.
        pydantic.ValidationError: A text is not a timestamp.
    """
    unknown: list[str] = []
    field, decoder = _lookup(known_only=True)
    try:
        lookup = decoder.decode(content)
    except msgspec.ValidationError as error:
        if not str(error).startswith(_UNKNOWN_FIELD):
            raise
        content.decode()  # msgspec skips bytes that are not UTF-8
        field, decoder = _lookup(known_only=False)
        lookup = decoder.decode(content)
        unknown += _unknown_fields(msgspec.json.decode(content), field.fields or {}, "")
    return field.convert(lookup) if field.convert else lookup, unknown


def _unknown_fields(value: Any, fields: Mapping[str, _Field], path: str) -> Iterator[str]:
    if isinstance(value, list):
        for entry in value:
            yield from _unknown_fields(entry, fields, path)
    elif isinstance(value, dict):
        for name, inner in value.items():
            field = fields.get(name)
            if field is None:
                yield f"{path}{name}"
            elif field.fields:
                yield from _unknown_fields(inner, field.fields, f"{path}{name}.")
