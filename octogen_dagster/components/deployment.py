"""The definitions of an OctogenComponent, made of the public builders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from octogen_dagster.components.asset_data import Kind, OctogenAssetData
from octogen_dagster.components.search_settings import (
    AssetSettings,
    ScheduleSettings,
    SearchSettings,
    Sensor,
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
from octogen_dagster.snapshots.partitions import catalog_days, snapshot_days
from octogen_dagster.snapshots.schedules import build_snapshot_schedule

if TYPE_CHECKING:
    from octogen_dagster.components.component import OctogenComponent
    from octogen_dagster.components.linked_settings import (
        LinkedDatasetsSettings,
        LinkedProductsSettings,
        LinkedSnapshotSettings,
    )


_FOLLOW: dict[str, Any] = {"automation_condition": dg.AutomationCondition.eager()}
"""What assets have that follow others by themselves. Details do not: their lookups are charged."""


class Deployment:
    """The definitions of a component.

    Args:
        component: The settings.
        catalogs: The keys of the catalogs that become assets.
    """

    def __init__(self, component: OctogenComponent, catalogs: Sequence[str] = ()) -> None:
        self._component = component
        self._catalogs = catalogs
        self._partitions = dg.DynamicPartitionsDefinition(name=f"{component.name}_catalogs")
        self._resource: dict[str, Any] = {"resource_key": component.name}
        self._stored: dict[str, Any] = {}
        if component.storage is not None:
            self._stored["io_manager_key"] = f"{component.name}_io_manager"
        self._catalogs_table: list[dg.AssetsDefinition] = []
        self._assets: list[dg.AssetsDefinition] = []
        self._checks: list[dg.AssetChecksDefinition] = []
        self._sensors: list[dg.SensorDefinition] = []
        self._schedules: list[dg.ScheduleDefinition] = []

    def definitions(self) -> dg.Definitions:
        """Build the definitions."""
        component = self._component
        if (settings := component.catalogs_table) is not None:
            table = self._add(
                "catalogs",
                settings,
                build_catalogs_asset,
                name=settings.name or f"{component.name}_catalogs",
                partitions_def=self._partitions,
                **self._resource,
                **self._stored,
            )
            self._catalogs_table = [table]
        for search in component.searches:
            self._add_search(search)
        if component.linked_datasets is not None:
            self._add_linked_datasets(component.linked_datasets)
        return dg.Definitions(
            assets=self._assets,
            asset_checks=self._checks,
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
            yield from component.linked_datasets.resources(component.connection.host).items()

    def _add_search(self, search: SearchSettings) -> None:
        if search.by_catalog and self._component.catalogs_as == "assets":
            added = [self._add_catalog(search, catalog) for catalog in self._catalogs]
            products = [asset for asset in added if asset is not None]
        else:
            products = [self._add_products(search)]
            if search.has_sensor:
                self._sensors.append(
                    build_catalog_sensor(
                        products[0],
                        name=f"{search.name}_catalog_sensor",
                        default_status=_sensor_status(search.sensor),
                        **self._resource,
                    )
                )
        if search.schedule is not None and products:
            self._schedules.append(_schedule(search.name, products, search.schedule))

    def _add_catalog(self, search: SearchSettings, catalog: str) -> dg.AssetsDefinition | None:
        """Add the asset of a catalog and those that follow it; None if it cannot be an asset."""
        name = dg.AssetKey([search.name, catalog]).to_python_identifier()
        taken = {asset.op.name for asset in self._assets}
        try:
            if name in taken:
                raise dg.DagsterInvalidDefinitionError(
                    "Another catalog has the same name, if - and . are read as _."
                )
            return self._add_products(search, catalog)
        except dg.DagsterInvalidDefinitionError as error:
            dg.get_dagster_logger("octogen").warning(
                f"Catalog {catalog[:60]!r} cannot be an asset and is left out: {error} "
                "With catalogs_as: partitions any catalog is read."
            )
            return None

    def _add_products(
        self, search: SearchSettings, catalog: str | None = None
    ) -> dg.AssetsDefinition:
        filters = search.search
        place: dict[str, Any] = {"name": search.name}
        if catalog is not None:
            filters = filters.model_copy(update={"catalogs": [catalog]})
            place = {"name": catalog, "key_prefix": [search.name]}
        products = self._add(
            "products",
            search,
            build_products_asset,
            search=filters,
            catalog=catalog,
            partitions_def=self._partitions_of(search),
            deps=self._catalogs_table if self._has_partitions_of_catalogs(search) else [],
            min_rows_ratio=search.min_rows_ratio,
            **place,
            **self._resource,
            **self._stored,
        )
        if search.checks is not None:
            self._checks += build_snapshot_checks(products, **search.checks.arguments())
        self._add_followers(search, products, catalog)
        return products

    def _add_followers(
        self, search: SearchSettings, products: dg.AssetsDefinition, catalog: str | None
    ) -> None:
        def add(kind: Kind, settings: AssetSettings, build: _Build, **arguments: Any) -> None:
            place: dict[str, Any] = {"name": settings.name}
            if catalog is not None:
                name = settings.name and f"{catalog}_{settings.name}"
                place = {"name": name, "key_prefix": [search.name]}
            self._add(
                kind,
                settings,
                build,
                products=products,
                catalog=catalog,
                **place,
                **self._stored,
                **arguments,
            )

        if search.changes is not None:
            add("changes", search.changes, build_product_changes_asset, **_FOLLOW)
        if search.details is not None:
            add(
                "details",
                search.details,
                build_product_details_asset,
                only_changed=search.details.only_changed,
                failure_threshold=search.details.failure_threshold,
                **self._resource,
            )
        if search.brands is not None:
            add("brands", search.brands, build_product_brands_asset, **_FOLLOW)

    def _add_linked_datasets(self, linked: LinkedDatasetsSettings) -> None:
        from octogen_dagster.bigquery.linked_datasets import build_linked_datasets_asset
        from octogen_dagster.bigquery.linked_products import build_linked_products_asset
        from octogen_dagster.bigquery.linked_snapshot import build_linked_snapshot_asset
        from octogen_dagster.bigquery.listing_sensor import build_listing_sensor

        datasets = self._add(
            "linked_datasets",
            linked,
            build_linked_datasets_asset,
            name=linked.name or f"{self._component.name}_linked_datasets",
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

        def add(
            kind: Kind,
            settings: LinkedProductsSettings | LinkedSnapshotSettings | None,
            build: _Build,
            **arguments: Any,
        ) -> None:
            if settings is not None:
                self._add(
                    kind,
                    settings,
                    build,
                    linked_datasets=datasets,
                    name=settings.name or f"{self._component.name}_{kind}",
                    **settings.arguments(),
                    **_FOLLOW,
                    **arguments,
                )

        add("linked_products", linked.products, build_linked_products_asset)
        add("linked_snapshot", linked.snapshot, build_linked_snapshot_asset, **self._stored)

    def _has_partitions_of_catalogs(self, search: SearchSettings) -> bool:
        return search.by_catalog and self._component.catalogs_as == "partitions"

    def _partitions_of(self, search: SearchSettings) -> dg.PartitionsDefinition[Any] | None:
        by_catalog = self._has_partitions_of_catalogs(search)
        if not search.by_day or search.start_date is None:
            return self._partitions if by_catalog else None
        if by_catalog:
            return catalog_days(search.start_date, search.timezone, catalogs=self._partitions)
        return snapshot_days(search.start_date, search.timezone)

    def _add(
        self,
        kind: Kind,
        settings: AssetSettings,
        build: _Build,
        *,
        catalog: str | None = None,
        **arguments: Any,
    ) -> dg.AssetsDefinition:
        """Build an asset with the spec that the component and its translations give it."""
        component = self._component
        default = build(**arguments)
        data = OctogenAssetData(kind, default.get_asset_spec(), arguments.get("search"), catalog)
        spec = component.get_asset_spec(data)
        for translate in (component.translation, settings.translation):
            if translate is not None:
                spec = translate(spec, data)
        # What the builder derives from the key, such as checks, must be of the translated one.
        translated: dict[str, Any] = {
            "name": spec.key.path[-1],
            "key_prefix": list(spec.key.path[:-1]) or None,
            "execute": component.execute,
        }
        if kind == "products":  # its function reads what a partition is
            translated["partitions_def"] = spec.partitions_def
            translated["automation_condition"] = spec.automation_condition
        built = build(**{**arguments, **translated})
        spec = spec.replace_attributes(deps=_with_inputs(built, spec.deps))
        if kind == "products":  # its condition ignores the table of the catalogs
            condition = built.get_asset_spec().automation_condition
            spec = spec.replace_attributes(automation_condition=condition)
        asset = built.map_asset_specs(lambda _: spec)
        self._assets.append(asset)
        return asset


_Build = Callable[..., dg.AssetsDefinition]


def _with_inputs(asset: dg.AssetsDefinition, deps: Iterable[dg.AssetDep]) -> list[dg.AssetDep]:
    """The dependencies of a spec, with those that the asset's function loads."""
    loaded = {
        key
        for name, key in asset.keys_by_input_name.items()
        if not asset.op.input_def_named(name).dagster_type.is_nothing
    }
    kept = [dep for dep in asset.get_asset_spec().deps if dep.asset_key in loaded]
    return kept + [dep for dep in deps if dep.asset_key not in loaded]


def _schedule(
    name: str, products: list[dg.AssetsDefinition], schedule: ScheduleSettings
) -> dg.ScheduleDefinition:
    status = dg.DefaultScheduleStatus
    return build_snapshot_schedule(
        products[0],
        schedule.cron,
        execution_timezone=schedule.timezone,
        name=f"{name}_schedule",
        target=products,
        default_status=status.RUNNING if schedule.running else status.STOPPED,
    )


def _sensor_status(sensor: Sensor | None) -> dg.DefaultSensorStatus:
    if sensor == "running":
        return dg.DefaultSensorStatus.RUNNING
    return dg.DefaultSensorStatus.STOPPED
