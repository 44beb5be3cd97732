from __future__ import annotations

import polars as pl
import pytest
from pydantic import TypeAdapter, ValidationError

from octogen_dagster.api.models import UtcDatetime
from octogen_dagster.frames import timestamps
from octogen_dagster.frames.timestamps import parse_timestamps

REGULAR = ["2026-01-02T03:04:05Z", "2026-01-02t03:04:05.123456789+05:30", "2026-01-02 03:04:05z"]
WITHOUT_ZONE = ["2026-01-02T03:04:05", "2026-01-02 03:04:05.5"]
ODD = [
    "2026-01-02T03:04Z",
    "2026-01-02T03:04:05,5Z",
    "2026-01-02T03:04:05+0530",
    "1767323045",
    "2026-01-02",
    "0001-01-01T00:00:00+05:00",
    "9999-12-31T23:59:59-05:00",
]
REFUSED = [
    "2026-01-02T03:04:60Z",
    "2026-01-02T24:00:00Z",
    "2026-02-30T03:04:05Z",
    "2026-1-2T3:4:5Z",
    "2026-01-02T03:04:05 Z",
    " 2026-01-02T03:04:05Z",
    "2026-01-02T03:04:05Z\n",
    "2026-01-02T03:04:05UTC",
    "12026-01-02T03:04:05Z",
    "2026-01-02T03:04:05+24:00",
    "٢٠٢٦-01-02T03:04:05Z",
    "yesterday",
    "",
]
by_models = TypeAdapter(UtcDatetime | None)


def parse(*texts: str | None) -> pl.Series:
    return parse_timestamps(pl.Series("updated_at", texts, dtype=pl.String))


@pytest.mark.parametrize("text", [*REGULAR, *WITHOUT_ZONE, *ODD])
def test_a_timestamp_is_parsed_as_the_models_parse_it(text: str) -> None:
    times = parse("2026-01-01T00:00:00Z", None, text)
    assert times.dtype == pl.Datetime("us", "UTC")
    assert times.to_list()[1:] == [None, by_models.validate_python(text)]


@pytest.mark.parametrize("text", REFUSED)
def test_a_text_that_the_models_refuse_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        by_models.validate_python(text)
    with pytest.raises(ValidationError):
        parse("2026-01-01T00:00:00Z", text)


def test_timestamps_without_a_zone_make_no_python_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(timestamps, "utc_datetimes")
    assert parse(*REGULAR, *WITHOUT_ZONE, None).null_count() == 1


@pytest.mark.parametrize("texts", [[], [None, None]])
def test_without_any_timestamp_the_type_is_the_same(texts: list[None]) -> None:
    assert parse(*texts).dtype == pl.Datetime("us", "UTC")
    assert parse(*texts).to_list() == texts
