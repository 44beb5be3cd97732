"""The public names and the module of each, for type checkers and for `__init__.py`.

The imports are relative because `lazy_loader` reads no others.
"""

from . import errors
from .alerts.asset import build_price_alerts_asset
from .alerts.sensor import build_alert_sensor
from .api.catalog_sources import CatalogSource, GrantedCatalogs, NamedCatalogs, ShopCatalogs
from .api.client import OctogenClient
from .api.search import Facet, ProductSearch
from .assets.automation import follow_upstream
from .bigquery.linked_datasets import build_linked_datasets_asset
from .bigquery.linked_products import build_linked_products_asset
from .bigquery.linked_snapshot import build_linked_snapshot_asset
from .bigquery.listing_sensor import build_listing_sensor
from .bigquery.listing_sources import ExchangeSource, OctogenSource, StaticSource
from .bigquery.partitions import listing_partitions
from .bigquery.resources import AnalyticsHubResource, OctogenControlPlaneResource
from .bigquery.subscription_checks import build_linked_datasets_checks
from .brands.asset import build_product_brands_asset
from .changes.asset import build_product_changes_asset
from .checks.snapshot_checks import build_snapshot_checks
from .costs.asset import build_costs_asset
from .details.asset import build_product_details_asset
from .errors import MissingAPIKeyError, OctogenAPIError, OctogenError
from .history.asset import build_history_asset, build_product_history_asset
from .history.files import scan_history
from .position.asset import build_price_position_asset
from .products.asset import build_products_asset
from .products.catalog_sensor import build_catalog_sensor
from .products.catalogs import build_catalogs_asset
from .products.resource import OctogenResource
from .products.schedules import build_snapshot_schedule
from .reading.scan import ProductScan, scan_products
from .sharing.subscribe import BigQuerySubscriptionResult, subscribe_to_listing
from .snapshots.io_manager import ParquetSnapshotIOManager
from .snapshots.partitions import catalog_days, catalog_partitions, snapshot_days
from .tables.asset import build_table_asset
from .url_lists.export import build_url_list_export_asset
from .url_lists.export_sensor import build_url_list_sensor
from .url_lists.list_asset import build_url_list_asset, build_url_list_checks
from .url_lists.matches import build_url_matches_asset

__version__: str

__all__ = [
    "AnalyticsHubResource",
    "BigQuerySubscriptionResult",
    "CatalogSource",
    "ExchangeSource",
    "Facet",
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
    "StaticSource",
    "build_alert_sensor",
    "build_catalog_sensor",
    "build_catalogs_asset",
    "build_costs_asset",
    "build_history_asset",
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
    "build_url_list_asset",
    "build_url_list_checks",
    "build_url_list_export_asset",
    "build_url_list_sensor",
    "build_url_matches_asset",
    "catalog_days",
    "catalog_partitions",
    "errors",
    "follow_upstream",
    "listing_partitions",
    "scan_history",
    "scan_products",
    "snapshot_days",
    "subscribe_to_listing",
]
