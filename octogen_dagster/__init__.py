"""The names that a definitions file or a notebook uses.

Every error is in `octogen_dagster.errors`, and the models of Octogen's responses are in
`octogen_dagster.api.models`.
"""

import importlib.metadata

from dagster_shared.libraries import DagsterLibraryRegistry

from octogen_dagster.api.catalog_sources import (
    CatalogSource,
    GrantedCatalogs,
    NamedCatalogs,
    ShopCatalogs,
)
from octogen_dagster.api.catalog_states import CatalogList, CatalogState
from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.facets import AgeGroup, ColorFamily, Facet, FacetName, Gender
from octogen_dagster.bigquery.linked_datasets import build_linked_datasets_asset
from octogen_dagster.bigquery.linked_products import build_linked_products_asset
from octogen_dagster.bigquery.linked_products_query import query_linked_products
from octogen_dagster.bigquery.listing_sensor import build_listing_sensor
from octogen_dagster.bigquery.listing_sources import ExchangeSource, OctogenSource, StaticSource
from octogen_dagster.bigquery.partitions import (
    listing_of,
    listing_partition_key,
    listing_partitions,
)
from octogen_dagster.bigquery.resources import AnalyticsHubResource, OctogenControlPlaneResource
from octogen_dagster.errors import (
    MissingAPIKeyError,
    OctogenAPIError,
    OctogenError,
)
from octogen_dagster.frames.changes import CHANGES_SCHEMA, SnapshotPair
from octogen_dagster.frames.details.schema import DETAIL_SCHEMA
from octogen_dagster.frames.scan import ProductScan, scan_products
from octogen_dagster.frames.schema import PRODUCT_SCHEMA
from octogen_dagster.frames.search import ProductSearch
from octogen_dagster.sharing.subscribe import BigQuerySubscriptionResult, subscribe_to_listing
from octogen_dagster.snapshots.assets import build_products_asset
from octogen_dagster.snapshots.catalog_sensor import build_catalog_sensor
from octogen_dagster.snapshots.catalogs import build_catalogs_asset
from octogen_dagster.snapshots.changes import build_product_changes_asset
from octogen_dagster.snapshots.details import build_product_details_asset
from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from octogen_dagster.snapshots.partitions import (
    catalog_days,
    catalog_of,
    catalog_partition_key,
    catalog_partitions,
    snapshot_days,
)
from octogen_dagster.snapshots.resource import OctogenResource
from octogen_dagster.snapshots.schedules import build_snapshot_schedule

__version__ = importlib.metadata.version("octogen-dagster")

DagsterLibraryRegistry.register("octogen-dagster", __version__, is_dagster_package=False)

__all__ = [
    "CHANGES_SCHEMA",
    "DETAIL_SCHEMA",
    "PRODUCT_SCHEMA",
    "AgeGroup",
    "AnalyticsHubResource",
    "BigQuerySubscriptionResult",
    "CatalogList",
    "CatalogSource",
    "CatalogState",
    "ColorFamily",
    "ExchangeSource",
    "Facet",
    "FacetName",
    "Gender",
    "GrantedCatalogs",
    "MissingAPIKeyError",
    "NamedCatalogs",
    "OctogenAPIError",
    "OctogenClient",
    "OctogenControlPlaneResource",
    "OctogenError",
    "OctogenResource",
    "OctogenSource",
    "ParquetSnapshotIOManager",
    "ProductScan",
    "ProductSearch",
    "ShopCatalogs",
    "SnapshotPair",
    "StaticSource",
    "build_catalog_sensor",
    "build_catalogs_asset",
    "build_linked_datasets_asset",
    "build_linked_products_asset",
    "build_listing_sensor",
    "build_product_changes_asset",
    "build_product_details_asset",
    "build_products_asset",
    "build_snapshot_schedule",
    "catalog_days",
    "catalog_of",
    "catalog_partition_key",
    "catalog_partitions",
    "listing_of",
    "listing_partition_key",
    "listing_partitions",
    "query_linked_products",
    "scan_products",
    "snapshot_days",
    "subscribe_to_listing",
]
