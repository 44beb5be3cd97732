"""What a YAML file says of the listings that Octogen shares over BigQuery."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import dagster as dg
from pydantic import Field, model_validator
from typing_extensions import Self

from octogen_dagster.components.check_settings import Hours
from octogen_dagster.components.search_settings import AssetSettings, Sensor
from octogen_dagster.components.yaml_component import YamlModel, placed
from octogen_dagster.components.yaml_fields import Text, deferred, switch
from octogen_dagster.settings import require_extras

if TYPE_CHECKING:
    from octogen_dagster.bigquery.listing_sources import Source

OCTOGEN = "octogen"


class ListingSourceSettings(YamlModel):
    """Where listings come from: an exchange, or a list."""

    exchange: str | None = Field(
        default=None,
        description="projects/<project>/locations/<location>/dataExchanges/<exchange>",
    )
    listings: list[str] | None = Field(default=None, description="Resource names of listings.")


@placed
def _resolve_source(context: dg.ResolutionContext, value: Any) -> ListingSourceSettings:
    if value == OCTOGEN:
        return ListingSourceSettings()
    if isinstance(value, str):
        raise ValueError(
            f"source is {value!r}: write {OCTOGEN}, or exchange: ... or listings: [...] below it."
        )
    source: ListingSourceSettings = ListingSourceSettings.resolve_from_model(context, value)
    if (source.exchange is None) == (source.listings is None):
        raise ValueError(f"source needs either exchange or listings, or is the word {OCTOGEN}.")
    return source


class LinkedProductsSettings(AssetSettings):
    """The settings of the asset that describes and checks the linked tables."""

    max_age_hours: Hours | None = Field(
        default=48,
        description="Hours since the last modification after which the check `fresh` fails; null "
        "leaves the check out.",
    )
    modified_column: str | None = Field(
        default=None, description="The column whose newest value is the last modification."
    )
    columns: list[str] | None = Field(default=None, description="The columns to expect.")

    def arguments(self) -> dict[str, Any]:
        """The arguments of `build_linked_products_asset`."""
        return {
            "max_age": None if self.max_age_hours is None else timedelta(hours=self.max_age_hours),
            "modified_column": self.modified_column,
            **({} if self.columns is None else {"columns": self.columns}),
        }


class LinkedSnapshotSettings(AssetSettings):
    """The settings of the snapshots of linked views."""

    columns: list[str] | None = Field(
        default=None, description="The columns to read; all by default. BigQuery bills for them."
    )
    where: str | None = Field(default=None, description="One expression in BigQuery's SQL.")
    max_age_hours: Hours | None = Field(
        default=48,
        description="Hours since the last modification after which the check `fresh` fails; null "
        "leaves the check out.",
    )
    modified_column: str | None = Field(
        default=None,
        description="The column whose newest value is the last modification; by default "
        "`exported_at`, if it is read.",
    )

    def arguments(self) -> dict[str, Any]:
        """The arguments of `build_linked_snapshot_asset`."""
        return {
            "columns": self.columns,
            "where": self.where,
            "max_age": None if self.max_age_hours is None else timedelta(hours=self.max_age_hours),
            "modified_column": self.modified_column,
        }


class LinkedDatasetsSettings(AssetSettings):
    """The listings to subscribe to, and the assets of their linked datasets.

    Raises:
        pydantic.ValidationError: The source is Octogen and there is no principal.
        MissingPackageError: The packages of the extra `bigquery`, or with Octogen as the source
            those of `mcp`, are not installed.
    """

    project: Annotated[Text, deferred(str, "Your Google Cloud project; it pays for queries.")]
    gcp_credentials: Annotated[
        Text | None,
        deferred(
            str | None,
            'A service account\'s key file in base64, as "{{ env.NAME }}". By default Application '
            "Default Credentials.",
        ),
    ] = None
    source: Annotated[
        ListingSourceSettings,
        dg.Resolver(
            _resolve_source,
            model_field_type=ListingSourceSettings.model(),
            description=f"{OCTOGEN} (the default), or `exchange`, or `listings`.",
        ),
    ] = Field(default_factory=ListingSourceSettings)
    principal: Annotated[
        Text | None,
        deferred(
            str | None,
            "With source: octogen, the IAM principal that subscribes, such as "
            "serviceAccount:reader@my-project.iam.gserviceaccount.com.",
        ),
    ] = None
    replace_revoked: bool = Field(
        default=False,
        description="Delete a revoked subscription to the same listing that holds the dataset id, "
        "with the dataset and the access rights set on it. By default such a run fails.",
    )
    sensor: Sensor = Field(
        default=True,
        description="The sensor that subscribes to new listings: `true` has it, stopped; `running` "
        "starts it with its first deployment; `false` leaves it out.",
    )
    products: Annotated[
        LinkedProductsSettings | None,
        switch(LinkedProductsSettings, "Describes and checks each linked table."),
    ] = None
    snapshot: Annotated[
        LinkedSnapshotSettings | None,
        switch(LinkedSnapshotSettings, "Each linked view as a Parquet snapshot."),
    ] = None

    @property
    def from_octogen(self) -> bool:
        """True if Octogen's control plane is the source."""
        return self.source.exchange is None and self.source.listings is None

    @model_validator(mode="after")
    def _check(self) -> Self:
        require_extras("linked_datasets", "bigquery", *(["mcp"] if self.from_octogen else []))
        if self.from_octogen and self.principal is None:
            raise ValueError(
                f"linked_datasets with source: {OCTOGEN} needs principal, the IAM principal that "
                "Octogen shares with, such as serviceAccount:reader@my-project.iam."
                "gserviceaccount.com."
            )
        return self

    def listing_source(self) -> Source:
        """The source of the listing sensor.

        Raises:
            OctogenBigQueryInputError: A name is not that of a listing.
        """
        from octogen_dagster.bigquery.listing_sources import (
            ExchangeSource,
            OctogenSource,
            StaticSource,
        )

        if self.source.exchange is not None:
            return ExchangeSource(self.source.exchange)
        if self.source.listings is not None:
            return StaticSource(self.source.listings)
        return OctogenSource()

    def resources(self, host: Text | None = None) -> dict[str, Any]:
        """The resources that the assets and the sensor need, by their keys.

        Args:
            host: The host that Octogen is at.
        """
        from dagster_gcp import BigQueryResource

        from octogen_dagster.bigquery.resources import (
            AnalyticsHubResource,
            OctogenControlPlaneResource,
        )

        google: dict[str, Any] = {"project": self.project, "gcp_credentials": self.gcp_credentials}
        resources: dict[str, Any] = {"analytics_hub": AnalyticsHubResource(**google)}
        if self.principal is not None:
            resources["octogen_control_plane"] = OctogenControlPlaneResource(
                principal=self.principal, host=host
            )
        if self.products or self.snapshot:
            resources["bigquery"] = BigQueryResource(**google)
        return resources
