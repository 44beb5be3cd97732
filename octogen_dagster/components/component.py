"""OctogenComponent: a deployment of Octogen's catalogs, written in YAML."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from octogen_dagster.components.scaffolder import OctogenScaffolder
from octogen_dagster.components.settings import OctogenAssetData, OctogenSettings
from octogen_dagster.components.yaml_model import YamlComponent
from octogen_dagster.errors import OctogenComponentError


class AssetsComponent(YamlComponent):
    """A component whose assets a subclass may change."""

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
        elif isinstance(result, dg.MaterializeResult):
            yield result
        else:
            yield dg.MaterializeResult(value=result)


@dg.scaffold_with(OctogenScaffolder)
class OctogenComponent(OctogenSettings, AssetsComponent):
    """Octogen's product catalogs as assets: snapshots of searches and whole catalogs, their changes
    and details, checks, sensors and schedules.

    It brings the resources that they need. Two components of one project need two names. Listings
    that Octogen shares over BigQuery are another component, `OctogenLinkedDatasetsComponent`.

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

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the assets, checks, sensors, schedules and resources.

        Args:
            context: The place of the component in the project.

        Raises:
            OctogenComponentError: Another component of the project has the same name.
        """
        from octogen_dagster.components.deployment import Deployment

        others = context.component_tree.get_all_components(OctogenComponent)
        if sum(each.name == self.name for each in others) > 1:
            raise OctogenComponentError(
                f"Two OctogenComponents of this project have the name {self.name!r}, so their "
                "resources and catalogs would be mixed. Write attributes.name in the YAML of one "
                "of them, such as name: other_shops."
            )
        return Deployment(self, self.get_asset_spec, self.execute).definitions()
