"""The checks of a history are about a past, and find what is wrong with one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from octogen_dagster.sandbox.server import Sandbox
from tests.promises.history.history_runs import ASSET, Pipeline

OF_ROWS = {"one_current_row", "no_overlap", "no_gap"}
IS_OVER = pl.col("valid_to").is_not_null()
LATER = timedelta(hours=1)
Spoil = Callable[[pl.DataFrame], pl.DataFrame]
FAULTS: dict[str, tuple[Spoil, set[str]]] = {
    "a row again": (lambda rows: pl.concat([rows, rows.filter("is_current").head(1)]), OF_ROWS),
    "a second current row": (
        lambda rows: rows.with_columns(is_current=True, valid_to=None),
        OF_ROWS,
    ),
    "a row without its end": (lambda rows: rows.with_columns(is_current=True), {"one_current_row"}),
    "a row that lasts too long": (
        lambda rows: rows.with_columns(pl.col("valid_to") + LATER),
        {"no_overlap", "no_gap"},
    ),
    "a row that ends too early": (
        lambda rows: rows.with_columns(pl.col("valid_to") - timedelta(microseconds=1)),
        {"no_gap"},
    ),
    "a row is missing": (lambda rows: rows.filter(~IS_OVER), {"no_gap"}),
}


@pytest.mark.slow
def test_a_history_passes_its_checks_and_one_that_something_else_changed_fails(
    tmp_path: Path, octogen: od.OctogenResource, instance: dg.DagsterInstance, shops: Sandbox
) -> None:
    pipeline = Pipeline(tmp_path, octogen, instance)
    for _ in range(3):
        pipeline.store()
        pipeline.put_in()
        shops.next_day()
    assert pipeline.scan()["change"].n_unique() > 1
    checks = od.build_snapshot_checks(pipeline.history, max_age=None)

    def failed() -> set[str]:
        result = pipeline.run(
            [pipeline.products, pipeline.history, *checks],
            selection=dg.AssetSelection.checks(*checks),
        )
        evaluations = result.get_asset_check_evaluations()
        assert {each.check_name for each in evaluations} == {*OF_ROWS, "nothing_left_out"}
        return {each.check_name for each in evaluations if not each.passed}

    assert not failed()
    file = pipeline.folder / f"{ASSET}.parquet"
    rows = pl.read_parquet(file)
    for fault, (spoil, found) in FAULTS.items():
        spoil(rows).write_parquet(file)
        assert failed() == found, fault


def test_the_checks_of_snapshots_are_not_those_of_a_history() -> None:
    history = od.build_product_history_asset(od.build_products_asset("products"))
    built = od.build_snapshot_checks(history, exclude=["no_gap"])
    names = {key.name for each in built for key in each.check_keys}
    assert names == {"one_current_row", "no_overlap", "nothing_left_out"}
