"""The base of the response models, and the types of single values."""

from __future__ import annotations

import functools
import logging
from datetime import datetime, timezone
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

_LOGGER = logging.getLogger(__name__)

_MAX_VALUE_IN_MESSAGE = 80


class ResponseModel(BaseModel):
    """A JSON object of a response, in camelCase. Fields that it does not know are kept."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="allow",
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
    )


def _as_utc(value: datetime) -> datetime | None:
    if value.tzinfo is None:
        return value.replace(tzinfo=timezone.utc)
    try:
        return value.astimezone(timezone.utc)
    except OverflowError:
        _warn_of("timestamp", value.isoformat(), "the years 1 to 9999 in UTC")
        return None


def _as_int64(value: int) -> int | None:
    if -(2**63) <= value < 2**63:
        return value
    _warn_of("number", str(value)[:_MAX_VALUE_IN_MESSAGE], "64 bits")
    return None


@functools.lru_cache(maxsize=100)  # a placeholder such as year 1 may stand in every product
def _warn_of(kind: str, value: str, limit: str) -> None:
    _LOGGER.warning(
        "The service sent the %s %s, which is outside of %s. It is read as null: report it to "
        "Octogen.",
        kind,
        value,
        limit,
    )


UtcDatetime = Annotated[datetime, AfterValidator(_as_utc)]
"""A time in UTC; None, with a warning in the log, if Python cannot represent it in UTC."""

Int64 = Annotated[int, AfterValidator(_as_int64)]
"""An integer of a column; None, with a warning in the log, if it does not fit into 64 bits."""
