"""OctogenLinkedDatasetsComponent: listings that Octogen shares over BigQuery, written in YAML."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import dagster as dg
from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from octogen_dagster.automation import follow_upstream
from octogen_dagster.components.component import AssetsComponent
from octogen_dagster.components.scaffolder import OctogenLinkedDatasetsScaffolder
from octogen_dagster.components.settings import (
    AssetSettings,
    Kind,
    OctogenAssetData,
    Sensor,
    StorageSettings,
    Translation,
    check_host,
    check_hours,
    check_name,
    check_not_written_out,
    sensor_status,
    translated,
)
from octogen_dagster.components.yaml_model import Text, YamlModel, deferred, invalid, switch
from octogen_dagster.errors import OctogenBigQueryInputError, OctogenComponentError
from octogen_dagster.validation import require_extras

if TYPE_CHECKING:
    from octogen_dagster.bigquery.listing_sources import Source

_FRESH = (
    "Hours since the last modification after which the check `fresh` fails; null leaves it out."
)


class ListingSourceSettings(YamlModel):
    """Where listings come from: an exchange, or a list; by default Octogen."""

    exchange: str | None = Field(
        default=None,
        description="projects/<project>/locations/<location>/dataExchanges/<exchange>",
    )
    listings: list[str] | None = Field(default=None, description="Resource names of listings.")

    @classmethod
    def of_text(cls, text: str) -> Self:
        """Return the settings of the word `octogen`."""
        if text != "octogen":
            raise ValueError("write octogen, or exchange: ... or listings: [...] below it")
        return cls()

    @property
    def is_octogen(self) -> bool:
        """True if Octogen's control plane is the source."""
        return self.exchange is None and self.listings is None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.exchange is not None and self.listings is not None:
            raise ValueError("source has both exchange and listings: write one of them")
        return self

    @field_validator("exchange")
    @classmethod
    def _check_exchange(cls, exchange: str | None) -> str | None:
        from octogen_dagster.bigquery.listing_sources import ExchangeSource

        if exchange is not None:
            ExchangeSource(exchange)
        return exchange

    @field_validator("listings")
    @classmethod
    def _check_listings(cls, listings: list[str] | None) -> list[str] | None:
        from octogen_dagster.bigquery.listing_sources import StaticSource

        for position, listing in enumerate(listings or ()):
            try:
                StaticSource([listing])
            except OctogenBigQueryInputError as error:
                raise invalid((position,), str(error)) from None
        return listings

    def source(self) -> Source:
        """The source that these settings describe."""
        from octogen_dagster.bigquery.listing_sources import (
            ExchangeSource,
            OctogenSource,
            StaticSource,
        )

        if self.exchange is not None:
            return ExchangeSource(self.exchange)
        return OctogenSource() if self.listings is None else StaticSource(self.listings)


class LinkedProductsSettings(AssetSettings):
    """The settings of the asset that describes and checks the linked tables."""

    max_age_hours: float | None = Field(default=48, description=_FRESH)
    modified_column: str | None = Field(
        default=None, description="The column whose newest value is the last modification."
    )
    columns: list[str] | None = Field(default=None, description="The columns to expect.")

    _check_hours = field_validator("max_age_hours")(check_hours)

    def arguments(self) -> dict[str, Any]:
        """The arguments of the builder."""
        hours = self.max_age_hours
        return {
            "max_age": None if hours is None else timedelta(hours=hours),
            "modified_column": self.modified_column,
            **({} if self.columns is None else {"columns": self.columns}),
        }


class LinkedSnapshotSettings(LinkedProductsSettings):
    """The settings of the snapshots of linked views."""

    columns: list[str] | None = Field(
        default=None, description="The columns to read; all by default. BigQuery bills for them."
    )
    where: str | None = Field(default=None, description="One expression in BigQuery's SQL.")

    def arguments(self) -> dict[str, Any]:
        """The arguments of the builder."""
        return super().arguments() | {"where": self.where}


@dg.scaffold_with(OctogenLinkedDatasetsScaffolder)
class OctogenLinkedDatasetsComponent(AssetsComponent):
    """Listings that Octogen shares over BigQuery: a sensor that subscribes to them, their linked
    datasets, and if you want checks of the tables and snapshots of the views.

    It brings the resources that they need. A project has one of it.

    Example:

        .. code-block:: yaml

            type: octogen_dagster.components.OctogenLinkedDatasetsComponent
            attributes:
              project: my-project
              principal: serviceAccount:reader@my-project.iam.gserviceaccount.com
              products: true

    Raises:
        pydantic.ValidationError: The source is Octogen and there is no principal.
        MissingPackageError: The packages of the extra `bigquery`, or with Octogen as the source
            those of `mcp`, are not installed.
    """

    name: str = Field(
        default="octogen",
        description="The prefix of the assets, <name>_linked_datasets, <name>_linked_products and "
        "<name>_linked_snapshot, and of <name>_listing_sensor.",
    )
    project: Annotated[Text, deferred(str, "Your Google Cloud project; it pays for queries.")]
    gcp_credentials: Annotated[
        Text | None,
        deferred(
            str,
            'A key file in base64, as "{{ env.NAME }}"; Application Default Credentials else.',
        ),
    ] = None
    source: ListingSourceSettings = Field(
        default_factory=ListingSourceSettings,
        description="octogen (the default), or `exchange`, or `listings`.",
    )
    principal: Annotated[
        Text | None,
        deferred(
            str,
            "With source: octogen, the IAM principal that subscribes, as serviceAccount:<email>.",
        ),
    ] = None
    host: Annotated[
        Text | None,
        deferred(
            str,
            "Octogen is at mcp.<host> and auth.<host>; OCTOGEN_HOST, then octogen.ai by default.",
        ),
    ] = None
    replace_revoked: bool = Field(
        default=False,
        description="Delete a revoked subscription that holds the dataset id, with its dataset "
        "and the access rights set on it. By default such a run fails.",
    )
    sensor: Sensor = Field(
        default=True,
        description="The sensor of new listings: `true` has it, stopped; `running` starts it; "
        "`false` has none.",
    )
    products: Annotated[
        LinkedProductsSettings | None,
        switch(LinkedProductsSettings, "Describes and checks each linked table."),
    ] = None
    snapshot: Annotated[
        LinkedSnapshotSettings | None,
        switch(LinkedSnapshotSettings, "Each linked view as a Parquet snapshot."),
    ] = None
    storage: StorageSettings | None = Field(
        default_factory=StorageSettings,
        description="The store of the snapshots; null for the project's own `io_manager`.",
    )
    translation: Translation = Field(
        default=None,
        description="Changes of all assets; those of products and snapshots may have their own.",
    )

    _check_name = field_validator("name")(check_name)
    _check_host = field_validator("host")(check_host)
    _check_credentials = field_validator("gcp_credentials")(check_not_written_out)

    @model_validator(mode="after")
    def _check(self) -> Self:
        extras = ["bigquery", *(["mcp"] if self.source.is_octogen else [])]
        require_extras("OctogenLinkedDatasetsComponent", *extras)
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
        from octogen_dagster.bigquery.linked_datasets import build_linked_datasets_asset
        from octogen_dagster.bigquery.linked_products import build_linked_products_asset
        from octogen_dagster.bigquery.linked_snapshot import build_linked_snapshot_asset
        from octogen_dagster.bigquery.listing_sensor import build_listing_sensor
        from octogen_dagster.bigquery.subscription_checks import build_linked_datasets_checks

        if len(context.component_tree.get_all_components(OctogenLinkedDatasetsComponent)) > 1:
            raise OctogenComponentError(
                "This project has two OctogenLinkedDatasetsComponents, and both bring the resource "
                "analytics_hub. Write all listings in one, or put them into two projects."
            )
        datasets = build_linked_datasets_asset(
            self._spec("linked_datasets"),
            control_plane=self.source.is_octogen,
            replace_revoked=self.replace_revoked,
            execute=self.execute,
        )
        assets = [datasets]
        if self.products is not None:
            spec = self._spec("linked_products", self.products)
            arguments = self.products.arguments() | {"execute": self.execute}
            assets.append(build_linked_products_asset(datasets, name=spec, **arguments))
        if self.snapshot is not None:
            spec = self._spec("linked_snapshot", self.snapshot)
            arguments = self.snapshot.arguments() | {"execute": self.execute}
            assets.append(build_linked_snapshot_asset(datasets, name=spec, **arguments))
        sensors = []
        if self.sensor:
            sensor = build_listing_sensor(
                self.source.source(),
                datasets,
                name=f"{self.name}_listing_sensor",
                default_status=sensor_status(self.sensor),
            )
            sensors.append(sensor)
        return dg.Definitions(
            assets=assets,
            asset_checks=build_linked_datasets_checks(datasets, self.source.source()),
            sensors=sensors,
            resources=self._resources(),
        )

    def _spec(self, kind: Kind, follows: AssetSettings | None = None) -> dg.AssetSpec:
        settings = follows or AssetSettings()
        spec = dg.AssetSpec(
            settings.name or f"{self.name}_{kind}",
            automation_condition=follow_upstream() if follows else None,
        )
        if kind == "linked_snapshot" and self.storage is not None:
            spec = spec.with_io_manager_key(f"{self.name}_linked_io_manager")
        data = OctogenAssetData(kind, spec)
        return translated(data, self.get_asset_spec, self.translation, settings.translation)

    def _resources(self) -> dict[str, Any]:
        from dagster_gcp import BigQueryResource

        from octogen_dagster.bigquery.resources import (
            AnalyticsHubResource,
            OctogenControlPlaneResource,
        )

        google: dict[str, Any] = {"project": self.project, "gcp_credentials": self.gcp_credentials}
        resources: dict[str, Any] = {"analytics_hub": AnalyticsHubResource(**google)}
        if self.principal is not None:
            resources["octogen_control_plane"] = OctogenControlPlaneResource(
                principal=self.principal, host=self.host
            )
        if self.products or self.snapshot:
            resources["bigquery"] = BigQueryResource(**google)
        if self.snapshot and self.storage is not None:
            resources[f"{self.name}_linked_io_manager"] = self.storage.io_manager()
        return resources
