"""Converts values of a page that are of another JSON type, as the pydantic models do.

The models accept "12.5" as a price and 5 as a title. Values are converted a field at a time by the
types of the models' fields; no model is made.
"""

from __future__ import annotations

import functools
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
from pydantic import ConfigDict, TypeAdapter

from octogen_dagster.api.models import Int64, ResponseModel, UtcDatetime
from octogen_dagster.frames.page_types import (
    ITEM_FIELDS,
    REQUIRED,
    instance,
    json_fields,
    required_fields,
)
from octogen_dagster.frames.schema import IMAGE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_TYPES: Mapping[type[pl.DataType], Any] = {
    pl.String: str,
    pl.Float64: float,
    pl.Int64: Int64,
    pl.Boolean: bool,
    pl.Datetime: UtcDatetime,
}
_CONFIG = ConfigDict(
    coerce_numbers_to_str=ResponseModel.model_config["coerce_numbers_to_str"],
    allow_inf_nan=ResponseModel.model_config["allow_inf_nan"],
)


def convert_page(page: Any) -> None:
    """Convert the values of a page of lax types, in place.

    Raises:
        pydantic.ValidationError: A value cannot be converted.
    """
    page.nextCursor = _converted([page.nextCursor], str | None)[0]
    _convert(page.items or [], ITEM_FIELDS, REQUIRED)


def utc_datetimes(values: Sequence[Any]) -> list[datetime | None]:
    """Convert timestamps as the models do.

    Raises:
        pydantic.ValidationError: A value is not a timestamp.
    """
    return _converted(values, UtcDatetime | None)


def image_objects(images: list[Any]) -> list[Any]:
    """Return images as objects; the seed generation sends an image as its URL alone."""
    return [{"url": image} if type(image) is str else image for image in images]


def _convert(objects: Sequence[Any], fields: Mapping[str, Any], required: Collection[str]) -> None:
    for name, dtype in fields.items():
        values = [getattr(each, name) for each in objects]
        converted = _column(values, instance(dtype), name in required)
        for each, value in zip(objects, converted, strict=True):
            setattr(each, name, value)


def _column(values: list[Any], dtype: pl.DataType, required: bool) -> Sequence[Any]:
    match dtype:
        case pl.Struct() as struct:
            _convert_structs(values, struct)
            return image_objects(values) if struct == IMAGE else values
        case pl.List(inner=pl.Struct() as struct):
            _convert_structs([each for value in values if value for each in value], struct)
            return values
        case pl.List(inner=inner):
            texts: Any = list.__class_getitem__(_TYPES[type(instance(inner))])
            return _converted(values, texts | None)
        case scalar:
            kind = _TYPES[type(scalar)]
            return _converted(values, kind if required else kind | None)


def _convert_structs(values: Sequence[Any], struct: pl.Struct) -> None:
    objects = [value for value in values if isinstance(value, msgspec.Struct)]
    _convert(objects, json_fields(struct), required_fields(struct))


def _converted(values: Sequence[Any], kind: Any) -> list[Any]:
    converted: list[Any] = _adapter(kind).validate_python(values)
    return converted


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    values: Any = list.__class_getitem__(kind)
    return TypeAdapter(values, config=_CONFIG)
