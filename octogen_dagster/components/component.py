"""OctogenComponent: a deployment of Octogen's catalogs, written in YAML."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import dagster as dg
from dagster.components.component.state_backed_component import StateBackedComponent
from dagster.components.utils.defs_state import (
    DefsStateConfig,
    DefsStateConfigArgs,
    ResolvedDefsStateConfig,
)
from pydantic import ConfigDict, Field, model_validator
from typing_extensions import Self

from octogen_dagster.api.catalog_sources import CatalogSource, GrantedCatalogs
from octogen_dagster.components.asset_data import OctogenAssetData
from octogen_dagster.components.connection_settings import (
    GRANTED,
    CatalogSourceSettings,
    ConnectionSettings,
    StorageSettings,
    resolve_catalog_source,
)
from octogen_dagster.components.linked_settings import LinkedDatasetsSettings
from octogen_dagster.components.scaffolder import OctogenScaffolder
from octogen_dagster.components.search_settings import (
    AssetSettings,
    Name,
    SearchSettings,
    Translation,
)
from octogen_dagster.components.siblings import check_siblings
from octogen_dagster.components.yaml_component import YamlComponent, invalid
from octogen_dagster.components.yaml_fields import switch


@dg.scaffold_with(OctogenScaffolder)
class OctogenComponent(YamlComponent, StateBackedComponent):
    """Octogen's product catalogs as assets: snapshots of searches and whole catalogs, their changes
    and details, checks, sensors, schedules, and linked BigQuery datasets.

    It brings the resources that they need. Two components of one project need two names.

    Example:

        .. code-block:: yaml

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
                  schedule: {cron: "0 6 * * *", timezone: Europe/Berlin}

    Raises:
        pydantic.ValidationError: Settings are out of range or contradict each other; the message
            names them.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)  # CatalogSource

    name: Name = Field(
        default="octogen",
        description="The prefix of what has no name of its own: the resources <name> and "
        "<name>_io_manager, the table and the partitions of catalogs, <name>_catalogs, and the "
        "linked datasets. Two components of one project need two names.",
    )
    connection: ConnectionSettings = Field(
        default_factory=ConnectionSettings, description="Octogen's REST API."
    )
    catalog_source: Annotated[
        CatalogSource,
        dg.Resolver(
            resolve_catalog_source,
            model_field_type=CatalogSourceSettings.model(),
            description=f"Where catalogs come from: {GRANTED} (the default), or `hosts` of shops, "
            "or `keys` of catalogs.",
        ),
    ] = Field(default_factory=GrantedCatalogs)
    catalogs_as: Literal["partitions", "assets"] = Field(
        default="partitions",
        description="With `assets`, a search with partitions of catalogs is one asset for each "
        "catalog instead. `dg utils refresh-defs-state` asks the source which there are.",
    )
    storage: StorageSettings | None = Field(
        default_factory=StorageSettings,
        description="The store of the snapshots; null stores them with the project's own "
        "`io_manager`.",
    )
    catalogs: Annotated[
        AssetSettings | None,
        switch(
            AssetSettings,
            "The table of the catalogs; by default there if a search has partitions of catalogs.",
        ),
    ] = None
    searches: list[SearchSettings] = Field(
        default_factory=list, description="Searches and whole catalogs."
    )
    linked_datasets: LinkedDatasetsSettings | None = Field(
        default=None, description="Listings that Octogen shares over BigQuery."
    )
    translation: Translation = Field(
        default=None,
        description="Changes of all assets; those of a single asset are in its own translation.",
    )
    defs_state: ResolvedDefsStateConfig = Field(
        default_factory=DefsStateConfigArgs.local_filesystem
    )

    @model_validator(mode="after")
    def _check_searches(self) -> Self:
        names = [search.name for search in self.searches]
        for position, search in enumerate(self.searches):
            if (first := names.index(search.name)) < position:
                raise invalid(
                    ("searches", position, "name"),
                    f"{search.name!r} is also the name of searches[{first}]: give each search a "
                    "name of its own.",
                )
            if search.sensor and self.catalogs_as == "assets":
                raise invalid(
                    ("searches", position, "sensor"),
                    "needs catalogs_as: partitions. Catalogs that are assets are materialized by "
                    "a schedule or an automation condition.",
                )
        return self

    @property
    def catalogs_table(self) -> AssetSettings | None:
        """The settings of the table of the catalogs; None if there is no table."""
        if "catalogs" in self.model_fields_set:
            return self.catalogs
        return AssetSettings() if any(search.by_catalog for search in self.searches) else None

    def get_asset_spec(self, data: OctogenAssetData) -> dg.AssetSpec:
        """Return the spec of an asset, before `translation` changes it.

        Override it in a subclass to change keys, tags or metadata by what the asset is.

        Args:
            data: The asset.
        """
        return data.spec

    def execute(
        self, context: dg.AssetExecutionContext, compute: Callable[[], Any]
    ) -> Iterator[Any]:
        """Run an asset and yield its result.

        Override it in a subclass to log, check or change what an asset returns.

        Args:
            context: The context of the run.
            compute: Runs the asset and returns what it returns: a scan, a frame, a
                `dagster.MaterializeResult`, or an iterator of events.
        """
        result = compute()
        if isinstance(result, Iterator):
            yield from result
            return
        yield (
            result
            if isinstance(result, dg.MaterializeResult)
            else dg.MaterializeResult(value=result)
        )

    @property
    def defs_state_config(self) -> DefsStateConfig:
        """How the catalogs are kept that become assets."""
        return DefsStateConfig.from_args(
            self.defs_state, default_key=f"{type(self).__name__}[{self.name}]"
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the assets, checks, sensors, schedules and resources.

        Args:
            context: The place of the component in the project.

        Raises:
            OctogenComponentError: Another component of the project has the same name, or linked
                datasets as well.
        """
        check_siblings(self, context.component_tree.get_all_components(OctogenComponent))
        if self.catalogs_as == "assets":
            return super().build_defs(context)
        return self.build_defs_from_state(context, None)

    def build_defs_from_state(
        self, context: dg.ComponentLoadContext, state_path: Path | None
    ) -> dg.Definitions:
        """Build the definitions, with the catalogs of the state if they are assets.

        Args:
            context: The place of the component in the project.
            state_path: The file with the catalogs; None if there is none.
        """
        from octogen_dagster.components.catalog_state import read_catalogs
        from octogen_dagster.components.deployment import Deployment

        catalogs = read_catalogs(state_path, self.name) if self.catalogs_as == "assets" else []
        return Deployment(self, catalogs).definitions()

    def write_state_to_path(self, state_path: Path) -> None:
        """Write the catalogs of the source to a file.

        Args:
            state_path: The file.

        Raises:
            OctogenError: The catalogs cannot be listed.
        """
        from octogen_dagster.components.catalog_state import write_catalogs

        if self.catalogs_as == "partitions":  # Dagster asks every component for its state
            state_path.write_text("[]")
            return
        write_catalogs(self.connection.resource(self.catalog_source), state_path)
