"""OctogenAssetData: what the component knows of an asset when it asks for its spec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import dagster as dg

if TYPE_CHECKING:
    from octogen_dagster.api.search import ProductSearch

Kind = Literal[
    "catalogs",
    "products",
    "changes",
    "details",
    "brands",
    "linked_datasets",
    "linked_products",
    "linked_snapshot",
]


@dataclass(frozen=True)
class OctogenAssetData:
    """An asset of an `OctogenComponent`, as `get_asset_spec` and `translation` see it.

    Attributes:
        kind: What the asset is.
        spec: The asset's spec by default.
        search: The search of a products asset.
        catalog: The key of the catalog that a products asset is of, with `catalogs_as: assets`.
    """

    kind: Kind
    spec: dg.AssetSpec
    search: ProductSearch | None = None
    catalog: str | None = None
