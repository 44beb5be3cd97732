"""OctogenComponent: a deployment of Octogen's catalogs, written in YAML."""

from __future__ import annotations

import dagster as dg

from octogen_dagster.components.scaffolder import OctogenScaffolder
from octogen_dagster.components.settings import OctogenSettings
from octogen_dagster.errors import OctogenComponentError


@dg.scaffold_with(OctogenScaffolder)
class OctogenComponent(OctogenSettings):
    """Octogen's product catalogs as assets: snapshots of searches and whole catalogs, their changes
    and details, checks, sensors and schedules.

    It brings the resources that they need. Two components of one project need two names. Listings
    that Octogen shares over BigQuery are another component, `OctogenLinkedDatasetsComponent`.

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
                  schedule: {cron: "0 6 * * *", timezone: Europe/Berlin}

    Raises:
        OctogenComponentError: The YAML has mistakes; the message has a line for each.
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
        return Deployment(self).definitions()
