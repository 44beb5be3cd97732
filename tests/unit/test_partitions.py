from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octogen_dagster.snapshots.partitions import (
    PartitionLayout,
    catalog_days,
    catalog_of,
    catalog_partition_key,
    catalog_partitions,
    keys_by_catalog,
    snapshot_days,
)
from octogen_dagster.storage.store import path_component

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)


@given(names.filter(str.strip))
def test_a_catalog_key_survives_the_way_to_a_partition_key_and_back(catalog: str) -> None:
    key = catalog_partition_key(catalog)
    assert catalog_of(key) == catalog
    assert not set(key) & set(',|/\\"\n\r\t')
    assert "..." not in key


@given(names, names)
def test_two_catalogs_never_share_a_partition(one: str, other: str) -> None:
    if one.strip() and other.strip() and one != other:
        assert catalog_partition_key(one) != catalog_partition_key(other)


@given(names)
def test_a_path_component_is_one_component_that_stays_in_its_folder(key: str) -> None:
    component = path_component(key)
    path = PurePosixPath("base") / component
    assert path.parent == PurePosixPath("base")
    assert component not in {".", ".."}
    assert not component.startswith(".")


@pytest.mark.parametrize("key", ["", "x" * 201])
def test_a_key_that_cannot_name_a_file_is_an_error(key: str) -> None:
    with pytest.raises(ValueError, match="cannot be a file name"):
        path_component(key)


NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
CATALOGS = PartitionLayout(catalog_partitions)
DAYS = PartitionLayout(snapshot_days("2026-03-03"))
CATALOG_DAYS = PartitionLayout(catalog_days("2026-03-03"))


def test_the_days_include_today_in_the_given_time_zone() -> None:
    days = snapshot_days("2026-03-03", timezone="Asia/Tokyo")
    late = datetime(2026, 3, 4, 20, tzinfo=UTC)  # the 5th in Tokyo
    assert days.get_partition_keys(late) == ["2026-03-03", "2026-03-04", "2026-03-05"]


@pytest.mark.parametrize(
    ("partitions", "key"),
    [(CATALOGS, "a%2Fb"), (DAYS, "2026-03-04"), (CATALOG_DAYS, "a%2Fb|2026-03-04")],
)
def test_the_partition_of_a_catalog_at_a_moment(partitions: PartitionLayout, key: str) -> None:
    assert partitions.key("a%2Fb", NOON) == key
    assert partitions.key("a%2Fb", NOON + timedelta(hours=11)) == key


@pytest.mark.parametrize(
    ("partitions", "key", "catalog_key", "has_window"),
    [
        (CATALOGS, "a%2Fb", "a%2Fb", False),
        (DAYS, "2026-03-04", None, True),
        (CATALOG_DAYS, "a%2Fb|2026-03-04", "a%2Fb", True),
    ],
)
def test_a_partition_is_split_into_its_catalog_and_its_time(
    partitions: PartitionLayout, key: str, catalog_key: str | None, has_window: bool
) -> None:
    assert partitions.catalog_key(key) == catalog_key
    day = datetime(2026, 3, 4, tzinfo=UTC)
    assert partitions.window(key) == ((day, day + timedelta(days=1)) if has_window else None)


@pytest.mark.parametrize(
    ("hours", "present"), [(-12.1, False), (-12, True), (0, True), (11.9, True), (12, False)]
)
def test_a_day_is_present_from_its_start_to_its_end(hours: float, present: bool) -> None:
    moment = NOON + timedelta(hours=hours)
    assert DAYS.is_present("2026-03-04", moment) is present
    assert CATALOG_DAYS.is_present("shop|2026-03-04", moment) is present
    assert CATALOGS.is_present("shop", moment)


def test_the_keys_of_many_catalogs_leave_out_those_that_cannot_be_partitions() -> None:
    keys, skipped = keys_by_catalog(["acme", " ", "a/b", "x" * 300])
    assert keys == {"acme": "acme", "a/b": "a%2Fb"}
    assert skipped[0] == "Skipped catalog ' '. A catalog key must not be empty."
    assert skipped[1].startswith(f"Skipped catalog {'x' * 60!r}. Key 'xxx")
