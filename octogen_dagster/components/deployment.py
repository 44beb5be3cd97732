"""The definitions of an OctogenComponent, made of the public builders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from octogen_dagster.automation import follow_upstream
from octogen_dagster.components.settings import (
    AssetSettings,
    Kind,
    OctogenAssetData,
    OctogenSettings,
    SearchSettings,
)
from octogen_dagster.components.table_settings import TableSettings
from octogen_dagster.snapshots.alerts import build_price_alerts_asset
from octogen_dagster.snapshots.brands import build_product_brands_asset
from octogen_dagster.snapshots.catalog_sensor import build_catalog_sensor
from octogen_dagster.snapshots.catalogs import build_catalogs_asset
from octogen_dagster.snapshots.changes import build_product_changes_asset
from octogen_dagster.snapshots.checks import build_snapshot_checks
from octogen_dagster.snapshots.details import build_product_details_asset
from octogen_dagster.snapshots.history import build_product_history_asset
from octogen_dagster.snapshots.partitions import catalog_days, snapshot_days
from octogen_dagster.snapshots.products import build_products_asset
from octogen_dagster.snapshots.schedules import build_snapshot_schedule

_FOLLOWERS: dict[Kind, Any] = {
    "changes": build_product_changes_asset,
    "details": build_product_details_asset,
    "brands": build_product_brands_asset,
    "history": build_product_history_asset,
}


class Deployment:
    """The definitions of a component."""

    def __init__(self, component: OctogenSettings) -> None:
        self._component = component
        self._name = component.name
        self._catalogs = dg.DynamicPartitionsDefinition(name=f"{self._name}_catalogs")

    def definitions(self) -> dg.Definitions:
        """Build the assets, checks, sensors, schedules and resources."""
        component = self._component
        resources: dict[str, Any] = {self._name: component.octogen()}
        if component.storage is not None:
            resources[f"{self._name}_io_manager"] = component.storage.io_manager()
        tables = []
        if (table := component.catalogs_table) is not None:
            catalogs = build_catalogs_asset(
                self._spec("catalogs", table, f"{self._name}_catalogs"),
                partitions_def=self._catalogs,
                resource_key=self._name,
                execute=component.execute,
            )
            tables.append(catalogs)
        defs = dg.Definitions.merge(
            dg.Definitions(assets=tables, resources=resources),
            *(self._of_search(search, tables) for search in component.searches),
        )
        if component.automation is None:
            return defs  # Dagster's own sensor of automation conditions is there, and stopped
        sensor = dg.AutomationConditionSensorDefinition(
            f"{self._name}_automation",
            target=dg.AssetSelection.assets(*(spec.key for spec in defs.resolve_all_asset_specs())),
            default_status=dg.DefaultSensorStatus.RUNNING,
        )
        return dg.Definitions.merge(defs, dg.Definitions(sensors=[sensor]))

    def _of_search(
        self, search: SearchSettings, tables: list[dg.AssetsDefinition]
    ) -> dg.Definitions:
        runs: dict[str, Any] = {
            "backfill_policy": self._policy(search),
            "execute": self._component.execute,
        }
        partitions = self._partitions(search)
        products = build_products_asset(
            self._spec("products", search, search.name, search, partitions_def=partitions),
            search.search,
            min_rows_fraction=search.min_rows_fraction,
            deps=tables if search.by_catalog else [],
            resource_key=self._name,
            **runs,
        )
        sensors, schedules, checks = [], [], []
        if (sensor := search.catalog_sensor) is not None:
            name = f"{search.name}_catalog_sensor"
            arguments = sensor.arguments() | {"name": name, "resource_key": self._name}
            sensors.append(build_catalog_sensor(products, **arguments))
        if (schedule := search.schedule) is not None:
            name = f"{search.name}_schedule"
            schedules.append(build_snapshot_schedule(products, name=name, **schedule.arguments()))
        assets: dict[Kind, dg.AssetsDefinition] = {"products": products}
        for kind, build in _FOLLOWERS.items():
            if (settings := getattr(search, kind)) is not None:
                # Lookups are charged: details are made when somebody asks for them.
                is_charged = kind == "details"
                condition = None if is_charged else follow_upstream()
                name = f"{products.key.path[-1]}_{kind}"
                spec = self._spec(kind, settings, name, automation_condition=condition)
                reads = {"resource_key": self._name} if is_charged else {}
                arguments = settings.written() | runs | reads
                assets[kind] = build(products, name=spec, **arguments)
        if search.alerts:
            name = f"{products.key.path[-1]}_alerts"
            spec = self._spec(
                "alerts", AssetSettings(), name, automation_condition=follow_upstream()
            )
            assets["alerts"] = build_price_alerts_asset(
                assets["history"], search.alert_rules(), name=spec, **runs
            )
        loaded = [] if search.tables is None else self._tables(search.tables, assets)
        if search.checks is not None:
            for kind, asset in assets.items():
                if kind in ("products", "history", "alerts"):
                    checks += build_snapshot_checks(asset, **search.checks.arguments())
        return dg.Definitions(
            assets=[*assets.values(), *loaded],
            asset_checks=checks,
            sensors=sensors,
            schedules=schedules,
        )

    def _tables(
        self, tables: TableSettings, assets: Mapping[Kind, dg.AssetsDefinition]
    ) -> list[dg.AssetsDefinition]:
        from octogen_dagster.tables.asset import build_table_asset

        destination = tables.destination.destination()
        loaded = []
        for kind, asset in assets.items():
            if tables.of is None or kind in tables.of:
                name = f"{asset.key.path[-1]}_table"
                follow = follow_upstream()
                spec = self._spec("table", AssetSettings(), name, automation_condition=follow)
                table = build_table_asset(
                    asset,
                    destination,
                    name=spec,
                    backfill_policy=asset.backfill_policy,
                    execute=self._component.execute,
                )
                loaded.append(table)
        return loaded

    def _spec(
        self,
        kind: Kind,
        asset: AssetSettings,
        name: str,
        search: SearchSettings | None = None,
        **attributes: Any,
    ) -> dg.AssetSpec:
        """Return the spec of an asset as the component and both translations change it."""
        spec = dg.AssetSpec(asset.name or name, **attributes)
        if self._component.storage is not None:
            spec = spec.with_io_manager_key(f"{self._name}_io_manager")
        data = OctogenAssetData(kind, spec, None if search is None else search.search)
        return self._component.translated(data, asset)

    def _policy(self, search: SearchSettings) -> dg.BackfillPolicy | None:
        """Return how many catalogs a run of a search's assets has; None for one."""
        is_said = "catalogs_per_run" in search.model_fields_set
        # An IO manager of the project may know of one partition only.
        is_one = search.catalogs_per_run == 1 or (self._component.storage is None and not is_said)
        if is_one or not search.by_catalog:
            return None
        return dg.BackfillPolicy.multi_run(search.catalogs_per_run)

    def _partitions(self, search: SearchSettings) -> dg.PartitionsDefinition[Any] | None:
        if search.start_date is None:
            return self._catalogs if search.by_catalog else None
        first = search.start_date.isoformat()
        if search.by_catalog:
            return catalog_days(first, search.timezone, catalogs=self._catalogs)
        return snapshot_days(first, search.timezone)
