"""Names, descriptions and results of the asset checks that both wings have."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

NOT_EMPTY = "not_empty"
NOT_EMPTY_DESCRIPTION = "There are products."
FRESH = "fresh"


def require_max_age(max_age: timedelta | None) -> None:
    """Check the setting `max_age`.

    Raises:
        ValueError: It is not positive.
    """
    if max_age is not None and max_age <= timedelta():
        raise ValueError(f"max_age must be a positive timedelta or None, not {max_age!r}.")


def not_empty_result(
    subject: object, rows: int, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
) -> dg.AssetCheckResult:
    """The result of `not_empty`.

    Args:
        subject: What is checked, such as the name of a table; begins the message.
        rows: The number of its rows.
        severity: The severity if there are none.
    """
    return dg.AssetCheckResult(
        passed=rows > 0,
        check_name=NOT_EMPTY,
        severity=severity,
        description=f"{subject} has {rows:,} rows.",
        metadata={"octogen/rows": rows},
    )


def hours(time: timedelta) -> float:
    """A time in hours, rounded to one decimal place."""
    return round(time / timedelta(hours=1), 1)
