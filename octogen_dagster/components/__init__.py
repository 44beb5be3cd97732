"""The components that `dg` finds. Every `dg` command imports this module.

Importing this module and describing its components imports neither Polars nor Google libraries.
"""

from octogen_dagster.components.component import OctogenComponent as OctogenComponent
from octogen_dagster.components.linked_component import (
    OctogenLinkedDatasetsComponent as OctogenLinkedDatasetsComponent,
)
from octogen_dagster.components.settings import OctogenAssetData as OctogenAssetData
