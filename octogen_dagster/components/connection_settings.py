"""What a YAML file says of the service, of the source of catalogs, and of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import dagster as dg
from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from octogen_dagster.api.catalog_sources import (
    CatalogSource,
    GrantedCatalogs,
    NamedCatalogs,
    ShopCatalogs,
)
from octogen_dagster.components.yaml_component import YamlModel, placed
from octogen_dagster.components.yaml_fields import Text, deferred

if TYPE_CHECKING:
    from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
    from octogen_dagster.snapshots.resource import OctogenResource

GRANTED = "granted"


class ConnectionSettings(YamlModel):
    """The fields of `OctogenResource` except `catalogs`; those that are left out have its defaults.

    Raises:
        pydantic.ValidationError: The key is written out.
    """

    api_key: Annotated[
        Text | None,
        deferred(
            str | None,
            'The API key, as "{{ env.NAME }}". By default OCTOGEN_PLATFORM_API_KEY, then '
            "OCTO_API_KEY, of the process that runs the step.",
        ),
    ] = None
    host: Annotated[
        Text | None,
        deferred(
            str | None,
            "The host that Octogen is at, as api.<host>, mcp.<host> and auth.<host>, such as "
            "storerouter.ai. By default OCTOGEN_HOST of the process that runs the step, then "
            "octogen.ai. Linked datasets use it too.",
        ),
    ] = None
    base_url: Annotated[
        Text | None,
        deferred(
            str | None,
            "The base URL of the API; https, or http on this machine. By default OCTOGEN_BASE_URL "
            "of the process that runs the step, then that of the host.",
        ),
    ] = None
    timeout: float | None = Field(
        default=None, description="Seconds that one attempt of a request may take; 30 by default."
    )
    concurrency: int | None = Field(
        default=None,
        description="Catalogs, or parts of a large one, to read at the same time; products to look "
        "up at the same time; 8 by default.",
    )
    attempts: int | None = Field(
        default=None, description="Attempts of one request in all; 6 by default."
    )
    deadline: float | None = Field(
        default=None,
        description="Seconds that a request may take with all its retries; 300 by default.",
    )
    reserve: float | None = Field(
        default=None,
        description="Share of the organisation's request budget that bulk reads leave to others; "
        "0.2 by default.",
    )
    search_page_usd: float | None = Field(
        default=None, description="Dollars that Octogen charges for a page of a search."
    )
    lookup_usd: float | None = Field(
        default=None, description="Dollars that Octogen charges for a lookup."
    )
    budget_usd: float | None = Field(
        default=None, description="Dollars that a run may spend; no limit by default."
    )
    max_extra_pages_ratio: float | None = Field(
        default=None,
        description="The most pages that reading a large catalog in several walks at once may add, "
        "as a share of its pages; 0 reads each catalog in one walk. 0.05 by default.",
    )

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, api_key: Any) -> Any:
        if api_key is None or isinstance(api_key, dg.EnvVar):
            return api_key
        raise ValueError(
            "api_key is written out, and Dagster would show it in its UI: put the key into an "
            'environment variable and write api_key: "{{ env.OCTOGEN_PLATFORM_API_KEY }}".'
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.resource(GrantedCatalogs())  # has the ranges of the fields
        return self

    def resource(self, catalogs: CatalogSource) -> OctogenResource:
        """The resource that these settings describe.

        Args:
            catalogs: The source of catalogs.

        Raises:
            pydantic.ValidationError: A field is out of its range; the message names it.
        """
        from octogen_dagster.snapshots.resource import OctogenResource

        return OctogenResource(**_given(self), catalogs=catalogs)


class StorageSettings(YamlModel):
    """The fields of `ParquetSnapshotIOManager`; those that are left out have its defaults."""

    base_dir: Annotated[
        Text,
        deferred(str, "A folder, s3://bucket/..., gs://... or az://...; by default `snapshots`."),
    ] = "snapshots"
    storage_options: Annotated[
        dict[str, Any] | None,
        deferred(
            dict[str, Any] | None,
            "Options of the object store, such as aws_region; a secret among them is "
            '"{{ env.NAME }}".',
        ),
    ] = None
    partition_column: str | None = Field(
        default=None,
        description="The column that tells partitions in one frame apart; by default `partition`.",
    )
    resume_within_hours: float | None = Field(
        default=None,
        description="Hours for which the saved pages of a read that died are continued; 0: never. "
        "6 by default.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.io_manager()  # has the ranges of the fields
        return self

    def io_manager(self) -> ParquetSnapshotIOManager:
        """The IO manager that these settings describe.

        Raises:
            pydantic.ValidationError: A field is out of its range; the message names it.
        """
        from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager

        return ParquetSnapshotIOManager(**{"base_dir": self.base_dir, **_given(self)})


class CatalogSourceSettings(YamlModel):
    """Where catalogs come from: the hosts of shops or the keys of catalogs."""

    hosts: list[str] | None = Field(
        default=None, description="Hosts of shops, such as acme.com: the catalogs that serve them."
    )
    keys: list[str] | None = Field(default=None, description="Keys of catalogs.")
    catalogs: list[str] | None = Field(
        default=None,
        description="Keys of those catalogs of the hosts that are read; by default all.",
    )

    def source(self) -> CatalogSource:
        """The source that these settings describe.

        Raises:
            ValueError: There is neither a host nor a key, or there are both, or catalogs are
                chosen among those of no host.
        """
        if self.hosts is not None and self.keys is not None:
            raise ValueError(
                "catalog_source has both hosts and keys: write one of them. Hosts are of shops, "
                "and keys are of catalogs."
            )
        if self.hosts is not None:
            return ShopCatalogs(hosts=self.hosts, catalogs=self.catalogs)
        if self.catalogs is not None:
            raise ValueError(
                "catalog_source has catalogs without hosts, among whose catalogs they choose: "
                "write hosts, or write keys instead of catalogs."
            )
        if self.keys is not None:
            return NamedCatalogs(keys=self.keys)
        raise ValueError(f"catalog_source needs hosts or keys, or is the word {GRANTED}.")


@placed
def resolve_catalog_source(context: dg.ResolutionContext, value: Any) -> CatalogSource:
    """Return the source that a YAML file names.

    Args:
        context: Resolves templates.
        value: `granted`, or the model of `CatalogSourceSettings`.

    Raises:
        ValueError: It is neither, or has neither hosts nor keys, or both.
    """
    if value == GRANTED:
        return GrantedCatalogs()
    if isinstance(value, str):
        raise ValueError(
            f"catalog_source is {value!r}: write {GRANTED}, or hosts: [...] or keys: [...] below."
        )
    settings: CatalogSourceSettings = CatalogSourceSettings.resolve_from_model(context, value)
    return settings.source()


def _given(settings: dg.Model) -> dict[str, Any]:
    """The fields that are set. EnvVar stays what it is, which `model_dump` does not promise."""
    values = {name: getattr(settings, name) for name in settings.model_fields_set}
    return {name: value for name, value in values.items() if value is not None}
