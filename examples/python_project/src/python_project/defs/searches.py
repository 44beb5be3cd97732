"""A search that runs every morning."""

from octogen_dagster import (
    Facet,
    ProductSearch,
    build_products_asset,
    build_snapshot_schedule,
)
from octogen_dagster.api.search import FacetName

jackets = build_products_asset(
    "jackets",
    ProductSearch(
        q="jacket", facets=[Facet(name=FacetName.GENDER, values=["female"])], price_max=300
    ),
)
every_morning = build_snapshot_schedule(jackets, "0 6 * * *", execution_timezone="Europe/Berlin")
