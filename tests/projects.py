"""A project whose runs are in this process, and one of products that are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster import OctogenResource, build_product_history_asset
from octogen_dagster.schemas import PRODUCT_SCHEMA
from tests import results

QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


@dataclass
class Project:
    """The folder of the snapshots, the instance of the runs, and the service that they read."""

    folder: Path
    instance: dg.DagsterInstance
    octogen: OctogenResource | None = None

    def run(
        self, assets: Sequence[Any], octogen: OctogenResource | None = None, **options: Any
    ) -> dg.ExecuteInProcessResult:
        """Materialize assets; `options` are those of `dagster.materialize`."""
        return results.materialized(
            assets, self.folder, octogen or self.octogen, instance=self.instance, **options
        )

    def failure(self, assets: Sequence[Any], *octogen: OctogenResource, **options: Any) -> str:
        """Materialize assets, and return the error of the only step that failed."""
        return results.failure(self.run(assets, *octogen, raise_on_error=False, **options))

    def read(self, asset: str, partition: str | None = None) -> pl.DataFrame:
        """Read the snapshot of an asset."""
        name = f"{asset}/{partition}" if partition else asset
        return pl.read_parquet(self.folder / f"{name}.parquet")


def given_frame(
    at: datetime,
    products: Sequence[dict[str, Any]] | pl.DataFrame,
    catalog: str | None = "acme",
    schema: pl.Schema = PRODUCT_SCHEMA,
) -> pl.DataFrame:
    """A snapshot of products; without a catalog they say their `catalog_key` themselves."""
    rows = pl.DataFrame(products).with_columns(fetched_at=pl.lit(at))
    if catalog:
        rows = rows.with_columns(catalog_key=pl.lit(catalog))
    none = pl.DataFrame(schema=schema)
    return pl.concat([none, rows], how="diagonal_relaxed").cast(schema)


class GivenProducts(Project):
    """Products that are given, with their history and what else follows them.

    Attributes:
        frame: The products of the next run.
        following: The assets and checks that follow the products and their history.
    """

    def __init__(
        self,
        folder: Path,
        instance: dg.DagsterInstance,
        partitions_def: dg.PartitionsDefinition[Any] | None = None,
        **history: Any,
    ) -> None:
        super().__init__(folder, instance)

        @dg.asset(name="octogen_products", partitions_def=partitions_def)
        def products() -> pl.DataFrame:
            return self.frame

        self.products = products
        self.history = build_product_history_asset(products, **history)
        self.following: list[Any] = []
        self.frame = pl.DataFrame()

    def update(
        self, *assets: dg.AssetsDefinition, partition_key: str | None = None
    ) -> dg.ExecuteInProcessResult:
        """Materialize these of the assets, or all, with their checks."""
        return self.run(
            [self.products, self.history, *self.following],
            selection=assets or None,
            partition_key=partition_key,
            run_config=QUIET,
        )
