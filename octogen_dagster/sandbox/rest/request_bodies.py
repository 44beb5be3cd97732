"""The request bodies of each generation of the contract, and the details of a 422.

`operations` decides if a catalog exists.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError, from_json
from pydantic_core.core_schema import ValidationInfo
from typing_extensions import Self

from octogen_dagster.sandbox.data.verticals import CATEGORY_PATHS
from octogen_dagster.sandbox.rest.facets import is_known_facet

Generation = Literal["seed", "interim", "current"]

_BodyT = TypeVar("_BodyT", bound=BaseModel)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Facet(_Body):
    """A filter: products must have one of `values`, compared without case."""

    name: str = Field(min_length=1)
    values: list[str] = Field(min_length=1)


class KnownFacet(Facet):
    """A filter by a facet that exists."""

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        if not is_known_facet(name):
            raise PydanticCustomError("value_error", "unknown facet {name}", {"name": name})
        return name


def _each_name_once(facets: list[KnownFacet] | None) -> list[KnownFacet] | None:
    names = [facet.name for facet in facets or ()]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise PydanticCustomError(
            "value_error", "facet {name} is listed more than once", {"name": repeated}
        )
    return facets


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("value_error", "must not be blank")
    return text


def _each_once(values: list[str] | None) -> list[str] | None:
    repeated = next((each for each in values or () if (values or []).count(each) > 1), None)
    if repeated is not None:
        raise PydanticCustomError(
            "value_error", "{value} is listed more than once", {"value": repeated}
        )
    return values


def _in_taxonomy(path: list[str] | None) -> list[str] | None:
    if path is not None and tuple(name.casefold() for name in path) not in CATEGORY_PATHS:
        raise PydanticCustomError("value_error", "the category does not exist")
    return path


KnownFacets = Annotated[list[KnownFacet], Field(max_length=50), AfterValidator(_each_name_once)]
Text = Annotated[str, AfterValidator(_not_blank)]
CatalogKeys = Annotated[list[Text], Field(min_length=1, max_length=500)]
BrandQuality = Annotated[float, Field(ge=1, le=6)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
FacetNames = list[Literal["color_family", "category_path.depth_0"]]
CategoryPath = Annotated[list[str], Field(min_length=1, max_length=4), AfterValidator(_in_taxonomy)]


def _bounds_in_order(name: str, value: float | None, info: ValidationInfo) -> float | None:
    minimum = info.data.get(f"{name}_min")
    if value is not None and minimum is not None and minimum > value:
        raise PydanticCustomError(
            "value_error", "{name}_min must not exceed {name}_max", {"name": name}
        )
    return value


def _has_keywords(info: ValidationInfo) -> bool:
    return bool((info.data.get("q") or "").strip())


class Filters(_Body):
    """The filters that all generations share."""

    q: str | None = None
    price_min: Price | None = None
    price_max: Price | None = None

    @property
    def keywords(self) -> str:
        """The keywords, without blanks around them."""
        return (self.q or "").strip()

    @property
    def catalog_keys(self) -> list[str] | None:
        """The catalogs to search; None for all."""
        raise NotImplementedError

    @property
    def caller_facets(self) -> list[Facet]:
        """The facets that products must have."""
        raise NotImplementedError

    @field_validator("price_max")
    @classmethod
    def _not_below_price_min(cls, value: float | None, info: ValidationInfo) -> float | None:
        return _bounds_in_order("price", value, info)


class SearchRequest(Filters):
    """The fields of a search that all generations share."""

    cursor: str | None = None
    limit: int = Field(default=50, ge=1, le=100)

    def fingerprint(self) -> bytes:
        """Return all fields but the cursor, which tell one search from another."""
        return self.model_dump_json(exclude={"cursor"}).encode()


class SeedSearchRequest(SearchRequest):
    """A search of the seed generation: one catalog or all."""

    facets: list[Facet] | None = Field(default=None, max_length=50)
    catalog: str | None = Field(default=None, min_length=1)

    @property
    def catalog_keys(self) -> list[str] | None:
        return None if self.catalog is None else [self.catalog]

    @property
    def caller_facets(self) -> list[Facet]:
        return self.facets or []


class InterimSearchRequest(SeedSearchRequest):
    """A search of the generation in between: one catalog, several, or all."""

    catalogs: CatalogKeys | None = None

    @property
    def catalog_keys(self) -> list[str] | None:
        return self.catalogs if self.catalog is None else [self.catalog]


class UnderstoodFilters(Filters):
    """The filters that the current generation's searches and counts share."""

    catalogs: CatalogKeys | None = None
    facets: KnownFacets | None = None
    exclude_facets: KnownFacets | None = None
    brand_quality_min: BrandQuality | None = None
    brand_quality_max: BrandQuality | None = None
    understand: bool | None = True
    omit_generated_facets: list[str] | None = Field(default=None, max_length=50)
    fallback_category: CategoryPath | None = None

    @property
    def catalog_keys(self) -> list[str] | None:
        return None if self.catalogs is None else list(dict.fromkeys(self.catalogs))

    @property
    def caller_facets(self) -> list[Facet]:
        return list(self.facets or ())

    @property
    def is_understood(self) -> bool:
        """True if filters are derived from the keywords."""
        return self.understand is not False and bool(self.keywords)

    @field_validator("brand_quality_max")
    @classmethod
    def _not_below_quality_min(cls, value: float | None, info: ValidationInfo) -> float | None:
        return _bounds_in_order("brand_quality", value, info)

    @field_validator("understand")
    @classmethod
    def _only_with_keywords(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        if value is False and not _has_keywords(info):
            raise PydanticCustomError("value_error", "understand: false requires q")
        return value

    @field_validator("omit_generated_facets", "fallback_category", "relax", check_fields=False)
    @classmethod
    def _only_understood(cls, value: Any, info: ValidationInfo) -> Any:
        if value and not (_has_keywords(info) and info.data.get("understand") is not False):
            raise PydanticCustomError(
                "value_error", "{name} requires an understood q", {"name": info.field_name}
            )
        return value

    @field_validator("omit_generated_facets")
    @classmethod
    def _not_sent_as_well(cls, value: list[str] | None, info: ValidationInfo) -> list[str] | None:
        sent = {facet.name for facet in info.data.get("facets") or ()}
        both = next((name for name in value or () if name in sent), None)
        if both is not None:
            raise PydanticCustomError("value_error", "{name} is in facets as well", {"name": both})
        return value


class CurrentSearchRequest(UnderstoodFilters, SearchRequest):
    """A search of the current generation. `diversity` and `debug` change nothing here."""

    relax: bool | None = False
    similar_to_brands: list[Text] | None = Field(default=None, min_length=1, max_length=10)
    diversity: bool | None = False
    debug: bool | None = False


class CategoryToCount(_Body):
    """A category whose products are counted."""

    key: str = Field(min_length=1, max_length=200)
    facets: Annotated[
        list[KnownFacet], Field(min_length=1, max_length=10), AfterValidator(_each_name_once)
    ]


class FacetCountsRequest(UnderstoodFilters):
    """Filters, and what to count among the products that match them."""

    attributes: Annotated[list[str] | None, AfterValidator(_each_once)] = Field(
        default=None, max_length=50
    )
    categories: list[CategoryToCount] | None = Field(default=None, max_length=100)
    facet_names: Annotated[FacetNames | None, AfterValidator(_each_once)] = Field(
        default=None, max_length=2
    )
    value_limit: int | None = Field(default=None, ge=1, le=1000)

    @property
    def counted_facets(self) -> list[str]:
        """The facets whose values are counted; colours if none are named."""
        return ["color_family"] if self.facet_names is None else list(self.facet_names)

    @field_validator("understand", mode="before")
    @classmethod
    def _not_a_field(cls, value: Any) -> Any:
        raise PydanticCustomError("extra_forbidden", "Extra inputs are not permitted")

    @field_validator("categories")
    @classmethod
    def _each_key_once(cls, value: list[CategoryToCount] | None) -> list[CategoryToCount] | None:
        _each_once([category.key for category in value or ()])
        return value

    @model_validator(mode="after")
    def _counts_something(self) -> Self:
        if not (self.counted_facets or self.categories or self.attributes):
            raise PydanticCustomError("value_error", "nothing to count")
        return self


SEARCH_REQUESTS: dict[Generation, type[SeedSearchRequest] | type[CurrentSearchRequest]] = {
    "seed": SeedSearchRequest,
    "interim": InterimSearchRequest,
    "current": CurrentSearchRequest,
}


class SeedLookupRequest(_Body):
    """A product lookup of the generations before the current one."""

    url: str = Field(min_length=1)


class CurrentLookupRequest(SeedLookupRequest):
    """A product lookup of the current generation. Markdown is not offered."""

    matchMode: Literal["strict", "loose"] | None = "loose"
    resolutionMode: Literal["auto", "index_only", "on_demand_only"] | None = "auto"
    onDemandCachePolicy: Literal["prefer_cache", "refresh"] | None = "prefer_cache"
    format: Literal["json"] | None = "json"

    @field_validator("onDemandCachePolicy")
    @classmethod
    def _only_on_demand(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value == "refresh" and info.data.get("resolutionMode") == "index_only":
            raise PydanticCustomError("value_error", "index_only has no cache policy")
        return value


class RefusedBodyError(Exception):
    """A body that the contract refuses.

    Attributes:
        problems: The `detail` of the 422.
    """

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        super().__init__(problems)
        self.problems = problems


def parse_body(model: type[_BodyT], body: bytes) -> _BodyT:
    """Return the request in a body.

    Raises:
        RefusedBodyError: The body is not JSON, or not what `model` takes.
    """
    try:
        return model.model_validate(from_json(body, allow_inf_nan=False))
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise RefusedBodyError(
            [{**problem, "loc": ["body", *problem["loc"]]} for problem in problems]
        ) from None
    except ValueError as error:
        problem = {"loc": ["body"], "msg": "JSON decode error", "type": "json_invalid"}
        raise RefusedBodyError([{**problem, "input": {}, "ctx": {"error": str(error)}}]) from None
