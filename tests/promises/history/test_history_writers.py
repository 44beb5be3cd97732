"""A history that several write at once: none of them undoes what another one reported."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import ParquetSnapshotIOManager, build_product_history_asset, scan_history
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.history.files import forget_snapshot
from octogen_dagster.storage.store import Store
from tests.histories import ASSET, QUIET, day, make_history, product
from tests.servers.buckets import ENVIRONMENT, GoogleBucket, S3Bucket

DAYS = {day(number): [product("dress", 100.0 + number)] for number in range(1, 4)}
WAIT_SECONDS = 300.0


@pytest.fixture(params=["disk", "s3", "google"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """A history of three days: its folder or bucket, and the options to reach it."""
    make_history(tmp_path, DAYS)
    if request.param == "disk":
        return {"base_dir": str(tmp_path)}
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    found = request.getfixturevalue(request.param)
    bucket = S3Bucket(found) if request.param == "s3" else GoogleBucket(*found)
    for file in tmp_path.rglob("*.parquet"):
        bucket.put(f"snapshots/{file.relative_to(tmp_path)}", file.read_bytes())
    return {"base_dir": bucket.base_dir, "storage_options": bucket.options}


def plain(place: dict[str, Any]) -> dict[str, Any]:
    """A place as it is named outside of Dagster: with the values of the variables."""
    options = {
        name: ENVIRONMENT[value.env_var_name] if isinstance(value, dg.EnvVar) else value
        for name, value in place.get("storage_options", {}).items()
    }
    return {"base_dir": place["base_dir"], "storage_options": options}


def put_in_a_day(place: dict[str, Any], number: int) -> Callable[[], object]:
    """Return what puts the snapshot of another day into the history, as a run does."""

    @dg.asset(name="octogen_products", partitions_def=dg.StaticPartitionsDefinition(["acme"]))
    def products() -> pl.DataFrame:
        row = {**product("dress", 200.0), "original_price": 300.0, "catalog_key": "acme"}
        return pl.DataFrame([row]).with_columns(fetched_at=day(number))

    # One attempt each: the other one's is over when a retry would wait for it.
    assets = [products, build_product_history_asset(products, retry_policy=None)]
    resources = {"io_manager": ParquetSnapshotIOManager(**place)}
    arguments: Any = {"resources": resources, "partition_key": "acme", "run_config": QUIET}
    assert dg.materialize(assets, selection=[products], **arguments).success
    return lambda: dg.materialize(assets, selection=[assets[1]], **arguments)


def forget(place: dict[str, Any], number: int) -> Callable[[], object]:
    return lambda: forget_snapshot(fetched_at=day(number), asset=ASSET, **plain(place))


def both_at_once(*writes: Callable[[], object]) -> list[bool]:
    """Let two write their file before either publishes it, and return who reported success."""
    reached, succeeded = threading.Barrier(2), [False, False]

    def work(index: int) -> None:
        try:
            writes[index]()
        except OctogenSnapshotError as error:
            assert "during the update" in str(error)  # noqa: PT017
        else:
            succeeded[index] = True

    def together(publish: Callable[..., None]) -> Callable[..., None]:
        def publish_together(*arguments: Any, **named: Any) -> None:
            reached.wait(WAIT_SECONDS)
            publish(*arguments, **named)

        return publish_together

    with pytest.MonkeyPatch.context() as patch:
        for name in ("publish", "publish_if"):
            patch.setattr(Store, name, together(getattr(Store, name)))
        threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_SECONDS)
    return succeeded


def days_in(place: dict[str, Any]) -> set[int]:
    return {at.day for at in scan_history(asset=ASSET, **plain(place)).collect()["valid_from"]}


@pytest.mark.long
def test_of_two_who_forget_at_once_one_is_told_that_it_did_nothing(place: dict[str, Any]) -> None:
    succeeded = both_at_once(forget(place, 1), forget(place, 2))
    assert sorted(succeeded) == [False, True]
    assert days_in(place) == {3, *([1] if succeeded[1] else [2])}
    forget(place, 1)()
    forget(place, 2)()
    assert days_in(place) == {3}


@pytest.mark.long
def test_a_run_and_forget_snapshot_do_not_undo_each_other(place: dict[str, Any]) -> None:
    run = put_in_a_day(place, 4)
    ran, forgot = both_at_once(run, forget(place, 2))
    assert ran is not forgot
    assert days_in(place) == ({1, 2, 3, 4} if ran else {1, 3})
    run()
    forget(place, 2)()
    assert days_in(place) == {1, 3, 4}


@pytest.mark.slow
def test_of_two_that_begin_a_history_at_once_one_is_told_that_it_did_nothing(
    tmp_path: Path,
) -> None:
    place = {"base_dir": str(tmp_path)}
    runs = [put_in_a_day(place, 4), put_in_a_day(place, 5)]
    assert sorted(both_at_once(runs[0], runs[1])) == [False, True]
    runs[0]()
    assert 5 in days_in(place)


def test_what_a_writer_leaves_beside_a_history_is_no_part_of_it(tmp_path: Path) -> None:
    make_history(tmp_path, DAYS)
    forget_snapshot(str(tmp_path), day(1), asset=ASSET)
    names = {path.name for path in (tmp_path / ASSET).iterdir() if not path.name.startswith(".")}
    assert names == {"acme.parquet"}
    with pytest.raises(OctogenSnapshotError, match="was not changed, because it has no snapshot"):
        forget_snapshot(str(tmp_path), day(1) - timedelta(seconds=1), asset=ASSET)
