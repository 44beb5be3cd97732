"""The time that a snapshot is of."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from octogen_dagster.frames.window import is_within, utc_now

BEGIN = datetime(2026, 11, 25, tzinfo=timezone.utc)
END = BEGIN + timedelta(days=1)
TICK = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (BEGIN - TICK, False),
        (BEGIN, True),
        (END - TICK, True),
        (END, False),
        (BEGIN.astimezone(timezone(timedelta(hours=-8))), True),
    ],
)
def test_the_beginning_is_in_a_window_and_the_end_is_not(moment: datetime, expected: bool) -> None:
    assert is_within((BEGIN, END), moment) is expected


def test_the_present_is_in_utc() -> None:
    assert utc_now().tzinfo is timezone.utc
