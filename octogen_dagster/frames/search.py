"""ProductSearch: the search of a snapshot, as Python, run configuration and YAML write it."""

from __future__ import annotations

from pydantic import Field, field_validator

from octogen_dagster.api.facets import CHECKED, Text
from octogen_dagster.api.search_request import MAX_PAGE_SIZE, SearchFilters, SearchRequest


class ProductSearch(SearchFilters):
    """A search whose whole result is read.

    Without `catalogs` every catalog of the source is read (`OctogenResource(catalogs=...)`), by
    default every one that is granted to the API key. `max_products` caps the result. Catalogs that
    are named, in the search or by the source, are read in their order until there are enough
    products; of the granted catalogs it takes the products that the service ranks highest.

    Raises:
        pydantic.ValidationError: A field is out of its range; the message names it.
    """

    catalogs: list[Text] = Field(
        default_factory=list,
        description="Catalog keys to read; none reads all of the resource's source.",
    )
    page_size: int = Field(
        default=MAX_PAGE_SIZE, ge=1, le=MAX_PAGE_SIZE, description="Products in one request."
    )
    max_products: int | None = Field(
        default=None, ge=1, description="Products to read at most; none reads all."
    )

    @field_validator("catalogs")
    @classmethod
    def _unique(cls, catalogs: list[str]) -> list[str]:
        if repeated := sorted({key for key in catalogs if catalogs.count(key) > 1}):
            raise ValueError(f"catalogs name {', '.join(repeated)} more than once: name each once")
        return catalogs

    @property
    def reads_whole_catalogs(self) -> bool:
        """True if every product of the catalogs is read."""
        return self.max_products is None and not self.has_filters

    def request(self, catalog: str | None) -> SearchRequest:
        """Return the request for page 1 of one catalog; of all catalogs if it is None."""
        filters = {name: getattr(self, name) for name in SearchFilters.model_fields}
        limit = min(self.page_size, self.max_products or self.page_size)
        return SearchRequest.model_validate(
            {**filters, "catalog": catalog, "limit": limit}, context=CHECKED
        )
