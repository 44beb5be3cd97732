"""The definitions of the settings of an OctogenComponent, made of the public builders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg

from octogen_dagster.automation import follow_upstream
from octogen_dagster.components.settings import (
    AssetSettings,
    Kind,
    OctogenAssetData,
    OctogenSettings,
    ScheduleSettings,
    SearchSettings,
    sensor_status,
    translated,
)
from octogen_dagster.snapshots.assets import build_products_asset
from octogen_dagster.snapshots.catalog_sensor import build_catalog_sensor
from octogen_dagster.snapshots.catalogs import build_catalogs_asset
from octogen_dagster.snapshots.checks import build_snapshot_checks
from octogen_dagster.snapshots.derived import (
    build_product_brands_asset,
    build_product_changes_asset,
    build_product_details_asset,
)
from octogen_dagster.snapshots.history import build_product_history_asset
from octogen_dagster.snapshots.partitions import catalog_days, snapshot_days
from octogen_dagster.snapshots.schedules import build_snapshot_schedule

_FOLLOWS: dict[str, Any] = {"automation_condition": follow_upstream()}


class Deployment:
    """The definitions of settings.

    `get_spec` changes the spec of each asset before it is built, and `execute` runs its function.
    """

    def __init__(
        self,
        settings: OctogenSettings,
        get_spec: Callable[[OctogenAssetData], dg.AssetSpec],
        execute: Callable[..., Any],
    ) -> None:
        self._settings = settings
        self._get_spec = get_spec
        self._execute = execute
        self._reads: dict[str, Any] = {"resource_key": settings.name, "execute": execute}
        self._catalogs = dg.DynamicPartitionsDefinition(name=f"{settings.name}_catalogs")

    def definitions(self) -> dg.Definitions:
        """Build the assets, checks, sensors, schedules and resources."""
        settings = self._settings
        resources: dict[str, Any] = {settings.name: settings.octogen()}
        if settings.storage is not None:
            resources[f"{settings.name}_io_manager"] = settings.storage.io_manager()
        table = []
        if (of_table := settings.catalogs_table) is not None:
            spec = self._spec("catalogs", of_table, f"{settings.name}_catalogs")
            table = [build_catalogs_asset(spec, partitions_def=self._catalogs, **self._reads)]
        defs = dg.Definitions.merge(
            dg.Definitions(assets=table, resources=resources),
            *(self._of_search(search, table) for search in settings.searches),
        )
        if settings.automation is None:
            return defs  # Dagster's own sensor of automation conditions is there, and stopped
        sensor = dg.AutomationConditionSensorDefinition(
            f"{settings.name}_automation",
            target=dg.AssetSelection.assets(*(spec.key for spec in defs.resolve_all_asset_specs())),
            default_status=dg.DefaultSensorStatus.RUNNING,
        )
        return dg.Definitions.merge(defs, dg.Definitions(sensors=[sensor]))

    def _of_search(
        self, search: SearchSettings, table: list[dg.AssetsDefinition]
    ) -> dg.Definitions:
        products = build_products_asset(
            self._spec(
                "products",
                search,
                search.name,
                search=search,
                partitions_def=self._partitions(search),
            ),
            search.search,
            min_rows_fraction=search.min_rows_fraction,
            deps=table if search.by_catalog else [],
            resource_key=self._settings.name,
            **self._runs(search),
        )
        sensors = []
        if search.has_sensor:
            sensor = build_catalog_sensor(
                products,
                name=f"{search.name}_catalog_sensor",
                default_status=sensor_status(search.sensor),
                resource_key=self._settings.name,
            )
            sensors.append(sensor)
        followers = self._followers(search, products)
        checked = [products]
        if search.history is not None:
            name = f"{products.key.path[-1]}_history"
            spec = self._spec("history", search.history, name, **_FOLLOWS)
            history = build_product_history_asset(products, name=spec, **self._runs(search))
            checked.append(history)
            followers.append(history)
        checks = []
        if (settings := search.checks) is not None:
            for asset in checked:
                checks += build_snapshot_checks(asset, **settings.arguments())
        return dg.Definitions(
            assets=[products, *followers],
            asset_checks=checks,
            sensors=sensors,
            schedules=[]
            if search.schedule is None
            else [_schedule(search.name, products, search.schedule)],
        )

    def _followers(
        self, search: SearchSettings, products: dg.AssetsDefinition
    ) -> list[dg.AssetsDefinition]:
        name = products.key.path[-1]
        runs = self._runs(search)
        followers = []
        if search.changes is not None:
            spec = self._spec("changes", search.changes, f"{name}_changes", **_FOLLOWS)
            followers.append(build_product_changes_asset(products, name=spec, **runs))
        if search.details is not None:  # without a condition: their lookups are charged
            followers.append(
                build_product_details_asset(
                    products,
                    name=self._spec("details", search.details, f"{name}_details"),
                    only_changed=search.details.only_changed,
                    max_failed_fraction=search.details.max_failed_fraction,
                    resource_key=self._settings.name,
                    **runs,
                )
            )
        if search.brands is not None:
            spec = self._spec("brands", search.brands, f"{name}_brands", **_FOLLOWS)
            followers.append(build_product_brands_asset(products, name=spec, **runs))
        return followers

    def _spec(
        self,
        kind: Kind,
        asset: AssetSettings,
        name: str,
        *,
        search: SearchSettings | None = None,
        **attributes: Any,
    ) -> dg.AssetSpec:
        """Return the spec of an asset as the component and both translations change it."""
        spec = dg.AssetSpec(asset.name or name, **attributes)
        if self._settings.storage is not None:
            spec = spec.with_io_manager_key(f"{self._settings.name}_io_manager")
        data = OctogenAssetData(kind, spec, None if search is None else search.search)
        return translated(data, self._get_spec, self._settings.translation, asset.translation)

    def _runs(self, search: SearchSettings) -> dict[str, Any]:
        """What the runs of a search's assets are: how many catalogs, and who executes them."""
        policy = search.backfill_policy
        if self._settings.storage is None and "catalogs_per_run" not in search.model_fields_set:
            policy = None  # an IO manager of the project may know of one partition only
        return {"backfill_policy": policy, "execute": self._execute}

    def _partitions(self, search: SearchSettings) -> dg.PartitionsDefinition[Any] | None:
        if not search.by_day or search.start_date is None:
            return self._catalogs if search.by_catalog else None
        if search.by_catalog:
            return catalog_days(search.start_date, search.timezone, catalogs=self._catalogs)
        return snapshot_days(search.start_date, search.timezone)


def _schedule(
    name: str, products: dg.AssetsDefinition, schedule: ScheduleSettings
) -> dg.ScheduleDefinition:
    status = dg.DefaultScheduleStatus
    return build_snapshot_schedule(
        products,
        schedule.cron,
        execution_timezone=schedule.timezone,
        name=f"{name}_schedule",
        default_status=status.RUNNING if schedule.running else status.STOPPED,
    )
