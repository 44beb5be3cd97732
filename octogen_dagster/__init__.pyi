"""The public names and the module of each, for type checkers and for `__init__.py`.

The imports are relative because `lazy_loader` reads no others.
"""

from . import errors
from .api.catalog_sources import (
    CatalogSource,
    GrantedCatalogs,
    NamedCatalogs,
    ShopCatalogs,
)
from .api.catalog_states import (
    CatalogList,
    CatalogState,
)
from .api.client import OctogenClient
from .api.search import (
    AgeGroup,
    ColorFamily,
    Facet,
    FacetName,
    Gender,
    ProductSearch,
)
from .automation import follow_upstream
from .bigquery.linked_datasets import build_linked_datasets_asset
from .bigquery.linked_products import build_linked_products_asset
from .bigquery.linked_snapshot import build_linked_snapshot_asset
from .bigquery.listing_sensor import build_listing_sensor
from .bigquery.listing_sources import (
    ExchangeSource,
    OctogenSource,
    StaticSource,
)
from .bigquery.partitions import (
    listing_of,
    listing_partition_key,
    listing_partitions,
)
from .bigquery.resources import (
    AnalyticsHubResource,
    OctogenControlPlaneResource,
)
from .bigquery.subscription_checks import build_linked_datasets_checks
from .components.component import OctogenComponent
from .components.linked_component import OctogenLinkedDatasetsComponent
from .components.settings import OctogenAssetData
from .doctor.checks import diagnose
from .doctor.findings import (
    Diagnosis,
    Finding,
)
from .errors import (
    MissingAPIKeyError,
    OctogenAPIError,
    OctogenError,
)
from .frames.alert_rules import (
    Appeared,
    BackInStock,
    Disappeared,
    OutOfStock,
    PriceDropped,
    PriceRose,
)
from .frames.alerts import ALERTS_SCHEMA
from .frames.brands import BRANDS_SCHEMA
from .frames.changes import CHANGES_SCHEMA
from .frames.columns import DETAIL_SCHEMA, PRODUCT_SCHEMA
from .frames.history import HISTORY_SCHEMA
from .frames.history_export import export_history
from .frames.history_files import (
    forget_snapshot,
    scan_history,
)
from .frames.pictures import price_index_svg
from .frames.position import price_index, price_position, price_summary
from .frames.scan import (
    ProductScan,
    scan_products,
)
from .frames.stored import SnapshotPair
from .sharing.subscribe import (
    BigQuerySubscriptionResult,
    subscribe_to_listing,
)
from .snapshots.alert_sensor import build_alert_sensor
from .snapshots.alerts import build_price_alerts_asset
from .snapshots.brands import build_product_brands_asset
from .snapshots.catalog_sensor import build_catalog_sensor
from .snapshots.catalogs import build_catalogs_asset
from .snapshots.changes import build_product_changes_asset
from .snapshots.checks import build_snapshot_checks
from .snapshots.details import build_product_details_asset
from .snapshots.history import build_product_history_asset
from .snapshots.io_manager import ParquetSnapshotIOManager
from .snapshots.partitions import (
    catalog_days,
    catalog_of,
    catalog_partition_key,
    catalog_partitions,
    snapshot_days,
)
from .snapshots.position import build_price_position_asset
from .snapshots.products import build_products_asset
from .snapshots.resource import OctogenResource
from .snapshots.schedules import build_snapshot_schedule
from .tables.asset import build_table_asset
from .tables.bigquery import BigQueryTables
from .tables.destination import TableConnection, TableDestination
from .tables.duckdb import DuckDBTables
from .tables.postgres import PostgresTables
from .tables.snowflake import SnowflakeTables
from .url_lists.coverage import UrlCoverage, build_url_coverage_asset
from .url_lists.export_sensor import build_url_list_sensor
from .url_lists.list_asset import build_url_list_asset, build_url_list_checks

__version__: str

__all__ = [
    "ALERTS_SCHEMA",
    "BRANDS_SCHEMA",
    "CHANGES_SCHEMA",
    "DETAIL_SCHEMA",
    "HISTORY_SCHEMA",
    "PRODUCT_SCHEMA",
    "AgeGroup",
    "AnalyticsHubResource",
    "Appeared",
    "BackInStock",
    "BigQuerySubscriptionResult",
    "BigQueryTables",
    "CatalogList",
    "CatalogSource",
    "CatalogState",
    "ColorFamily",
    "Diagnosis",
    "Disappeared",
    "DuckDBTables",
    "ExchangeSource",
    "Facet",
    "FacetName",
    "Finding",
    "Gender",
    "GrantedCatalogs",
    "MissingAPIKeyError",
    "NamedCatalogs",
    "OctogenAPIError",
    "OctogenAssetData",
    "OctogenClient",
    "OctogenComponent",
    "OctogenControlPlaneResource",
    "OctogenError",
    "OctogenLinkedDatasetsComponent",
    "OctogenResource",
    "OctogenSource",
    "OutOfStock",
    "ParquetSnapshotIOManager",
    "PostgresTables",
    "PriceDropped",
    "PriceRose",
    "ProductScan",
    "ProductSearch",
    "ShopCatalogs",
    "SnapshotPair",
    "SnowflakeTables",
    "StaticSource",
    "TableConnection",
    "TableDestination",
    "UrlCoverage",
    "build_alert_sensor",
    "build_catalog_sensor",
    "build_catalogs_asset",
    "build_linked_datasets_asset",
    "build_linked_datasets_checks",
    "build_linked_products_asset",
    "build_linked_snapshot_asset",
    "build_listing_sensor",
    "build_price_alerts_asset",
    "build_price_position_asset",
    "build_product_brands_asset",
    "build_product_changes_asset",
    "build_product_details_asset",
    "build_product_history_asset",
    "build_products_asset",
    "build_snapshot_checks",
    "build_snapshot_schedule",
    "build_table_asset",
    "build_url_coverage_asset",
    "build_url_list_asset",
    "build_url_list_checks",
    "build_url_list_sensor",
    "catalog_days",
    "catalog_of",
    "catalog_partition_key",
    "catalog_partitions",
    "diagnose",
    "errors",
    "export_history",
    "follow_upstream",
    "forget_snapshot",
    "listing_of",
    "listing_partition_key",
    "listing_partitions",
    "price_index",
    "price_index_svg",
    "price_position",
    "price_summary",
    "scan_history",
    "scan_products",
    "snapshot_days",
    "subscribe_to_listing",
]
