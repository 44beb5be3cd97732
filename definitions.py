"""A code location that uses octogen-dagster, as one would write it.

`OCTOGEN_ENV=sandbox` reads from a local `octogen-dagster sandbox` instead of Octogen.
"""

import os

import dagster as dg

from octogen_dagster import (
    Facet,
    FacetName,
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_catalogs_asset,
    build_products_asset,
    catalog_partitions,
)

octogen = {
    "production": OctogenResource(),
    "sandbox": OctogenResource(
        base_url=os.environ.get("OCTOGEN_BASE_URL", "http://127.0.0.1:8787/v1")
    ),
}

defs = dg.Definitions(
    assets=[
        build_catalogs_asset(partitions_def=catalog_partitions),
        build_products_asset("octogen_products", partitions_def=catalog_partitions),
        build_products_asset(
            "linen_dresses",
            ProductSearch(
                q="linen dress", facets=[Facet(name=FacetName.GENDER, values=["female"])]
            ),
        ),
    ],
    resources={
        "octogen": octogen[os.environ.get("OCTOGEN_ENV", "production")],
        "io_manager": ParquetSnapshotIOManager(
            base_dir=os.environ.get("OCTOGEN_SNAPSHOTS", "snapshots")
        ),
    },
)
