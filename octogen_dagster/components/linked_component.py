"""OctogenLinkedDatasetsComponent: assets for Octogen's BigQuery listings, defined in YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

import dagster as dg
from pydantic import AfterValidator, Field, field_validator, model_validator

import octogen_dagster as od
from octogen_dagster.bigquery.partitions import listing_name, listing_partition_key
from octogen_dagster.bigquery.table_checks import PRODUCT_COLUMNS
from octogen_dagster.components.connection_settings import Storage, StorageSettings, check_host
from octogen_dagster.components.scaffolder import OctogenLinkedDatasetsScaffolder
from octogen_dagster.components.settings import (
    AssetsComponent,
    AssetSettings,
    Kind,
    Name,
    OctogenAssetData,
    Percent,
    Sensor,
    SensorSettings,
)
from octogen_dagster.components.table_settings import LinkedTableSettings
from octogen_dagster.components.yaml_model import (
    Duration,
    Text,
    YamlModel,
    check_not_written_out,
    switch,
    text_for,
)
from octogen_dagster.errors import OctogenComponentError
from octogen_dagster.validation import require_extras

if TYPE_CHECKING:
    from octogen_dagster.bigquery.listing_sources import Source as ListingSource


def _octogen_source(text: str) -> dict[str, Any]:
    if text != "octogen":
        raise ValueError(
            "is not a source. Write octogen, or write exchange: ... or listings: [...] below it"
        )
    return {}


def _check_exchange(exchange: str) -> str:
    od.ExchangeSource(exchange)
    return exchange


def _check_listing(listing: str) -> str:
    od.StaticSource([listing])
    return listing


Listing = Annotated[str, AfterValidator(_check_listing)]


def _listing_key(listing: str) -> object:
    """Return a key for a listing's name. The key does not contain the project's id or number."""
    return listing_name(listing_partition_key(listing)).key


class ListingSourceSettings(YamlModel):
    """The listing source: an exchange, a list of listings, or Octogen (the default)."""

    exchange: Annotated[str, AfterValidator(_check_exchange)] | None = None
    """The exchange's resource name:
    `projects/<project>/locations/<location>/dataExchanges/<exchange>`."""
    listings: list[Listing] | None = None
    """Listing resource names."""

    @property
    def is_octogen(self) -> bool:
        """True if Octogen's control plane is the source."""
        return self.exchange is None and self.listings is None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.exchange is not None and self.listings is not None:
            raise ValueError("source cannot have both exchange and listings. Remove one of them")
        return self

    def source(self) -> ListingSource:
        """Return the listing source."""
        if self.exchange is not None:
            return od.ExchangeSource(self.exchange)
        return od.OctogenSource() if self.listings is None else od.StaticSource(self.listings)


Source = Annotated[ListingSourceSettings, text_for(ListingSourceSettings, _octogen_source)]


class LinkedProductsSettings(AssetSettings):
    """Settings for the linked products asset, which reports on linked tables and checks them."""

    max_age: Duration | None = Field(default="2 days", validate_default=True)
    """Maximum time since the table was last modified, for the `fresh` check. `null` omits the
    check."""
    modified_column: str | None = None
    """Column whose maximum value is the time of the last modification. Defaults to the
    last-modified time that BigQuery reports for the table."""
    columns: list[str] = Field(default=[*PRODUCT_COLUMNS])
    """Expected columns."""
    max_bytes_billed: int | None = Field(default=100_000_000_000, gt=0)
    """Maximum bytes billed for a query. `null` removes the limit."""


class LinkedSnapshotSettings(LinkedProductsSettings):
    """Settings for snapshots of linked views."""

    columns: list[str] = Field(default_factory=list)
    """Columns to read. Defaults to all columns. BigQuery bills only for the columns that are read.
    """
    where: str | None = None
    """Condition that selects the rows to read, as a BigQuery SQL expression."""
    min_rows_percent: Percent = 50
    """Minimum number of rows in a snapshot, as a percentage of the previous snapshot's row count.
    """


@dg.scaffold_with(OctogenLinkedDatasetsScaffolder)
class OctogenLinkedDatasetsComponent(AssetsComponent):
    """Assets for Octogen's BigQuery listings, defined in YAML.

    A sensor subscribes to new listings, and each linked dataset becomes an asset. Table checks and
    snapshots are optional.

    The component includes its resources. It requires the extra `bigquery`, and the extra `mcp` if
    Octogen is the source. A project can have only one such component. Mistakes in the YAML raise an
    `OctogenComponentError` with one line for each mistake.

    Example:

            type: octogen_dagster.components.OctogenLinkedDatasetsComponent
            attributes:
              project: my-project
              principal: serviceAccount:reader@my-project.iam.gserviceaccount.com
              products: true
    """

    name: Name = "octogen"
    """Prefix for asset names (`<name>_linked_datasets`, `<name>_linked_products` and
    `<name>_linked_snapshot`), for the sensor (`<name>_listing_sensor`) and for resource keys
    (`<name>_bigquery` and `<name>_linked_io_manager`). The names of the history and the table are
    the snapshot's name with a suffix: `<name>_linked_snapshot_history` and
    `<name>_linked_snapshot_table`."""
    project: Text
    """Your Google Cloud project, which is billed for queries."""
    gcp_credentials: Text | None = None
    """Base64-encoded service account key, as `"{{ env.NAME }}"`. Defaults to Application Default
    Credentials."""
    source: Source = Field(default_factory=ListingSourceSettings)
    """Source of the listings: `octogen` (the default), or a mapping with `exchange` or
    `listings`.
    """
    principal: Text | None = None
    """IAM principal that subscribes to the listings, such as `serviceAccount:<email>`.

    Required with `source: octogen`.
    """
    host: Text | None = None
    """Host name for the MCP server (`mcp.<host>`) and the login (`auth.<host>`).

    Defaults to `OCTOGEN_HOST`, then to `octogen.ai`.
    """
    token_uri: Text | None = None
    """Location of the login stored with `octogen-dagster login --token-uri`: a URI (`s3://…`,
    `gs://…` or `az://…`) or a path. Set this if processes do not share a disk. Defaults to
    `OCTOGEN_MCP_TOKEN_URI`."""
    dataset_id: dict[Listing, str] = Field(default_factory=dict)
    """Linked dataset ids, keyed by listing resource name. Defaults to the id that Octogen
    suggests, or to `octogen_<listing id>`."""
    sensor: Sensor = Field(default_factory=SensorSettings)
    """Sensor for new listings. `true` (the default) adds the sensor in a stopped state. `running`
    also starts it with the first deployment. `false` adds no sensor."""
    products: Annotated[LinkedProductsSettings | None, switch(LinkedProductsSettings)] = None
    """Add an asset that reports on each linked table and checks it."""
    snapshot: Annotated[LinkedSnapshotSettings | None, switch(LinkedSnapshotSettings)] = None
    """Add an asset that stores each linked view as a Parquet snapshot."""
    history: Annotated[AssetSettings | None, switch(AssetSettings)] = None
    """Each product's prices and availability since its first snapshot. Requires `snapshot`."""
    tables: LinkedTableSettings | None = None
    """A table in a database, warehouse or lake into which the snapshots are loaded. Requires
    `snapshot`."""
    storage: Storage = Field(default_factory=StorageSettings)
    """Storage for snapshots: a mapping, or a string for `base_dir`. With `null`, the assets use the
    project's `io_manager`."""

    _check_host = field_validator("host")(check_host)
    _check_credentials = field_validator("gcp_credentials")(check_not_written_out)

    @model_validator(mode="after")
    def _check(self) -> Self:
        extras = ["bigquery", *(["mcp"] if self.source.is_octogen else [])]
        require_extras("OctogenLinkedDatasetsComponent", *extras)
        if self.tables and not self.snapshot:
            raise ValueError("tables requires snapshots. Add snapshot: true")
        if self.history and not self.snapshot:
            raise ValueError("history requires snapshots. Add snapshot: true")
        if self.source.is_octogen and self.principal is None:
            raise ValueError(
                "source: octogen requires principal. Write the IAM principal that subscribes, such "
                "as serviceAccount:reader@my-project.iam.gserviceaccount.com"
            )
        return self

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the assets, their checks, the sensor and the resources.

        Args:
            context: Dagster's context for loading the component.

        Raises:
            OctogenComponentError: The project has a second component of this type.
        """
        if len(context.component_tree.get_all_components(OctogenLinkedDatasetsComponent)) > 1:
            raise OctogenComponentError(
                "This project has two OctogenLinkedDatasetsComponents, and both define "
                "the resource analytics_hub. Move all listings to one of the components, or use "
                "two projects."
            )
        ids = {_listing_key(listing): written for listing, written in self.dataset_id.items()}
        datasets = od.build_linked_datasets_asset(
            self._spec("linked_datasets", AssetSettings()),
            control_plane=self.source.is_octogen,
            dataset_id=lambda listing: ids.get(_listing_key(listing)),
            execute=self.execute,
        )
        assets = [datasets]
        checks = [*od.build_linked_datasets_checks(datasets, self.source.source())]
        of_queries = {"execute": self.execute, "bigquery_resource_key": self._bigquery}
        if self.products is not None:
            spec = self._spec("linked_products", self.products)
            arguments = self.products.arguments() | of_queries
            assets.append(od.build_linked_products_asset(datasets, name=spec, **arguments))
        if self.snapshot is not None:
            spec = self._spec("linked_snapshot", self.snapshot)
            arguments = self.snapshot.arguments() | of_queries
            snapshot = od.build_linked_snapshot_asset(datasets, name=spec, **arguments)
            assets.append(snapshot)
            if self.history is not None:
                name = f"{spec.key.path[-1]}_history"
                past = self._spec("linked_history", self.history, name)
                history = od.build_product_history_asset(snapshot, name=past, execute=self.execute)
                assets.append(history)
                checks += od.build_snapshot_checks(history)
            if self.tables is not None:
                table = self._spec("table", AssetSettings(), f"{spec.key.path[-1]}_table")
                assets.append(
                    od.build_table_asset(
                        snapshot, self.tables.destination, name=table, execute=self.execute
                    )
                )
        sensors = []
        if self.sensor is not None:
            sensor = od.build_listing_sensor(
                datasets,
                self.source.source(),
                name=f"{self.name}_listing_sensor",
                **self.sensor.arguments(),
            )
            sensors.append(sensor)
        return dg.Definitions(
            assets=assets,
            asset_checks=checks,
            sensors=sensors,
            resources=self._resources(),
        )

    @property
    def _bigquery(self) -> str:
        """The resource key for queries. The prefix avoids a clash with the key `bigquery`."""
        return f"{self.name}_bigquery"

    def _spec(self, kind: Kind, settings: AssetSettings, name: str = "") -> dg.AssetSpec:
        spec = dg.AssetSpec(
            settings.name or name or f"{self.name}_{kind}",
            automation_condition=None if kind == "linked_datasets" else od.follow_upstream(),
        )
        if kind in {"linked_snapshot", "linked_history"} and self.storage is not None:
            spec = spec.with_io_manager_key(f"{self.name}_linked_io_manager")
        data = OctogenAssetData(kind, spec)
        return self.translated(data, settings)

    def _resources(self) -> dict[str, Any]:
        google: dict[str, Any] = {"project": self.project, "gcp_credentials": self.gcp_credentials}
        resources: dict[str, Any] = {"analytics_hub": od.AnalyticsHubResource(**google)}
        if self.principal is not None:
            resources["octogen_control_plane"] = od.OctogenControlPlaneResource(
                principal=self.principal, host=self.host, token_uri=self.token_uri
            )
        if self.products or self.snapshot:
            resources[self._bigquery] = od.AnalyticsHubResource(**google)
        if self.snapshot and self.storage is not None:
            resources[f"{self.name}_linked_io_manager"] = self.storage.io_manager()
        return resources
