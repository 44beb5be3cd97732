"""OctogenLinkedDatasetsComponent: listings that Octogen shares over BigQuery, written in YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import dagster as dg
from pydantic import AfterValidator, Field, field_validator, model_validator
from typing_extensions import Self

import octogen_dagster as od
from octogen_dagster.bigquery.partitions import listing_name
from octogen_dagster.components.scaffolder import OctogenLinkedDatasetsScaffolder
from octogen_dagster.components.settings import (
    AssetsComponent,
    AssetSettings,
    ConnectionSettings,
    Fraction,
    Kind,
    MaxAgeHours,
    Name,
    OctogenAssetData,
    Sensor,
    SensorSettings,
    Storage,
    StorageSettings,
    check_host,
)
from octogen_dagster.components.table_settings import LinkedTableSettings
from octogen_dagster.components.yaml_model import (
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
        raise ValueError("write octogen, or exchange: ... or listings: [...] below it")
    return {}


def _check_exchange(exchange: str) -> str:
    od.ExchangeSource(exchange)
    return exchange


def _check_listing(listing: str) -> str:
    od.StaticSource([listing])
    return listing


Listing = Annotated[str, AfterValidator(_check_listing)]


def _listing_key(listing: str) -> object:
    """Return what identifies a listing, whose project has an id and a number."""
    return listing_name(od.listing_partition_key(listing)).key


class ListingSourceSettings(YamlModel):
    """Where listings come from: an exchange, or a list; by default Octogen."""

    exchange: Annotated[str, AfterValidator(_check_exchange)] | None = None
    """projects/<project>/locations/<location>/dataExchanges/<exchange>"""
    listings: list[Listing] | None = None
    """Resource names of listings."""

    @property
    def is_octogen(self) -> bool:
        """True if Octogen's control plane is the source."""
        return self.exchange is None and self.listings is None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.exchange is not None and self.listings is not None:
            raise ValueError("source has both exchange and listings: write one of them")
        return self

    def source(self) -> ListingSource:
        """The source that these settings describe."""
        if self.exchange is not None:
            return od.ExchangeSource(self.exchange)
        return od.OctogenSource() if self.listings is None else od.StaticSource(self.listings)


Source = Annotated[ListingSourceSettings, text_for(ListingSourceSettings, _octogen_source)]


class LinkedProductsSettings(AssetSettings):
    """The settings of the asset that describes and checks the linked tables."""

    max_age_hours: MaxAgeHours | None = 48
    """Hours since the last modification after which the check `fresh` fails; null leaves it out."""
    modified_column: str | None = None
    """The column whose newest value is the last modification."""
    columns: list[str] = Field(default_factory=list)
    """The columns to expect."""
    max_bytes_billed: int | None = Field(default=100_000_000_000, gt=0)
    """The most bytes that a query may be billed for; null for no limit."""


class LinkedSnapshotSettings(LinkedProductsSettings):
    """The settings of the snapshots of linked views."""

    columns: list[str] = Field(default_factory=list)
    """The columns to read; all by default. BigQuery bills for them."""
    where: str | None = None
    """One expression in BigQuery's SQL."""
    min_rows_fraction: Fraction = 0.5
    """The smallest snapshot that replaces the last one, as a share of its rows."""


class UrlCoverageSettings(AssetSettings):
    """The settings of the two assets of what Octogen exports of a URL list."""

    products_name: Name | None = None
    """The name of the asset of the products; by default <list>_products."""
    in_place: bool = False
    """Leave all rows in BigQuery."""
    columns: list[str] | None = None
    """The columns of products to read; all by default. BigQuery bills for them."""
    min_covered_fraction: Fraction = 0.5
    """The smallest share of the exported addresses that must be covered."""
    max_age_hours: MaxAgeHours | None = 48
    """Hours since the export after which the check `fresh` fails; null leaves it out."""
    listing_project: str = "octogen-catalog-exchange"
    """The project of the list's listing."""
    listing_location: str = "US"
    """The location of the list's listing."""
    dataset_id: str | None = None
    """The id of the linked dataset; by default octogen_<listing id>."""
    max_bytes_billed: int | None = Field(default=100_000_000_000, gt=0)
    """The most bytes that a query may be billed for; null for no limit."""


class UrlListSettings(AssetSettings):
    """The settings of a URL list that is kept equal to an asset of the project."""

    name: Name
    """The asset's name."""
    urls: str
    """The key of the asset that has the addresses, with the columns url and sku."""
    list_name: str | None = Field(default=None, min_length=1, max_length=80)
    """The list's name at Octogen; by default the asset's."""
    max_removed_fraction: Fraction = 0.2
    """The largest fraction of the list that a run may remove."""
    dry_run: bool = False
    """Report what a run would do, and do nothing."""
    coverage: Annotated[UrlCoverageSettings | None, switch(UrlCoverageSettings)] = None
    """Which addresses Octogen covers, and their products: assets <name>_coverage and
    <name>_products, whose translation is one."""

    @property
    def of_octogen(self) -> str:
        """The list's name at Octogen."""
        return self.name if self.list_name is None else self.list_name.strip()


_OF_SENSORS: tuple[Kind, ...] = ("linked_datasets", "url_coverage", "url_products")
"""The assets that a sensor requests."""
_STORED: tuple[Kind, ...] = ("linked_snapshot", "url_list", "url_coverage", "url_products")
"""The assets whose rows are stored."""


@dg.scaffold_with(OctogenLinkedDatasetsScaffolder)
class OctogenLinkedDatasetsComponent(AssetsComponent):
    """Listings that Octogen shares over BigQuery: a sensor that subscribes to them, their linked
    datasets, and if you want checks of the tables, snapshots of the views, and URL lists.

    It brings the resources that they need, and needs the extra `bigquery`, with Octogen as the
    source `mcp` too. A project has one of it. Mistakes in the YAML are an `OctogenComponentError`,
    whose message has a line for each.

    Example:

            type: octogen_dagster.components.OctogenLinkedDatasetsComponent
            attributes:
              project: my-project
              principal: serviceAccount:reader@my-project.iam.gserviceaccount.com
              products: true
    """

    name: Name = "octogen"
    """The prefix of the assets, <name>_linked_datasets, <name>_linked_products and
    <name>_linked_snapshot, and of <name>_listing_sensor."""
    project: Text
    """Your Google Cloud project; it pays for queries."""
    gcp_credentials: Text | None = None
    """A key file in base64, as "{{ env.NAME }}"; Application Default Credentials else."""
    source: Source = Field(default_factory=ListingSourceSettings)
    """octogen (the default), or `exchange`, or `listings`."""
    principal: Text | None = None
    """With source: octogen, the IAM principal that subscribes, as serviceAccount:<email>."""
    host: Text | None = None
    """Octogen is at mcp.<host> and auth.<host>; OCTOGEN_HOST, then octogen.ai by default."""
    token_uri: Text | None = None
    """Where `octogen-dagster login --token-uri` has put the login, for processes that share no
    disk: s3://..., gs://..., az://... or a path. By default OCTOGEN_MCP_TOKEN_URI."""
    dataset_id: dict[Listing, str] = Field(default_factory=dict)
    """Ids of linked datasets by the resource names of their listings. The others have the id that
    Octogen suggests, or octogen_<listing id>."""
    replace_revoked: bool = False
    """Delete a revoked subscription that holds the dataset id, with its dataset and the access
    rights set on it. By default such a run fails."""
    sensor: Sensor = Field(default_factory=SensorSettings)
    """The sensor of new listings: `true` has it, stopped; `running` starts it; `false` has none; or
    its settings."""
    products: Annotated[LinkedProductsSettings | None, switch(LinkedProductsSettings)] = None
    """Describes and checks each linked table."""
    snapshot: Annotated[LinkedSnapshotSettings | None, switch(LinkedSnapshotSettings)] = None
    """Each linked view as a Parquet snapshot."""
    tables: LinkedTableSettings | None = None
    """A table of the snapshots in a database or a warehouse: its `destination`."""
    url_lists: list[UrlListSettings] = Field(default_factory=list)
    """Own tables of competitors' addresses, as URL lists at Octogen."""
    url_list_sensor: Sensor = Field(default_factory=SensorSettings)
    """The sensor of lists that were exported anew, where a list has `coverage`: as `sensor`."""
    connection: ConnectionSettings = Field(default_factory=ConnectionSettings)
    """Octogen's REST API, for URL lists: the fields of OctogenResource."""
    storage: Storage = Field(default_factory=StorageSettings)
    """The store of the snapshots; null for the project's own `io_manager`."""

    _check_host = field_validator("host")(check_host)
    _check_credentials = field_validator("gcp_credentials")(check_not_written_out)

    @model_validator(mode="after")
    def _check(self) -> Self:
        extras = ["bigquery", *(["mcp"] if self.source.is_octogen else [])]
        require_extras("OctogenLinkedDatasetsComponent", *extras)
        if self.tables and not self.snapshot:
            raise ValueError("tables are of the snapshots: write snapshot: true, or remove tables")
        names = [each.of_octogen for each in self.url_lists]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(
                f"two url_lists are the list {twice!r}, and each run would undo the other's: give "
                "each a list_name of its own"
            )
        if self.source.is_octogen and self.principal is None:
            raise ValueError(
                "source: octogen needs principal, the IAM principal that Octogen shares with, such "
                "as serviceAccount:reader@my-project.iam.gserviceaccount.com"
            )
        return self

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the assets, their checks, the sensor and the resources.

        Args:
            context: The place of the component in the project.

        Raises:
            OctogenComponentError: The project has another one of this component.
        """
        if len(context.component_tree.get_all_components(OctogenLinkedDatasetsComponent)) > 1:
            raise OctogenComponentError(
                "This project has two OctogenLinkedDatasetsComponents, and both bring the resource "
                "analytics_hub. Write all listings in one, or put them into two projects."
            )
        ids = {_listing_key(listing): written for listing, written in self.dataset_id.items()}
        datasets = od.build_linked_datasets_asset(
            self._spec("linked_datasets", AssetSettings()),
            control_plane=self.source.is_octogen,
            dataset_id=lambda listing: ids.get(_listing_key(listing)),
            replace_revoked=self.replace_revoked,
            execute=self.execute,
        )
        assets = [datasets]
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
            if self.tables is not None:
                table = self._spec("table", AssetSettings(), f"{spec.key.path[-1]}_table")
                destination = self.tables.destination.destination()
                assets.append(
                    od.build_table_asset(snapshot, destination, name=table, execute=self.execute)
                )
        sensors = []
        if self.sensor is not None:
            sensor = od.build_listing_sensor(
                self.source.source(),
                datasets,
                name=f"{self.name}_listing_sensor",
                **self.sensor.arguments(),
            )
            sensors.append(sensor)
        linked = dg.Definitions(
            assets=assets,
            asset_checks=od.build_linked_datasets_checks(datasets, self.source.source()),
            sensors=sensors,
            resources=self._resources(),
        )
        return dg.Definitions.merge(linked, self._url_lists()) if self.url_lists else linked

    def _url_lists(self) -> dg.Definitions:
        """The URL lists, with what Octogen exports of them."""
        assets, checks, coverages, sensors = [], [], [], []
        runs: dict[str, Any] = {"resource_key": self._octogen, "execute": self.execute}
        for settings in self.url_lists:
            arguments = settings.arguments()
            arguments.pop("coverage", None)
            arguments["urls"] = dg.AssetKey.from_user_string(settings.urls)
            arguments["list_name"] = settings.of_octogen
            spec = self._spec("url_list", settings)
            url_list = od.build_url_list_asset(spec, **arguments, **runs)
            assets.append(url_list)
            checks += od.build_url_list_checks(url_list)
            if (coverage := settings.coverage) is not None:
                arguments = coverage.arguments()
                arguments.pop("products_name", None)
                products = AssetSettings(
                    name=coverage.products_name, translation=coverage.translation
                )
                coverages.append(
                    od.build_url_coverage_asset(
                        url_list,
                        name=self._spec("url_coverage", coverage, f"{settings.name}_coverage"),
                        products_name=self._spec(
                            "url_products", products, f"{settings.name}_products"
                        ),
                        control_plane=self.source.is_octogen,
                        bigquery_resource_key=self._bigquery,
                        **arguments,
                        **runs,
                    )
                )
        if coverages and self.url_list_sensor is not None:
            sensor = od.build_url_list_sensor(
                coverages,
                name=f"{self.name}_url_list_sensor",
                resource_key=self._octogen,
                **self.url_list_sensor.arguments(),
            )
            sensors.append(sensor)
        assets += [asset for coverage in coverages for asset in coverage]
        return dg.Definitions(assets=assets, asset_checks=checks, sensors=sensors)

    @property
    def _bigquery(self) -> str:
        """The key of the resource for queries, beside a `bigquery` that the project may have."""
        return f"{self.name}_bigquery"

    @property
    def _octogen(self) -> str:
        """The key of the REST API's resource, beside that of an `OctogenComponent`."""
        return f"{self.name}_url_lists"

    def _spec(self, kind: Kind, settings: AssetSettings, name: str = "") -> dg.AssetSpec:
        spec = dg.AssetSpec(
            settings.name or name or f"{self.name}_{kind}",
            automation_condition=None if kind in _OF_SENSORS else od.follow_upstream(),
        )
        if kind in _STORED and self.storage is not None:
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
        has_coverage = any(each.coverage for each in self.url_lists)
        if self.products or self.snapshot or has_coverage:
            resources[self._bigquery] = od.AnalyticsHubResource(**google)
        if self.url_lists:
            written = {"host": self.host} | self.connection.arguments()
            resources[self._octogen] = od.OctogenResource(**written)
        if (self.snapshot or self.url_lists) and self.storage is not None:
            resources[f"{self.name}_linked_io_manager"] = self.storage.io_manager()
        return resources
