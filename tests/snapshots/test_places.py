from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest

from octogen_dagster.snapshots.partitions import snapshot_days
from octogen_dagster.snapshots.places import SnapshotPlaces
from octogen_dagster.store import Store

DAYS = snapshot_days("2026-01-01")
LETTERS = dg.StaticPartitionsDefinition(["a", "b", "../x"])
LETTER_DAYS = dg.MultiPartitionsDefinition({"day": DAYS, "catalog": LETTERS})
TODAY = date(2026, 3, 10)


def places(
    base: Path,
    partitions_def: dg.PartitionsDefinition[str] | None = None,
    key: str | None = None,
    asset_key: tuple[str, ...] = ("shop", "products"),
) -> SnapshotPlaces:
    context = dg.build_output_context(
        asset_key=asset_key, partition_key=key, asset_partitions_def=partitions_def
    )
    return SnapshotPlaces(Store(str(base)), context)


def publish(base: Path, name: str) -> None:
    path = base / "shop" / "products" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def days_ago(days: int) -> str:
    return f"{TODAY - timedelta(days=days)}"


def test_an_asset_without_partitions_is_a_file_in_the_folder_of_its_prefix(tmp_path: Path) -> None:
    own = places(tmp_path)
    assert own.own == "shop/products.parquet"
    assert not own.has_times


@pytest.mark.parametrize(
    ("key", "name"), [("a", "a"), ("../x", "%2E%2E%2Fx")], ids=["plain", "escaping"]
)
def test_a_partition_is_a_file_in_the_folder_of_its_asset(
    tmp_path: Path, key: str, name: str
) -> None:
    found = places(tmp_path, LETTERS, key)
    assert found.own == f"shop/products/{name}.parquet"
    assert found.of("b") == "shop/products/b.parquet"
    assert not found.has_times


def test_dimensions_are_folders_in_the_order_of_their_names(tmp_path: Path) -> None:
    key = dg.MultiPartitionKey({"day": days_ago(0), "catalog": "../x"})
    found = places(tmp_path, LETTER_DAYS, key)
    assert found.has_times
    assert found.own == "shop/products/%2E%2E%2Fx/2026-03-10.parquet"


def test_an_asset_key_cannot_leave_the_base(tmp_path: Path) -> None:
    own = places(tmp_path, asset_key=("..", "a/b")).own
    assert own == "%2E%2E/a%2Fb.parquet"


def test_the_partition_before_is_the_last_one_with_a_snapshot(tmp_path: Path) -> None:
    found = places(tmp_path, DAYS, days_ago(0))
    assert found.partition_before() is None
    publish(tmp_path, days_ago(0))
    publish(tmp_path, days_ago(5))
    assert found.partition_before() == days_ago(5)
    publish(tmp_path, days_ago(2))
    assert found.partition_before() == days_ago(2)


@pytest.mark.parametrize(("days", "is_found"), [(31, True), (32, False)])
def test_the_partition_before_is_at_most_31_times_back(
    tmp_path: Path, days: int, is_found: bool
) -> None:
    publish(tmp_path, days_ago(days))
    before = places(tmp_path, DAYS, days_ago(0)).partition_before()
    assert before == (days_ago(days) if is_found else None)


def test_the_first_time_has_no_partition_before(tmp_path: Path) -> None:
    assert places(tmp_path, DAYS, "2026-01-01").partition_before() is None


def test_the_partition_before_is_of_the_same_catalog(tmp_path: Path) -> None:
    key = dg.MultiPartitionKey({"day": days_ago(0), "catalog": "a"})
    found = places(tmp_path, LETTER_DAYS, key)
    publish(tmp_path, f"b/{days_ago(1)}")
    assert found.partition_before() is None
    publish(tmp_path, f"a/{days_ago(3)}")
    assert found.partition_before() == f"a|{days_ago(3)}"


def test_the_latest_snapshot_is_the_own_one_or_else_the_one_before(tmp_path: Path) -> None:
    found = places(tmp_path, DAYS, days_ago(0))
    assert found.latest() is None
    publish(tmp_path, days_ago(2))
    before = found.latest()
    assert before is not None
    assert before == f"shop/products/{days_ago(2)}.parquet"
    publish(tmp_path, days_ago(0))
    own = found.latest()
    assert own is not None
    assert own == found.own


@pytest.mark.parametrize(("partitions_def", "key"), [(None, None), (LETTERS, "b")])
def test_without_times_only_the_own_snapshot_is_the_latest(
    tmp_path: Path, partitions_def: dg.PartitionsDefinition[str] | None, key: str | None
) -> None:
    found = places(tmp_path, partitions_def, key)
    publish(tmp_path, "a")
    assert found.latest() is None
    publish(tmp_path, "b")
    publish(tmp_path, "../products")
    own = found.latest()
    assert own is not None
    assert own == found.own
