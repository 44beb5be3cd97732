"""Products with their history, in real runs of Dagster."""

from __future__ import annotations

import os
import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from polars.testing import assert_frame_equal

from octogen_dagster import (
    OctogenResource,
    ProductSearch,
    build_product_history_asset,
    build_products_asset,
    scan_history,
)
from octogen_dagster.history import update as history_update
from octogen_dagster.snapshots import publication
from octogen_dagster.storage.store import Store
from tests.projects import Project
from tests.results import metadata, stored

TRACKED = ["title", "current_price", "original_price", "currency", "in_stock", "is_active"]
ORDER = ["catalog_key", "uuid"]
ASSET = "products_history"


class Pipeline(Project):
    """Products with their history, and a copy of each snapshot by its `fetched_at`."""

    def __init__(
        self, base: Path, octogen: OctogenResource, instance: dg.DagsterInstance, **arguments: Any
    ) -> None:
        given = {"retry_policy": None, "search": ProductSearch(catalogs=["strada"]), **arguments}
        self.products = build_products_asset("products", **given)
        self.history = build_product_history_asset(self.products, retry_policy=None)
        super().__init__(base, instance, octogen)
        self.resources = stored(base, octogen)
        self.snapshots: dict[datetime, pl.DataFrame] = {}

    def store(self, partition_key: str | None = None) -> datetime:
        """Materialize the products alone, and return the `fetched_at` of the snapshot."""
        self.update(self.products, partition_key)
        files = self.folder.glob("products/**/*.parquet" if partition_key else "products.parquet")
        file = max(files, key=lambda path: path.stat().st_mtime)
        snapshot = pl.read_parquet(file)
        at = datetime.fromisoformat(pl.read_parquet_metadata(file)["octogen.fetched_at"])
        self.snapshots[at] = snapshot
        return at

    def put_in(self, partition_key: str | None = None) -> dict[str, Any]:
        """Materialize the history alone, and return its metadata."""
        return metadata(self.update(self.history, partition_key), ASSET)

    def update(
        self, asset: dg.AssetsDefinition, partition_key: str | None
    ) -> dg.ExecuteInProcessResult:
        assets = [self.products, self.history]
        return self.run(assets, selection=[asset], partition_key=partition_key)

    def scan(self, as_of: datetime | None = None) -> pl.DataFrame:
        return scan_history(str(self.folder), asset=ASSET, as_of=as_of).collect().sort(*ORDER)

    def check(self) -> None:
        """Check that as of the time of each snapshot the history is that snapshot."""
        for at, snapshot in self.snapshots.items():
            expected = snapshot.select(*ORDER, *TRACKED).sort(*ORDER)
            assert_frame_equal(self.scan(at).select(*ORDER, *TRACKED), expected)


MOMENTS = {
    "the rows are being read": (history_update, "put_in"),
    "the file is being written": (Store, "unfinished"),
    "the file is written": (Store, "publish_if"),
    "the file is published": (publication, "PublishedSnapshot"),
    "the run reports it": (dg.AssetExecutionContext, "add_asset_metadata"),
}


def put_in_and_die(base: str, moment: str) -> None:
    """Put the snapshot of the products into their history, in a process that is killed midway."""
    module, name = MOMENTS[moment]
    work = getattr(module, name)

    def killed(*arguments: Any, **named: Any) -> Any:
        if name == "put_in":  # after the first rows
            next(work(*arguments, **named))
        if name == "unfinished":  # with an empty file beside the history
            work(*arguments, **named).__enter__()
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, name, killed)
    products = build_products_asset("products")
    dg.materialize(
        [products, build_product_history_asset(products)],
        selection=[ASSET],
        resources=stored(Path(base), OctogenResource(api_key="unused")),
    )
