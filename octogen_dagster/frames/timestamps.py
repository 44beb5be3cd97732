"""Parses a column of timestamps: Polars those of RFC 3339, also without a zone, pydantic others."""

from __future__ import annotations

from datetime import datetime, timedelta

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


def rfc3339_times(text: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Return the times in UTC of timestamps in RFC 3339, and whether these are all right.

    They are not if a text has another form or Python cannot represent its time in UTC.
    """
    times = text.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
    microseconds = times.to_physical()
    is_right = (
        text.str.contains(_RFC3339).all()
        & (times.null_count() == text.null_count())  # no day such as February 30
        & microseconds.is_between(_FIRST_MICROSECOND, _LAST_MICROSECOND).all()
    )
    return times, is_right


def parse_timestamps(text: pl.Series) -> pl.Series:
    """Parse timestamps of any form as times in UTC.

    One without a zone is in UTC, and one that Python cannot represent in UTC is null.

    Raises:
        pydantic.ValidationError: A text is not a timestamp.
    """
    times, is_right = rfc3339_times(pl.col(text.name).str.replace(_WITHOUT_ZONE, "${0}Z"))
    frame = text.to_frame().select(times, is_right=is_right)
    if frame.get_column("is_right").all():
        return frame.get_column(text.name)
    return pl.Series(text.name, utc_datetimes(text.to_list()), dtype=_TYPE)
