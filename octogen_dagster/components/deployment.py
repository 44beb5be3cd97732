"""The definitions of an OctogenComponent, made of the public builders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from octogen_dagster.components.asset_data import Kind, OctogenAssetData
from octogen_dagster.components.search_settings import AssetSettings, SearchSettings, Sensor
from octogen_dagster.snapshots.assets import build_products_asset
from octogen_dagster.snapshots.brands import build_product_brands_asset
from octogen_dagster.snapshots.catalog_sensor import build_catalog_sensor
from octogen_dagster.snapshots.catalogs import build_catalogs_asset
from octogen_dagster.snapshots.changes import build_product_changes_asset
from octogen_dagster.snapshots.details import build_product_details_asset
from octogen_dagster.snapshots.partitions import catalog_days, snapshot_days
from octogen_dagster.snapshots.schedules import build_snapshot_schedule

if TYPE_CHECKING:
    from octogen_dagster.components.component import OctogenComponent
    from octogen_dagster.components.linked_settings import LinkedDatasetsSettings

Build = Callable[..., dg.AssetsDefinition]


class Deployment:
    """The definitions of a component.

    Args:
        component: The settings.
        state_path: The file with the catalogs that become assets; None if there is none.
    """

    def __init__(self, component: OctogenComponent, state_path: Path | None = None) -> None:
        self._component = component
        self._state_path = state_path
        self._partitions = dg.DynamicPartitionsDefinition(name=f"{component.name}_catalogs")
        self._stored = (
            {} if component.storage is None else {"io_manager_key": f"{component.name}_io_manager"}
        )
        self._assets: list[dg.AssetsDefinition] = []
        self._sensors: list[dg.SensorDefinition] = []
        self._schedules: list[dg.ScheduleDefinition] = []

    def definitions(self) -> dg.Definitions:
        """Build the definitions."""
        component = self._component
        if component.catalogs is not None:
            self._add(
                "catalogs",
                component.catalogs,
                build_catalogs_asset,
                name=component.catalogs.name or f"{component.name}_catalogs",
                partitions_def=self._partitions,
                resource_key=component.name,
                **self._stored,
            )
        for search in component.searches:
            self._add_search(search)
        if component.linked_datasets is not None:
            self._add_linked_datasets(component.linked_datasets)
        return dg.Definitions(
            assets=self._assets,
            sensors=self._sensors,
            schedules=self._schedules,
            resources=dict(self._resources()),
        )

    def _resources(self) -> Iterator[tuple[str, Any]]:
        component = self._component
        yield component.name, component.connection.resource(component.catalog_source)
        if component.storage is not None:
            yield f"{component.name}_io_manager", component.storage.io_manager()
        if component.linked_datasets is not None:
            yield from component.linked_datasets.resources().items()

    def _add_search(self, search: SearchSettings) -> None:
        products = self._add(
            "products",
            search,
            build_products_asset,
            name=search.name,
            search=search.search,
            partitions_def=self._partitions_of(search),
            min_rows_ratio=search.min_rows_ratio,
            resource_key=self._component.name,
            **self._stored,
        )
        if search.has_sensor:
            self._sensors.append(
                build_catalog_sensor(
                    products,
                    name=f"{search.name}_catalog_sensor",
                    resource_key=self._component.name,
                    default_status=_sensor_status(search.sensor),
                )
            )
        if search.schedule is not None:
            self._schedules.append(
                build_snapshot_schedule(
                    products,
                    search.schedule.cron,
                    execution_timezone=search.schedule.timezone,
                    default_status=dg.DefaultScheduleStatus.RUNNING
                    if search.schedule.running
                    else dg.DefaultScheduleStatus.STOPPED,
                )
            )
        self._add_followers(search, products)

    def _add_followers(self, search: SearchSettings, products: dg.AssetsDefinition) -> None:
        follow = {"automation_condition": dg.AutomationCondition.eager(), **self._stored}
        if search.changes is not None:
            self._add(
                "changes",
                search.changes,
                build_product_changes_asset,
                products=products,
                name=search.changes.name,
                **follow,
            )
        if search.details is not None:
            self._add(
                "details",
                search.details,
                build_product_details_asset,
                products=products,
                name=search.details.name,
                only_changed=search.details.only_changed,
                failure_threshold=search.details.failure_threshold,
                resource_key=self._component.name,
                **follow,
            )
        if search.brands is not None:
            self._add(
                "brands",
                search.brands,
                build_product_brands_asset,
                products=products,
                name=search.brands.name,
                **follow,
            )

    def _add_linked_datasets(self, linked: LinkedDatasetsSettings) -> None:
        from octogen_dagster.bigquery.linked_datasets import build_linked_datasets_asset
        from octogen_dagster.bigquery.linked_products import build_linked_products_asset
        from octogen_dagster.bigquery.linked_snapshot import build_linked_snapshot_asset
        from octogen_dagster.bigquery.listing_sensor import build_listing_sensor

        name = f"{self._component.name}_linked"
        datasets = self._add(
            "linked_datasets",
            linked,
            build_linked_datasets_asset,
            name=linked.name or f"{name}_datasets",
            control_plane=linked.from_octogen,
            replace_revoked=linked.replace_revoked,
        )
        if linked.sensor:
            self._sensors.append(
                build_listing_sensor(
                    linked.listing_source(),
                    datasets,
                    name=f"{self._component.name}_listing_sensor",
                    default_status=_sensor_status(linked.sensor),
                )
            )
        follow = {"automation_condition": dg.AutomationCondition.eager()}
        if linked.products is not None:
            self._add(
                "linked_products",
                linked.products,
                build_linked_products_asset,
                linked_datasets=datasets,
                name=linked.products.name or f"{name}_products",
                **linked.products.arguments(),
                **follow,
            )
        if linked.snapshot is not None:
            self._add(
                "linked_snapshot",
                linked.snapshot,
                build_linked_snapshot_asset,
                linked_datasets=datasets,
                name=linked.snapshot.name or f"{name}_snapshot",
                **linked.snapshot.arguments(),
                **follow,
                **self._stored,
            )

    def _partitions_of(self, search: SearchSettings) -> dg.PartitionsDefinition[Any] | None:
        if search.partitions == "catalog":
            return self._partitions
        if search.start_date is None:
            return None
        if search.partitions == "day":
            return snapshot_days(search.start_date, search.timezone)
        return catalog_days(search.start_date, search.timezone, catalogs=self._partitions)

    def _add(
        self,
        kind: Kind,
        settings: AssetSettings,
        build: Build,
        **arguments: Any,
    ) -> dg.AssetsDefinition:
        """Build an asset with the spec that the component and its translations give it."""
        component = self._component
        default = build(**arguments)
        data = OctogenAssetData(kind, default.get_asset_spec(), arguments.get("search"))
        spec = component.get_asset_spec(data)
        for translate in (component.translation, settings.translation):
            if translate is not None:
                spec = translate(spec, data)
        # Names and prefixes reach what the builder derives from the key, such as checks.
        renamed: dict[str, Any] = {
            "name": spec.key.path[-1],
            "key_prefix": list(spec.key.path[:-1]) or None,
            "execute": component.execute,
        }
        if kind == "products":  # its function reads what a partition is
            renamed["partitions_def"] = spec.partitions_def
        built = build(**{**arguments, **renamed})
        spec = spec.replace_attributes(deps=_with_inputs(built, spec.deps))
        asset = built.map_asset_specs(lambda _: spec)
        self._assets.append(asset)
        return asset


def _with_inputs(asset: dg.AssetsDefinition, deps: Iterable[dg.AssetDep]) -> list[dg.AssetDep]:
    """The dependencies of a spec, with those that the asset's function loads."""
    loaded = {
        key
        for name, key in asset.keys_by_input_name.items()
        if not asset.op.input_def_named(name).dagster_type.is_nothing
    }
    kept = [dep for dep in asset.get_asset_spec().deps if dep.asset_key in loaded]
    return kept + [dep for dep in deps if dep.asset_key not in loaded]


def _sensor_status(sensor: Sensor | None) -> dg.DefaultSensorStatus:
    if sensor == "running":
        return dg.DefaultSensorStatus.RUNNING
    return dg.DefaultSensorStatus.STOPPED
