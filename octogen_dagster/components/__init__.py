"""The components that `dg` finds. This module is imported by every command of `dg`.

Importing it and describing its components takes no Polars and no Google library.
"""

from octogen_dagster.components.component import OctogenComponent as OctogenComponent
from octogen_dagster.components.linked_component import (
    OctogenLinkedDatasetsComponent as OctogenLinkedDatasetsComponent,
)
from octogen_dagster.components.settings import OctogenAssetData as OctogenAssetData
