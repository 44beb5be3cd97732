"""A bad snapshot is left out of a history, and comes in once it is mended."""

from __future__ import annotations

import os
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import build_snapshot_checks, catalog_days, scan_history
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.history import table
from octogen_dagster.history.files import forget_snapshot
from tests.histories import ASSET, day, make_history, product
from tests.projects import GivenProducts, given_frame
from tests.results import metadata

DRESS, HAT = product("dress", 100.0), product("hat", 20.0)
DEARER = product("dress", 120.0)
TWICE = [DRESS, DRESS]


class Outcome(NamedTuple):
    """The number of snapshots in a history after a run, and what its check complains of."""

    snapshots: int
    complaint: str | None


class Shop(GivenProducts):
    """Products that are given, with their history and the checks of it."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        super().__init__(folder, instance)
        self.following = build_snapshot_checks(self.history, max_age=None)

    def store(self, at: datetime, *products: dict[str, Any]) -> Outcome:
        """Store the products as of a time, and put them into the history."""
        self.frame = given_frame(at, products)
        return self.put_in()

    def put_in(self) -> Outcome:
        result = self.update()
        checks = {each.check_name: each for each in result.get_asset_check_evaluations()}
        check = checks["nothing_left_out"]
        complaint = None if check.passed else check.description
        return Outcome(metadata(result, ASSET)["octogen/snapshots"], complaint)

    def prices(self, at: datetime) -> dict[str, float]:
        rows = scan_history(str(self.folder), asset=ASSET, as_of=at).collect()
        return dict(rows.select("uuid", "current_price").rows())


@pytest.fixture
def shop(tmp_path: Path, instance: dg.DagsterInstance) -> Shop:
    return Shop(tmp_path, instance)


@pytest.mark.long
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (TWICE, "has duplicate products"),
        ([{**DRESS, "uuid": None}], "product whose uuid is null"),
    ],
)
def test_a_bad_day_is_left_out_and_named_and_comes_in_once_it_is_mended(
    shop: Shop, bad: list[dict[str, Any]], reason: str
) -> None:
    assert shop.store(day(1), DRESS, HAT) == (1, None)
    left_out = shop.store(day(2), *bad)
    assert left_out.snapshots == 1
    assert "2026-11-02 06:00:00 UTC: " in (left_out.complaint or "")
    assert reason in (left_out.complaint or "")
    goes_on = shop.store(day(3), DEARER)
    assert goes_on.snapshots == 2
    assert "2026-11-02" in (goes_on.complaint or "")
    assert shop.prices(day(2)) == {"dress": 100.0, "hat": 20.0}
    assert shop.store(day(2), HAT) == (3, None)
    assert shop.prices(day(2)) == {"hat": 20.0}
    assert shop.prices(day(3)) == {"dress": 120.0}


@pytest.mark.slow
def test_a_bad_day_is_named_though_a_figure_fails(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any) -> None:
        raise pl.exceptions.ComputeError("no figure")

    shop.store(day(1), DRESS)
    shop.frame = given_frame(day(2), TWICE)
    for figure in ("history_metrics", "figures_at", "trend", "price_drops"):
        with monkeypatch.context() as patch:
            patch.setattr(table, figure, fails)
            evaluations = shop.update().get_asset_check_evaluations()
        (check,) = [each for each in evaluations if each.check_name == "nothing_left_out"]
        assert not check.passed
        assert "2026-11-02" in (check.description or "")


@pytest.mark.slow
def test_a_bad_day_may_be_forgotten(shop: Shop) -> None:
    shop.store(day(1), DRESS)
    shop.store(day(2), *TWICE)
    forget_snapshot(str(shop.folder), day(2), asset=ASSET)
    assert shop.put_in() == (1, None)  # although it is still the last snapshot of its asset
    assert shop.store(day(2), DEARER) == (2, None)
    assert shop.prices(day(2)) == {"dress": 120.0}


@pytest.mark.slow
def test_a_day_without_a_column_is_named_by_its_time(shop: Shop) -> None:
    shop.store(day(1), DRESS)
    shop.frame = given_frame(day(2), [DRESS]).drop("in_stock")
    complaint = shop.put_in().complaint or ""
    assert "2026-11-02 06:00:00 UTC: " in complaint
    assert "no column in_stock" in complaint
    assert shop.store(day(3), DEARER).complaint == complaint
    assert shop.store(day(2), HAT) == (3, None)


@pytest.mark.slow
def test_a_corrected_snapshot_takes_the_place_of_the_one_with_the_same_time(shop: Shop) -> None:
    shop.store(day(1), DRESS, HAT)
    shop.store(day(2), product("dress", 9_900.0))
    shop.store(day(3), DEARER)
    assert shop.store(day(2), product("dress", 99.0), HAT) == (3, None)
    assert shop.prices(day(2)) == {"dress": 99.0, "hat": 20.0}
    assert shop.prices(day(3)) == {"dress": 120.0}
    assert shop.put_in() == (3, None)
    assert shop.prices(day(2)) == {"dress": 99.0, "hat": 20.0}


@pytest.mark.slow
def test_a_forgotten_snapshot_comes_in_once_it_is_corrected_and_not_before(shop: Shop) -> None:
    shop.store(day(1), DRESS)
    shop.store(day(2), product("dress", 9_900.0), HAT)
    forget_snapshot(str(shop.folder), day(2), asset=ASSET)
    # The same products are published again by another run, in another order.
    assert shop.store(day(2), HAT, product("dress", 9_900.0)) == (1, None)
    assert shop.prices(day(2)) == {"dress": 100.0}
    assert shop.store(day(2), HAT, product("dress", 99.0)) == (2, None)
    assert shop.prices(day(2)) == {"dress": 99.0, "hat": 20.0}


@pytest.mark.parametrize("damage", ["twice", "no file of Parquet"])
def test_one_bad_day_of_many_does_not_end_their_history(
    tmp_path: Path, instance: dg.DagsterInstance, damage: str
) -> None:
    shop = GivenProducts(tmp_path, instance, catalog_days("2026-11-01"))
    folder = tmp_path / "octogen_products" / "acme"
    folder.mkdir(parents=True)
    for number in (1, 2, 3):
        given_frame(day(number), [product("dress", 100.0 + number)]).write_parquet(
            folder / f"2026-11-0{number}.parquet"
        )
    bad = folder / "2026-11-02.parquet"
    if damage == "twice":
        given_frame(day(2), TWICE).write_parquet(bad)
    else:
        bad.write_bytes(b"PAR1 and no more")

    def put_in() -> dict[str, Any]:
        return metadata(shop.update(shop.history, partition_key="acme"), ASSET)

    instance.add_dynamic_partitions("octogen_catalogs", ["acme"])
    for _ in range(2):
        shown = put_in()
        assert shown["octogen/snapshots"] == 2
        assert "partition acme|2026-11-02" in shown["octogen/left_out"]
    given_frame(day(2), [product("dress", 50.0)]).write_parquet(bad)
    later = (day(2) + timedelta(days=300)).timestamp()
    os.utime(bad, (later, later))
    shown = put_in()
    assert shown["octogen/snapshots"] == 3
    assert "octogen/left_out" not in shown
    found = scan_history(str(tmp_path), asset=ASSET, as_of=day(2)).collect()
    assert found["current_price"].to_list() == [50.0]


def test_as_of_the_ends_of_time(tmp_path: Path) -> None:
    make_history(tmp_path, {day(1): [DRESS]})
    first, last = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))
    moments: dict[datetime | date, int] = {
        datetime.min: 0,
        datetime.min.replace(tzinfo=first): 0,
        datetime.max: 1,
        datetime.max.replace(tzinfo=last): 1,
        date.max: 1,
    }
    for moment, rows in moments.items():
        assert len(scan_history(str(tmp_path), asset=ASSET, as_of=moment).collect()) == rows


@pytest.mark.slow
def test_a_history_of_another_format_is_told_with_what_to_do(shop: Shop) -> None:
    shop.store(day(1), DRESS)
    path = shop.folder / f"{ASSET}.parquet"
    metadata = pl.read_parquet_metadata(path)
    metadata.pop("ARROW:schema", None)
    assert metadata["octogen.history_format"] == "1"
    pl.read_parquet(path).write_parquet(path, metadata={**metadata, "octogen.history_format": "2"})
    message = "format 2, .* format 1.* Install"
    with pytest.raises(OctogenSnapshotError, match=message):
        scan_history(str(shop.folder), asset=ASSET)
    with pytest.raises(OctogenSnapshotError, match=message):
        forget_snapshot(str(shop.folder), day(1), asset=ASSET)
    with pytest.raises(dg.Failure, match=message):
        shop.store(day(2), DEARER)
