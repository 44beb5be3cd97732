"""Parses a column of timestamps: Polars those of RFC 3339, also without a zone, pydantic others."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from octogen_dagster.frames.lax_values import utc_datetimes
from octogen_dagster.frames.schema import PRODUCT_SCHEMA

# Polars accepts more, such as a second of 60 and spaces around, which the models refuse.
_LOCAL = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-5][0-9](?:\.[0-9]{1,9})?"
_WITHOUT_ZONE = rf"{_LOCAL}$"
_RFC3339 = rf"{_LOCAL}(?:[Zz]|[+-][0-9]{{2}}:[0-5][0-9])$"
_TYPE = PRODUCT_SCHEMA["updated_at"]
_FIRST_MICROSECOND, _LAST_MICROSECOND = (
    (time - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    for time in (datetime.min, datetime.max)
)


def parse_timestamps(text: pl.Series) -> pl.Series:
    """Parse timestamps as times in UTC.

    One without a zone is in UTC, and one that Python cannot represent in UTC is null.

    Raises:
        pydantic.ValidationError: A text is not a timestamp.
    """
    is_regular = text.str.contains(_RFC3339).all()
    if not is_regular:
        text = text.str.replace(_WITHOUT_ZONE, "${0}Z")
        is_regular = text.str.contains(_RFC3339).all()
    if is_regular:
        with contextlib.suppress(pl.exceptions.PolarsError):  # such as February 30
            times = text.str.to_datetime("%+", time_unit="us", time_zone="UTC")
            if _is_representable(times):
                return times
    return pl.Series(text.name, utc_datetimes(text.to_list()), dtype=_TYPE)


def _is_representable(times: pl.Series) -> bool:
    first: Any = times.to_physical().min()
    last: Any = times.to_physical().max()
    return first is None or bool(first >= _FIRST_MICROSECOND and last <= _LAST_MICROSECOND)
