"""SearchRequest: the body of a search, checked before it is sent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from octogen_dagster.api.facets import Facet, Text, not_blank
from octogen_dagster.suggestions import refuse_unknown_settings

MAX_PAGE_SIZE = 100
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
BrandQuality = Annotated[float, Field(ge=1, le=6)]
_OF_UNDERSTOOD_KEYWORDS = ("omit_generated_facets", "fallback_category", "relax")
_BOUNDS = ("price", "brand_quality")
_NO_FILTERS = {"q", "understand", "similar_to_brands"}
"""Fields that leave out no products; the keywords do unless they are blank."""


class SearchFilters(BaseModel):
    """The filters of a search, without the catalog and the page.

    Only a service of the current contract takes `understand=True` and the fields after it. One of
    the older contract never understands keywords, and refuses the other fields with an error.

    Raises:
        pydantic.ValidationError: A field is out of its range; the message names the field.
    """

    model_config = ConfigDict(extra="forbid")
    _refuse_unknown = model_validator(mode="before")(refuse_unknown_settings)

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
    understand: bool = Field(
        default=False,
        description="True lets Octogen rewrite q and derive filters from it, which may differ from "
        "day to day. False matches q as written.",
    )
    exclude_facets: list[Facet] = Field(
        default_factory=list,
        max_length=50,
        description="Filters; a product must match none of them.",
    )
    omit_generated_facets: list[Text] = Field(
        default_factory=list,
        max_length=50,
        description="Names of filters that are not to be derived from an understood q.",
    )
    fallback_category: list[Text] = Field(
        default_factory=list,
        max_length=4,
        description="The category to search if none is derived from an understood q: up to 4 "
        "levels, root first.",
    )
    brand_quality_min: BrandQuality | None = Field(
        default=None, description="Lowest quality of the brand, 1 to 6, inclusive."
    )
    brand_quality_max: BrandQuality | None = Field(
        default=None, description="Highest quality of the brand, 1 to 6, inclusive."
    )
    similar_to_brands: list[Text] = Field(
        default_factory=list,
        max_length=10,
        description="Up to 10 brands; products in their style come first.",
    )
    relax: bool = Field(
        default=False,
        description="True searches with fewer derived filters if an understood q finds nothing.",
    )

    @property
    def has_keywords(self) -> bool:
        """True if `q` is not blank; the service browses without it."""
        return bool(self.q and self.q.strip())

    def as_json(self) -> dict[str, Any]:
        """The fields that are set, as JSON."""
        return {
            name: value
            for name, value in self.model_dump(mode="json").items()
            if value is not None and value is not False and value != []
        }

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in _BOUNDS:
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if low is not None and high is not None and low > high:
                raise ValueError(f"{name}_min {low} is above {name}_max {high}: swap them")
        names = [facet.name for facet in self.facets]
        _check_unique("facets", names, "put all values in one facet")
        _check_unique(
            "exclude_facets",
            [facet.name for facet in self.exclude_facets],
            "put all values in one facet",
        )
        _check_unique("omit_generated_facets", self.omit_generated_facets, "name each once")
        own = {name.lower() for name in names}
        if both := [name for name in self.omit_generated_facets if name.lower() in own]:
            raise ValueError(
                f"omit_generated_facets names {', '.join(both)}, and facets does too: a facet of "
                "the search replaces the generated one, so name it in facets only"
            )
        if not (self.understand and self.has_keywords):
            for name in _OF_UNDERSTOOD_KEYWORDS:
                if getattr(self, name):
                    raise ValueError(f"{name} needs q and understand=True: set both or leave it")
        return self

    @property
    def has_filters(self) -> bool:
        """True if the search leaves out products of the catalogs that it reads."""
        return self.has_keywords or any(
            getattr(self, name) != field.get_default(call_default_factory=True)
            for name, field in SearchFilters.model_fields.items()
            if name not in _NO_FILTERS
        )


class SearchRequest(SearchFilters):
    """The body of a `POST /products/search`: a search and one of its pages."""

    catalog: Annotated[str, AfterValidator(not_blank)] | None = None
    cursor: str | None = Field(default=None, min_length=1)
    limit: int = Field(default=50, ge=1, le=MAX_PAGE_SIZE)

    def body(self) -> dict[str, Any]:
        """The JSON object to send, without the fields that are not set.

        Keywords are understood by default, so `understand` goes with them also if it is false.
        """
        body = self.as_json()
        if self.has_keywords:
            return body | {"understand": self.understand}
        body.pop("understand", None)
        return body

    def following(self, cursor: str) -> Self:
        """The request of the page that a cursor leads to."""
        return self.model_copy(update={"cursor": cursor})


def _check_unique(field: str, names: Iterable[str], advice: str) -> None:
    lower = [name.lower() for name in names]
    if repeated := sorted({name for name in lower if lower.count(name) > 1}):
        raise ValueError(f"{field} name {', '.join(repeated)} more than once: {advice}")
