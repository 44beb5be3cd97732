"""The request models for both generations. FastAPI derives the 422 responses from their limits."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from octogen_dagster.sandbox.facets import is_known_facet


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _each_once(values: list[str]) -> list[str]:
    if repeated := next((each for each in values if values.count(each) > 1), None):
        raise ValueError(f"{repeated} is listed more than once")
    return values


def _exists(facet: str) -> str:
    if not is_known_facet(facet):
        raise ValueError(f"unknown facet {facet}")
    return facet


def _each_name_once(facets: list[Facet]) -> list[Facet]:
    _each_once([facet.name for facet in facets])
    return facets


def _in_order(name: str, low: float | None, high: float | None) -> None:
    if low is not None and high is not None and low > high:
        raise ValueError(f"{name}_min must not exceed {name}_max")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Facet(_Body):
    """A filter. A product matches if it has one of `values`, ignoring case."""

    name: Annotated[str, Field(min_length=1)]
    values: list[str] = Field(min_length=1)


class KnownFacet(Facet):
    name: Annotated[str, Field(min_length=1), AfterValidator(_exists)]


_Text = Annotated[str, AfterValidator(_not_blank)]
_Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Quality = Annotated[float, Field(ge=1, le=6)]
_Facets = Annotated[list[KnownFacet], Field(max_length=50), AfterValidator(_each_name_once)]
_Names = Annotated[list[str], Field(max_length=50), AfterValidator(_each_once)]


class Filters(_Body):
    """Filters in all requests."""

    q: str | None = None
    price_min: _Price | None = None
    price_max: _Price | None = None

    @property
    def keywords(self) -> str:
        return (self.q or "").strip()

    @model_validator(mode="after")
    def _prices_in_order(self) -> Self:
        _in_order("price", self.price_min, self.price_max)
        return self


class SeedSearchRequest(Filters):
    """A search in the seed generation: one catalog or all."""

    facets: Annotated[list[Facet], Field(max_length=50), AfterValidator(_each_name_once)] | None = (
        None
    )
    catalog: str | None = Field(default=None, min_length=1)
    cursor: str | None = None
    limit: int = Field(default=50, ge=1, le=100)


class CurrentFilters(Filters):
    """Filters in the current generation."""

    catalogs: Annotated[list[_Text], Field(min_length=1, max_length=500)] | None = None
    facets: _Facets | None = None
    exclude_facets: _Facets | None = None
    brand_quality_min: _Quality | None = None
    brand_quality_max: _Quality | None = None
    omit_generated_facets: list[str] | None = Field(default=None, max_length=50)
    fallback_category: list[str] | None = Field(default=None, min_length=1, max_length=4)

    def is_understood(self) -> bool:
        return bool(self.keywords)

    @model_validator(mode="after")
    def _without_contradictions(self) -> Self:
        _in_order("brand_quality", self.brand_quality_min, self.brand_quality_max)
        for name in ("omit_generated_facets", "fallback_category", "relax"):
            if getattr(self, name, None) and not self.is_understood():
                raise ValueError(f"{name} requires an understood q")
        sent = {facet.name for facet in self.facets or ()}
        if both := sent.intersection(self.omit_generated_facets or ()):
            raise ValueError(f"{min(both)} is in facets and in omit_generated_facets")
        return self


class CurrentSearchRequest(CurrentFilters):
    """A search in the current generation."""

    understand: bool | None = True
    relax: bool | None = False
    similar_to_brands: list[_Text] | None = Field(default=None, min_length=1, max_length=10)
    diversity: bool | None = False
    debug: bool | None = False
    cursor: str | None = None
    limit: int = Field(default=50, ge=1, le=100)

    def is_understood(self) -> bool:
        return bool(self.keywords) and self.understand is not False

    @model_validator(mode="after")
    def _keywords_to_understand(self) -> Self:
        if self.understand is False and not self.keywords:
            raise ValueError("understand: false requires q")
        return self


class CategoryToCount(_Body):
    key: str = Field(min_length=1, max_length=200)
    facets: Annotated[_Facets, Field(min_length=1, max_length=10)]


class FacetCountsRequest(CurrentFilters):
    """Filters, and what to count in the matching products. By default, colors are counted."""

    attributes: _Names | None = None
    categories: list[CategoryToCount] | None = Field(default=None, max_length=100)
    facet_names: (
        Annotated[
            list[Literal["color_family", "category_path.depth_0"]],
            Field(max_length=2),
            AfterValidator(_each_once),
        ]
        | None
    ) = None
    value_limit: int | None = Field(default=None, ge=1, le=1000)

    @property
    def counted_facets(self) -> list[str]:
        return ["color_family"] if self.facet_names is None else [*self.facet_names]

    @model_validator(mode="after")
    def _counts_something(self) -> Self:
        _each_once([category.key for category in self.categories or ()])
        if not (self.counted_facets or self.categories or self.attributes):
            raise ValueError("nothing to count")
        return self


class SeedLookupRequest(_Body):
    """A lookup in the seed generation."""

    url: str = Field(min_length=1)


class CurrentLookupRequest(SeedLookupRequest):
    """A lookup in the current generation. The sandbox only searches its index."""

    matchMode: Literal["strict", "loose"] | None = "loose"
    resolutionMode: Literal["auto", "index_only", "on_demand_only"] | None = "auto"
    onDemandCachePolicy: Literal["prefer_cache", "refresh"] | None = "prefer_cache"
    format: Literal["json"] | None = "json"

    @model_validator(mode="after")
    def _policy_of_a_cache(self) -> Self:
        if self.resolutionMode == "index_only" and self.onDemandCachePolicy == "refresh":
            raise ValueError("index_only has no cache policy")
        return self


class UrlListRequest(_Body):
    """A new URL list."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80)]


class UrlsRequest(_Body):
    """URLs to add to a list, to remove from it or to check. Invalid URLs pass this validation."""

    urls: list[Annotated[str, Field(max_length=2048)]] = Field(min_length=1, max_length=1000)
