"""The request bodies of each generation of the contract, and the details of a 422.

`operations` decides if a catalog exists.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo

Generation = Literal["seed", "current"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Facet(_Body):
    """A filter: products must have one of `values`, compared without case."""

    name: str = Field(min_length=1)
    values: list[str] = Field(min_length=1)


class SearchRequest(_Body):
    """The fields of a search that both generations share."""

    q: str | None = None
    facets: list[Facet] | None = Field(default=None, max_length=50)
    price_min: float | None = Field(default=None, allow_inf_nan=False)
    price_max: float | None = Field(default=None, allow_inf_nan=False)
    cursor: str | None = None
    limit: int = Field(default=50, ge=1, le=100)

    @property
    def catalog_keys(self) -> list[str] | None:
        """The catalogs to search; None for all."""
        raise NotImplementedError

    @field_validator("price_max")
    @classmethod
    def _not_below_price_min(cls, value: float | None, info: ValidationInfo) -> float | None:
        minimum = info.data.get("price_min")
        if value is not None and minimum is not None and minimum > value:
            raise PydanticCustomError("value_error", "price_min must not exceed price_max")
        return value

    def fingerprint(self) -> bytes:
        """Return all fields but the cursor, which tell one search from another."""
        return self.model_dump_json(exclude={"cursor"}).encode()


class SeedSearchRequest(SearchRequest):
    """A search of the seed generation: one catalog or all."""

    catalog: str | None = Field(default=None, min_length=1)

    @property
    def catalog_keys(self) -> list[str] | None:
        return None if self.catalog is None else [self.catalog]


class CurrentSearchRequest(SearchRequest):
    """A search of the current generation: several catalogs or all, each facet once."""

    catalogs: list[str] | None = Field(default=None, min_length=1, max_length=500)

    @property
    def catalog_keys(self) -> list[str] | None:
        return None if self.catalogs is None else list(dict.fromkeys(self.catalogs))

    @field_validator("facets")
    @classmethod
    def _each_name_once(cls, facets: list[Facet] | None) -> list[Facet] | None:
        names = [facet.name for facet in facets or ()]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise PydanticCustomError(
                "value_error", "facet {name} is listed more than once", {"name": repeated}
            )
        return facets


class SeedLookupRequest(_Body):
    """A product lookup of the seed generation."""

    url: str = Field(min_length=1)


class CurrentLookupRequest(SeedLookupRequest):
    """A product lookup of the current generation, with the fields of the published client.

    The sandbox has only an index, so the additional fields change nothing.
    """

    matchMode: Literal["strict", "loose"] | None = None
    resolutionMode: Literal["auto", "index_only", "on_demand_only"] | None = None
    onDemandCachePolicy: Literal["prefer_cache", "refresh"] | None = None


SEARCH_REQUESTS: dict[Generation, type[SearchRequest]] = {
    "seed": SeedSearchRequest,
    "current": CurrentSearchRequest,
}
LOOKUP_REQUESTS: dict[Generation, type[SeedLookupRequest]] = {
    "seed": SeedLookupRequest,
    "current": CurrentLookupRequest,
}


def refusal_details(error: ValidationError) -> list[dict[str, Any]]:
    """Return the `detail` of a 422."""
    return [
        {**problem, "loc": ["body", *problem["loc"]]} for problem in error.errors(include_url=False)
    ]
