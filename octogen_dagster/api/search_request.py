"""SearchRequest: the body of a search, checked before it is sent."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from octogen_dagster.api.facets import Facet

MAX_PAGE_SIZE = 100
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SearchFilters(BaseModel):
    """The filters of a search, without the catalog and the page.

    Raises:
        pydantic.ValidationError: A field is out of its range; the message names the field.
    """

    model_config = ConfigDict(extra="forbid")

    q: str | None = Field(
        default=None,
        min_length=1,
        description="Keywords; None keeps all products that match the filters.",
    )
    facets: list[Facet] = Field(
        default_factory=list,
        max_length=50,
        description="Filters; a product must match all of them.",
    )
    price_min: Price | None = Field(default=None, description="Lowest current price, inclusive.")
    price_max: Price | None = Field(default=None, description="Highest current price, inclusive.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.price_min, self.price_max
        if low is not None and high is not None and low > high:
            raise ValueError(f"price_min {low} is above price_max {high}: swap them")
        names = [facet.name.lower() for facet in self.facets]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"facets name {', '.join(repeated)} more than once: put all values in one facet"
            )
        return self

    @property
    def has_filters(self) -> bool:
        """True if the search leaves out products of the catalogs that it reads."""
        return any(
            getattr(self, name) != field.get_default(call_default_factory=True)
            for name, field in SearchFilters.model_fields.items()
        )


class SearchRequest(SearchFilters):
    """The body of a `POST /products/search`: a search and one of its pages."""

    catalog: str | None = Field(default=None, min_length=1, pattern=r"\S")
    cursor: str | None = Field(default=None, min_length=1)
    limit: int = Field(default=50, ge=1, le=MAX_PAGE_SIZE)

    def body(self) -> dict[str, Any]:
        """The JSON object to send, without the fields that are not set."""
        body = self.model_dump(mode="json", exclude_none=True)
        if not self.facets:
            del body["facets"]
        return body

    def following(self, cursor: str) -> Self:
        """The request of the page that a cursor leads to."""
        return self.model_copy(update={"cursor": cursor})
