"""OctogenComponent: assets for Octogen catalogs, defined in YAML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import dagster as dg
from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

import octogen_dagster as od
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.components.connection_settings import (
    ConnectionSettings,
    Source,
    Storage,
    StorageSettings,
)
from octogen_dagster.components.scaffolder import OctogenScaffolder
from octogen_dagster.components.settings import (
    Asset,
    AssetsComponent,
    AssetSettings,
    CheckSettings,
    Kind,
    Name,
    OctogenAssetData,
    SearchSettings,
    Sensor,
    SensorSettings,
)
from octogen_dagster.components.table_settings import TableSettings
from octogen_dagster.components.url_list_settings import UrlCoverageSettings, UrlListSettings
from octogen_dagster.errors import OctogenComponentError

_CHECKED: tuple[Kind, ...] = (
    "products", "history", "alerts", "position", "price_list_history", "price_list_alerts",
)  # fmt: skip


@dg.scaffold_with(OctogenScaffolder)
class OctogenComponent(AssetsComponent):
    """Assets for Octogen's product catalogs, defined in YAML.

    Each search or whole catalog becomes a products asset, with optional downstream assets, checks,
    sensors and schedules. The component can also synchronize URL lists.

    The component includes its resources. Each component in a project needs a different name. For
    BigQuery listings, use `OctogenLinkedDatasetsComponent`. Mistakes in the YAML raise an
    `OctogenComponentError` with one line for each mistake.

    Example:

            type: octogen_dagster.components.OctogenComponent
            attributes:
              connection:
                api_key: "{{ env.OCTOGEN_PLATFORM_API_KEY }}"
                budget_usd: 50
              catalog_source:
                hosts: ["acme.com"]
              storage:
                base_dir: snapshots
              searches:
                - name: octogen_products
                  partitions: catalog
                  changes: true
                - name: linen_dresses
                  search:
                    q: linen dress
                    facets: [{name: gender, values: ["female"]}]
                  schedule: {cron_schedule: "0 6 * * *", execution_timezone: Europe/Berlin}
    """

    name: Name = "octogen"
    """Prefix for resource keys and asset names: `<name>` and `<name>_io_manager` for the resources,
    and `<name>_catalogs` for the catalogs table and its partitions definition. Each component in a
    project needs a different prefix.
    """
    connection: ConnectionSettings = Field(default_factory=ConnectionSettings)
    """Connection to Octogen's REST API."""
    catalog_source: Source = Field(default_factory=od.GrantedCatalogs)
    """Catalogs to read: `hosts`, `keys`, `granted` or your own source class.

    `granted` reads all catalogs granted to the API key, but only older versions of the service can
    list these catalogs. `catalog_source` is required for catalog partitions.
    """
    storage: Storage = Field(default_factory=StorageSettings)
    """Storage for snapshots: a mapping, or a string for `base_dir`. With `null`, the assets use the
    project's `io_manager`."""
    catalogs: Asset = None
    """The catalogs table. By default, it is added if a search is partitioned by catalog."""
    searches: list[SearchSettings] = Field(default_factory=list)
    """Searches and whole catalogs to read."""
    url_lists: list[UrlListSettings] = Field(default_factory=list)
    """URL lists to synchronize from tables in your project to Octogen."""
    url_list_sensor: Sensor = Field(default_factory=SensorSettings)
    """Sensor for URL-list exports. The sensor requests a run for each new export of a URL list that
    has `coverage`.

    `true` (the default) adds the sensor in a stopped state. `running` also starts it with the first
    deployment. `false` adds no sensor.
    """
    automation: Literal["running"] | None = None
    """`running` adds a sensor that evaluates the automation conditions of downstream assets. The
    sensor starts with the first deployment."""

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [search.name for search in self.searches]
        for position, name in enumerate(names):
            if (first := names.index(name)) < position:
                text = f"searches[{first}] already has the name {name!r}. Rename one search."
                kind = PydanticCustomError("twice", "{text}", {"text": text})
                place = InitErrorDetails(type=kind, loc=("searches", position, "name"), input=name)
                raise ValidationError.from_exception_data("searches", [place])
        lists = [each.of_octogen for each in self.url_lists]
        if twice := next((name for name in lists if lists.count(name) > 1), None):
            raise ValueError(
                f"two url_lists have the list_name {twice!r} and would overwrite each other. "
                "Change one of the names"
            )
        return self

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the assets, checks, sensors, schedules and resources.

        Args:
            context: Dagster's context for loading the component.

        Raises:
            OctogenComponentError: Another component in the project has the same name.
        """
        others = context.component_tree.get_all_components(OctogenComponent)
        if sum(each.name == self.name for each in others) > 1:
            raise OctogenComponentError(
                f"Two OctogenComponents in this project have the name {self.name!r}, so they would "
                "share resources and catalogs. In one of the YAML files, change attributes.name, "
                "for example to other_shops."
            )
        connection = self.connection.arguments()
        if "catalog_source" in self.model_fields_set:
            connection["catalog_source"] = self.catalog_source
        resources: dict[str, Any] = {self.name: od.OctogenResource(**connection)}
        if self.storage is not None:
            resources[f"{self.name}_io_manager"] = self.storage.io_manager()
        catalogs = self.catalogs
        if "catalogs" not in self.model_fields_set and any(
            each.by_catalog for each in self.searches
        ):
            catalogs = AssetSettings()
        tables = []
        if catalogs is not None:
            table = od.build_catalogs_asset(
                self._spec("catalogs", catalogs, f"{self.name}_catalogs"),
                partitions_def=self._catalogs,
                resource_key=self.name,
                execute=self.execute,
            )
            tables.append(table)
        defs = dg.Definitions.merge(
            dg.Definitions(assets=tables, resources=resources),
            *(self._of_search(search, tables) for search in self.searches),
            self._url_lists(),
        )
        if self.automation is None:
            return defs  # Dagster adds its own sensor for automation conditions, stopped
        # Not resolved, because upstream tables are defined elsewhere in the project.
        assets = [each for each in defs.assets or () if isinstance(each, dg.AssetsDefinition)]
        sensor = dg.AutomationConditionSensorDefinition(
            f"{self.name}_automation",
            target=dg.AssetSelection.assets(*assets),
            default_status=dg.DefaultSensorStatus.RUNNING,
        )
        return dg.Definitions.merge(defs, dg.Definitions(sensors=[sensor]))

    @property
    def _catalogs(self) -> dg.DynamicPartitionsDefinition:
        return dg.DynamicPartitionsDefinition(name=f"{self.name}_catalogs")

    def _of_search(
        self, search: SearchSettings, tables: list[dg.AssetsDefinition]
    ) -> dg.Definitions:
        runs: dict[str, Any] = {"backfill_policy": self._policy(search), "execute": self.execute}
        partitions = self._partitions(search)
        products = od.build_products_asset(
            self._spec("products", search, search.name, search.search, partitions_def=partitions),
            search.search,
            min_rows_percent=search.min_rows_percent,
            deps=tables if search.by_catalog else [],
            resource_key=self.name,
            **runs,
        )
        sensors, schedules = [], []
        sensor = search.sensor
        if "sensor" not in search.model_fields_set and search.by_catalog:
            sensor = SensorSettings()
        if sensor is not None:
            name = f"{search.name}_catalog_sensor"
            arguments = sensor.arguments() | {"name": name, "resource_key": self.name}
            sensors.append(od.build_catalog_sensor(products, **arguments))
        if (schedule := search.schedule) is not None:
            name = f"{search.name}_schedule"
            schedules.append(
                od.build_snapshot_schedule(products, name=name, **schedule.arguments())
            )
        assets: dict[Kind, dg.AssetsDefinition] = {"products": products}
        followers: dict[Kind, Callable[..., dg.AssetsDefinition]] = {
            "details": od.build_product_details_asset,
            "brands": od.build_product_brands_asset,
            "history": od.build_product_history_asset,
            "changes": od.build_product_changes_asset,
        }
        for kind, build in followers.items():
            if (settings := getattr(search, kind)) is not None:
                # Lookups are charged, so details run only on request.
                is_charged = kind == "details"
                condition = None if is_charged else od.follow_upstream()
                name = f"{products.key.path[-1]}_{kind}"
                spec = self._spec(kind, settings, name, automation_condition=condition)
                reads = {"resource_key": self.name} if is_charged else {}
                arguments = settings.arguments() | runs | reads
                followed = assets["history"] if kind == "changes" else products
                assets[kind] = build(followed, name=spec, **arguments)
        if search.alerts or search.position:
            assets |= self._of_history(search, assets, runs)
        if search.notify is not None:
            for alerts in (
                assets[kind] for kind in ("alerts", "price_list_alerts") if kind in assets
            ):
                for notify, arguments in search.notify.sensors(alerts.key.to_python_identifier()):
                    sensors.append(od.build_alert_sensor(alerts, notify, **arguments))
        loaded = [] if search.tables is None else self._tables(search.tables, assets)
        return dg.Definitions(
            assets=[*assets.values(), *loaded],
            asset_checks=_checks(search.checks, assets) if search.checks else [],
            sensors=sensors,
            schedules=schedules,
        )

    def _of_history(
        self,
        search: SearchSettings,
        assets: Mapping[Kind, dg.AssetsDefinition],
        runs: Mapping[str, Any],
    ) -> dict[Kind, dg.AssetsDefinition]:
        """Build the alerts and the price position from a search's history."""
        history = assets["history"]

        def spec(kind: Kind, settings: AssetSettings) -> dg.AssetSpec:
            name = f"{assets['products'].key.path[-1]}_{kind}"
            return self._spec(kind, settings, name, automation_condition=od.follow_upstream())

        found: dict[Kind, dg.AssetsDefinition] = {}
        if rules := search.product_rules:
            name = spec("alerts", AssetSettings())
            found["alerts"] = od.build_price_alerts_asset(history, rules, name=name, **runs)
        if (position := search.position) is None:
            return found
        price_list = dg.AssetKey.from_user_string(position.price_list)
        execute: dict[str, Any] = {"execute": self.execute}
        found["position"] = od.build_price_position_asset(
            history,
            price_list,
            name=spec("position", position),
            **{name: each for name, each in position.arguments().items() if name != "price_list"},
            **execute,
        )
        if list_rules := search.price_list_rules:
            columns = dict.fromkeys(["price", *(rule.column for rule in list_rules)])
            found["price_list_history"] = prices = od.build_history_asset(
                price_list,
                key=["sku", "product_url"],
                tracked=[*columns, "currency"],
                name=spec("price_list_history", AssetSettings()),
                **execute,
            )
            found["price_list_alerts"] = od.build_price_alerts_asset(
                history,
                list_rules,
                price_list=prices,
                name=spec("price_list_alerts", AssetSettings()),
                **execute,
            )
        return found

    def _tables(
        self, tables: TableSettings, assets: Mapping[Kind, dg.AssetsDefinition]
    ) -> list[dg.AssetsDefinition]:
        destination = tables.destination
        loaded = []
        for kind, asset in assets.items():
            if tables.of is None or kind.removeprefix("price_list_") in tables.of:
                name = f"{asset.key.path[-1]}_table"
                follow = od.follow_upstream()
                spec = self._spec("table", AssetSettings(), name, automation_condition=follow)
                table = od.build_table_asset(
                    asset,
                    destination,
                    name=spec,
                    backfill_policy=asset.backfill_policy,
                    execute=self.execute,
                )
                loaded.append(table)
        return loaded

    def _url_lists(self) -> dg.Definitions:
        """Build the URL lists and the assets for their exports."""
        assets, checks, exports, resources = [], [], [], dict[str, Any]()
        for settings in self.url_lists:
            arguments = settings.arguments() | {
                "urls": dg.AssetKey.from_user_string(settings.urls),
                "list_name": settings.of_octogen,
            }
            arguments.pop("coverage", None)
            follow = od.follow_upstream()
            url_list = od.build_url_list_asset(
                self._spec("url_list", settings, settings.name, automation_condition=follow),
                **arguments,
                resource_key=self.name,
                execute=self.execute,
            )
            assets.append(url_list)
            checks += od.build_url_list_checks(url_list)
            if settings.coverage is not None:
                exports += self._of_export(settings.name, settings.coverage, url_list)
                resources |= self._google(settings.name, settings.coverage)
        sensors = []
        if exports and self.url_list_sensor is not None:
            sensor = od.build_url_list_sensor(
                exports,
                name=f"{self.name}_url_list_sensor",
                resource_key=self.name,
                **self.url_list_sensor.arguments(),
            )
            sensors.append(sensor)
        return dg.Definitions(
            assets=[*assets, *exports], asset_checks=checks, sensors=sensors, resources=resources
        )

    def _of_export(
        self, name: str, coverage: UrlCoverageSettings, url_list: dg.AssetsDefinition
    ) -> list[dg.AssetsDefinition]:
        """Build the assets for a URL list's export. One run materializes all four assets."""
        written = coverage.arguments()
        asset = AssetSettings(translation=coverage.translation)

        def arguments(*names: str) -> dict[str, Any]:
            return {each: written[each] for each in names if each in written}

        def spec(kind: Kind, **attributes: Any) -> dg.AssetSpec:
            return self._spec(kind, asset, f"{name}_{kind.removeprefix('url_')}", **attributes)

        export = od.build_url_list_export_asset(
            url_list,
            name=spec("url_export"),
            control_plane=coverage.principal is not None,
            resource_key=self.name,
            hub_resource_key=f"{name}_google",
            control_plane_resource_key=f"{name}_control_plane",
            execute=self.execute,
            **arguments("listing_project", "listing_location", "dataset_id", "max_age"),
        )
        reads: dict[str, Any] = {
            "bigquery_resource_key": f"{name}_google",
            "execute": self.execute,
            "max_age": None,  # checked on the export
            **arguments("min_rows_percent", "max_bytes_billed"),
        }
        of_coverage = od.build_linked_snapshot_asset(
            export, name=spec("url_coverage"), view="url_coverage_v1", **reads
        )
        offers = od.build_linked_snapshot_asset(
            export, name=spec("url_offers"), **reads, **arguments("columns", "where")
        )
        # A change to the list changes its matches before the next export.
        follow = od.follow_upstream()
        matches = od.build_url_matches_asset(
            url_list,
            of_coverage,
            offers,
            name=spec("url_matches", automation_condition=follow),
            execute=self.execute,
            **arguments("min_covered_percent"),
        )
        return [export, of_coverage, offers, matches]

    def _google(self, name: str, coverage: UrlCoverageSettings) -> dict[str, Any]:
        google: dict[str, Any] = {
            "project": coverage.project,
            "gcp_credentials": coverage.gcp_credentials,
        }
        resources: dict[str, Any] = {f"{name}_google": od.AnalyticsHubResource(**google)}
        if coverage.principal is not None:
            resources[f"{name}_control_plane"] = od.OctogenControlPlaneResource(
                principal=coverage.principal, host=self.connection.arguments().get("host")
            )
        return resources

    def _spec(
        self,
        kind: Kind,
        asset: AssetSettings,
        name: str,
        search: ProductSearch | None = None,
        **attributes: Any,
    ) -> dg.AssetSpec:
        spec = dg.AssetSpec(asset.name or name, **attributes)
        if self.storage is not None:
            spec = spec.with_io_manager_key(f"{self.name}_io_manager")
        data = OctogenAssetData(kind, spec, search)
        return self.translated(data, asset)

    def _policy(self, search: SearchSettings) -> dg.BackfillPolicy | None:
        """Return the backfill policy for a search, or None if each run reads only one catalog."""
        is_said = "catalogs_per_run" in search.model_fields_set
        # The project's IO manager might support only one partition.
        is_one = search.catalogs_per_run == 1 or (self.storage is None and not is_said)
        if is_one or not search.by_catalog:
            return None
        return dg.BackfillPolicy.multi_run(search.catalogs_per_run)

    def _partitions(self, search: SearchSettings) -> dg.PartitionsDefinition[Any] | None:
        if search.start_date is None:
            return self._catalogs if search.by_catalog else None
        first = search.start_date.isoformat()
        if search.by_catalog:
            return od.catalog_days(first, search.timezone, catalogs=self._catalogs)
        return od.snapshot_days(first, search.timezone)


def _checks(
    settings: CheckSettings, assets: Mapping[Kind, dg.AssetsDefinition]
) -> list[dg.AssetChecksDefinition]:
    checks: list[dg.AssetChecksDefinition] = []
    for kind in _CHECKED:
        if asset := assets.get(kind):
            limits = settings.arguments_of(asset)
            if kind != "products":  # downstream assets run only after a change
                limits["max_age"] = None
            checks += od.build_snapshot_checks(asset, **limits)
    return checks
