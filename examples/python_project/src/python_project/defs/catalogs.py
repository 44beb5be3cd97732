"""Catalogs with their history, changes and checks."""

from octogen_dagster import (
    build_catalog_sensor,
    build_catalogs_asset,
    build_product_changes_asset,
    build_product_history_asset,
    build_products_asset,
    build_snapshot_checks,
    catalog_partitions,
    follow_upstream,
)

catalogs = build_catalogs_asset(partitions_def=catalog_partitions)
products = build_products_asset("products", partitions_def=catalog_partitions)
history = build_product_history_asset(
    products, name="history", automation_condition=follow_upstream()
)
changes = build_product_changes_asset(
    history, name="changes", automation_condition=follow_upstream()
)
checks = build_snapshot_checks(products)
new_catalogs = build_catalog_sensor(products)
