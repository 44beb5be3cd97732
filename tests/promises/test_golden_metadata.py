"""The metadata of a published snapshot, compared with a golden file."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster import (
    Facet,
    FacetName,
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_products_asset,
    catalog_partitions,
)
from octogen_dagster.sandbox.server import Sandbox

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "golden" / "snapshot_metadata.json").read_text()
)
FETCHED_AT = datetime.fromisoformat(GOLDEN["file"]["octogen.fetched_at"])
SEARCH = ProductSearch(
    facets=[Facet(name=FacetName.GENDER, values=["male"])], price_max=900, page_size=50
)


def test_a_snapshot_is_published_with_the_golden_metadata(
    tmp_path: Path, octogen: OctogenResource, shops: Sandbox, instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", ["strada"])
    products = build_products_asset(
        "products",
        SEARCH,
        catalog_partitions,
        key_prefix="shop",
        retry_policy=None,
        _clock=lambda: FETCHED_AT,
    )
    result = dg.materialize(
        [products],
        partition_key="strada",
        instance=instance,
        resources={
            "octogen": octogen,
            "io_manager": ParquetSnapshotIOManager(base_dir=str(tmp_path)),
        },
    )

    path = tmp_path / "shop" / "products" / "strada.parquet"
    stored = {
        name: value
        for name, value in pl.read_parquet_metadata(path).items()
        if name.startswith("octogen")
    }
    assert stored == GOLDEN["file"] | {"octogen.run_id": result.run_id}
    (event,) = result.asset_materializations_for_node("shop__products")
    assert sorted(event.metadata) == GOLDEN["materialization"]
