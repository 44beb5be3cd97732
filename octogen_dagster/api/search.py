"""Search models with the descriptions and limits of all fields.

`ProductSearch` reads a search's full result; `SearchRequest` is the request body for one page. Run
configuration, component YAML, client arguments, search summaries and the comparison of effective
queries are all derived from these fields.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Self, TypedDict, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import Unpack

from octogen_dagster.validation import name_mistakes

_Function = TypeVar("_Function", bound=Callable[..., Any])

MAX_PAGE_SIZE = 100
MAX_CATALOGS = 500
"""Maximum number of catalogs in a request."""


class FacetName(StrEnum):
    """Facets that every catalog has. Product attributes such as `fit` are also facet names."""

    BRAND_NAME = "brand_name"
    BRAND_SLUG = "brand_slug"
    RAW_BRAND_NAME = "raw_brand_name"
    PRODUCT_TYPE = "product_type"
    GENDER = "gender"
    AGE_GROUPS = "age_groups"
    COLOR = "color"
    COLOR_FAMILY = "color_family"
    IS_ACTIVEWEAR = "is_activewear"
    CATEGORY_PATH_DEPTH_0 = "category_path.depth_0"
    CATEGORY_PATH_DEPTH_1 = "category_path.depth_1"
    CATEGORY_PATH_DEPTH_2 = "category_path.depth_2"
    CATEGORY_PATH_DEPTH_3 = "category_path.depth_3"
    CATEGORY_PATH_DEPTH_4 = "category_path.depth_4"
    CATEGORY_PATH_DEPTH_5 = "category_path.depth_5"
    CATEGORY_PATH_DEPTH_6 = "category_path.depth_6"


class Gender(StrEnum):
    """Values for the facet `gender`."""

    MALE = "male"
    FEMALE = "female"
    UNISEX = "unisex"


class AgeGroup(StrEnum):
    """Values for the facet `age_groups`."""

    INFANT = "infant"
    TODDLER = "toddler"
    KIDS = "kids"
    ADULT = "adult"


class ColorFamily(StrEnum):
    """Values for the facet `color_family`."""

    PINK = "Pink"
    RED = "Red"
    ORANGE = "Orange"
    BROWN = "Brown"
    YELLOW = "Yellow"
    GREEN = "Green"
    BLUE = "Blue"
    PURPLE = "Purple"
    WHITE = "White"
    GRAY = "Gray"
    BLACK = "Black"


_CLOSED: Mapping[str, tuple[str, ...]] = {
    FacetName.GENDER: tuple(Gender),
    FacetName.AGE_GROUPS: tuple(AgeGroup),
    FacetName.COLOR_FAMILY: (*ColorFamily, "Multicolor"),  # rare, so not part of the enum
}
"""Facets with a fixed set of values."""

_SYNONYMS: Mapping[str, str] = {
    "age": FacetName.AGE_GROUPS,
    "brand": FacetName.BRAND_NAME,
    "category": FacetName.CATEGORY_PATH_DEPTH_0,
    "category_path": FacetName.CATEGORY_PATH_DEPTH_0,
    "sex": FacetName.GENDER,
}
_MIN_NAME_SIMILARITY = 0.8  # must not match an attribute such as product_line to product_type

CHECKED: Mapping[str, bool] = {"octogen_dagster.checked": True}
"""Validation context for a search that was validated before. It skips the facet checks, because an
older version of the package might have had different rules."""


def _not_blank(text: str) -> str:
    # Python's strip() removes more whitespace characters than pydantic's.
    if not text.strip():
        raise ValueError("must not be blank")
    return text


Text = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_not_blank)
]


class Facet(BaseModel):
    """Selects products whose facet `name` has one of the given `values`, ignoring case.

    `name` can be any product attribute. A name that only resembles a `FacetName` is therefore
    accepted with a warning.

    Raises:
        pydantic.ValidationError: The name or the list of values is empty, or a value is invalid for
            `gender`, `age_groups` or `color_family`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    _name_mistakes = model_validator(mode="wrap")(name_mistakes)

    name: Text = Field(description="A facet such as gender, or a product attribute such as fit.")
    values: list[Text] = Field(
        min_length=1, description="Values. A product must have at least one of these values."
    )

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Self:
        if info.context == CHECKED:
            return self
        name = self.name.lower()
        _check_values(name, self.values)
        if self.name not in set(FacetName):
            close = difflib.get_close_matches(name, list(FacetName), 1, _MIN_NAME_SIMILARITY)
            if meant := _SYNONYMS.get(name) or next(iter(close), None):
                warnings.warn(
                    f"Facet {self.name!r} filters by a product attribute with this name. Did you "
                    f"mean '{meant}'?",
                    stacklevel=3,
                )
        return self


def _check_values(name: str, values: Iterable[str]) -> None:
    """Reject values outside a facet's fixed set, and suggest similar values."""
    if name not in _CLOSED:
        return
    by_lower = {value.lower(): value for value in _CLOSED[name]}
    for value in values:
        if value.lower() in by_lower:
            continue
        close = difflib.get_close_matches(value.lower(), by_lower, n=2, cutoff=0.5)
        meant = f" (did you mean {' or '.join(by_lower[each] for each in close)}?)" if close else ""
        *others, last = _CLOSED[name]
        allowed = f"{', '.join(others)} or {last}"
        raise ValueError(f"{name} has no value {value!r}{meant}. Use {allowed}.")


_Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_BrandQuality = Annotated[float, Field(ge=1, le=6)]
_NEED_UNDERSTANDING = ("omit_generated_facets", "fallback_category", "relax")
_NO_FILTERS = {"q", "understand", "similar_to_brands"}
"""Fields that do not filter products. `q` filters products only if it is not blank."""


class SearchFilters(BaseModel):
    """The keywords and filters for a search.

    `understand=True` and the fields after it require a service with the current API contract. A
    service with the older API contract rejects these fields with an error.

    Raises:
        pydantic.ValidationError: A field is out of range. The message names the field.
    """

    model_config = ConfigDict(extra="forbid")
    _name_mistakes = model_validator(mode="wrap")(name_mistakes)

    q: str | None = Field(
        default=None,
        min_length=1,
        description="Keywords. If unset, all products that match the filters are returned.",
    )
    facets: list[Facet] = Field(
        default_factory=list,
        max_length=50,
        description="Filters. A product must match all of these filters.",
    )
    price_min: _Price | None = Field(default=None, description="Lowest current price, inclusive.")
    price_max: _Price | None = Field(default=None, description="Highest current price, inclusive.")
    understand: bool = Field(
        default=False,
        description="If true, Octogen rewrites `q` and derives filters from it, with results that "
        "can vary from day to day. If false, `q` is matched as written.",
    )
    exclude_facets: list[Facet] = Field(
        default_factory=list,
        max_length=50,
        description="Filters. A product that matches any of these filters is excluded.",
    )
    omit_generated_facets: list[Text] = Field(
        default_factory=list,
        max_length=50,
        description="Facets for which Octogen derives no filters from `q`. Requires `understand`.",
    )
    fallback_category: list[Text] = Field(
        default_factory=list,
        max_length=4,
        description="Category to search if Octogen does not derive a category from `q`. Up to 4 "
        "levels, starting with the top-level category. Requires `understand`.",
    )
    brand_quality_min: _BrandQuality | None = Field(
        default=None, description="Lowest brand quality, from 1 to 6, inclusive."
    )
    brand_quality_max: _BrandQuality | None = Field(
        default=None, description="Highest brand quality, from 1 to 6, inclusive."
    )
    similar_to_brands: list[Text] = Field(
        default_factory=list,
        max_length=10,
        description="Up to 10 brands. Products in the style of these brands are ranked first.",
    )
    relax: bool = Field(
        default=False,
        description="If true, Octogen drops some of the derived filters when the search finds no "
        "products. Requires `understand`.",
    )

    @field_validator("facets", "exclude_facets", mode="before")
    @classmethod
    def _check_facets(cls, facets: Any) -> Any:
        if isinstance(facets, dict):
            meant = [
                {"name": name, "values": [values] if isinstance(values, str) else values}
                for name, values in facets.items()
            ]
            raise ValueError(f"must be a list. Use {meant}")
        return facets

    @property
    def has_keywords(self) -> bool:
        """True if `q` is set and not blank."""
        return bool(self.q and self.q.strip())

    @property
    def has_filters(self) -> bool:
        """True if the keywords or filters might exclude products."""
        return self.has_keywords or any(
            getattr(self, name) != default
            for name, default in _defaults().items()
            if name not in _NO_FILTERS
        )

    def as_json(self) -> dict[str, Any]:
        """Return the fields that are set, as JSON."""
        return {
            name: value
            for name, value in self.model_dump(mode="json").items()
            # Compared by identity, because a bound of 0 equals False.
            if value is not None and value is not False and value != []
        }

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("price", "brand_quality"):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if low is not None and high is not None and low > high:
                raise ValueError(f"{name}_min {low} is greater than {name}_max {high}. Swap them.")
        names = [facet.name for facet in self.facets]
        excluded = [facet.name for facet in self.exclude_facets]
        _check_unique("facets", names, "Put all values in one facet.")
        _check_unique("exclude_facets", excluded, "Put all values in one facet.")
        _check_unique("omit_generated_facets", self.omit_generated_facets, "Remove duplicates.")
        own = {name.lower() for name in names}
        if both := [name for name in self.omit_generated_facets if name.lower() in own]:
            raise ValueError(
                f"{', '.join(both)} cannot be in both `facets` and `omit_generated_facets`. Remove "
                "it from `omit_generated_facets`. `facets` already replaces derived facets."
            )
        if not (self.understand and self.has_keywords):
            for name in _NEED_UNDERSTANDING:
                if getattr(self, name):
                    raise ValueError(
                        f"`{name}` requires `q` and `understand=True`. Set both or remove `{name}`."
                    )
        return self


def _check_unique(field: str, names: Iterable[str], advice: str) -> None:
    lower = [name.lower() for name in names]
    if repeated := sorted({name for name in lower if lower.count(name) > 1}):
        raise ValueError(f"`{field}` contains {', '.join(repeated)} more than once. {advice}")


class SearchRequest(SearchFilters):
    """The request body of `POST /products/search` for one page."""

    catalog: Annotated[str, AfterValidator(_not_blank)] | None = Field(
        default=None, description="Catalog key. Defaults to every catalog the API key can search."
    )
    catalogs: list[Text] = Field(
        default_factory=list,
        max_length=MAX_CATALOGS,
        description="Several catalog keys. Requires the current API contract.",
    )
    cursor: str | None = Field(
        default=None, min_length=1, description="`next_cursor` from the previous page."
    )
    limit: int = Field(default=50, ge=1, le=MAX_PAGE_SIZE, description="Products per page.")

    @classmethod
    def of(cls, **arguments: Unpack[SearchArguments]) -> Self:
        """Create a request from the keyword arguments that are not None."""
        given = {
            name: value
            for name, value in arguments.items()
            if value is not None or name not in cls.model_fields
        }
        return cls.model_validate(given)

    @model_validator(mode="after")
    def _check_catalogs(self) -> Self:
        if self.catalog is not None and self.catalogs:
            raise ValueError("`catalog` and `catalogs` cannot both be set. Use only `catalogs`.")
        return self

    def body(self) -> dict[str, Any]:
        """Return the request body without unset fields.

        The service interprets keywords by default. A search with keywords therefore always sends
        `understand`.
        """
        body = self.as_json()
        if self.has_keywords:
            return body | {"understand": self.understand}
        body.pop("understand", None)
        return body

    def following(self, cursor: str) -> Self:
        """Return a copy of the request for the page at `cursor`."""
        return self.model_copy(update={"cursor": cursor})


_FIELDS = list(SearchFilters.model_fields)
CURRENT_FIELDS = (*_FIELDS[_FIELDS.index("understand") :], "catalogs")
"""The names of the search fields that only the current API contract supports."""


class SearchArguments(TypedDict, total=False):
    """The fields of `SearchRequest` as keyword arguments, for type checkers and editors."""

    catalog: str | None
    catalogs: Sequence[str]
    q: str | None
    facets: Sequence[Facet | Mapping[str, Any]] | None
    price_min: float | None
    price_max: float | None
    understand: bool
    exclude_facets: Sequence[Facet | Mapping[str, Any]]
    omit_generated_facets: Sequence[str]
    fallback_category: Sequence[str]
    brand_quality_min: float | None
    brand_quality_max: float | None
    similar_to_brands: Sequence[str]
    relax: bool
    cursor: str | None
    limit: int


def shows_arguments(function: _Function) -> _Function:
    """Add the fields of `SearchRequest` to a function's signature, for `help` and notebooks."""
    signature = inspect.signature(function)
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    fields = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None
            if field.default_factory
            else field.default,  # None stands for an empty list
        )
        for name, field in SearchRequest.model_fields.items()
    ]
    function.__signature__ = signature.replace(parameters=[*own, *fields])  # type: ignore[attr-defined]
    return function


class ProductSearch(SearchFilters):
    """A search that reads all matching products.

    If `catalogs` is empty, the search reads every catalog in `OctogenResource(catalog_source=...)`,
    which defaults to the catalogs granted to the API key.

    `max_products` limits the result. If the search or the source lists catalogs, the catalogs are
    read in order until there are enough products. For granted catalogs, and for a search with
    filters in up to 500 listed catalogs, the result contains the products that the service ranks
    highest.

    Raises:
        pydantic.ValidationError: A field is out of range. The message names the field.
    """

    catalogs: list[Text] = Field(
        default_factory=list,
        description="Catalog keys to read. Defaults to all catalogs in the resource's "
        "`catalog_source`.",
    )
    page_size: int = Field(
        default=MAX_PAGE_SIZE, ge=1, le=MAX_PAGE_SIZE, description="Products per request."
    )
    max_products: int | None = Field(
        default=None, ge=1, description="Maximum number of products to read. Defaults to all."
    )

    @field_validator("catalogs")
    @classmethod
    def _unique(cls, catalogs: list[str]) -> list[str]:
        if repeated := sorted({key for key in catalogs if catalogs.count(key) > 1}):
            raise ValueError(
                f"`catalogs` contains {', '.join(repeated)} more than once. Remove duplicates."
            )
        return catalogs

    @property
    def reads_whole_catalogs(self) -> bool:
        """True if the search reads every product in its catalogs."""
        return self.max_products is None and not self.has_filters

    def request(self, catalog: str | None = None, catalogs: Sequence[str] = ()) -> SearchRequest:
        """Return the request for page 1. If no catalogs are given, it searches all catalogs."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in SearchFilters.model_fields}
        fields |= {"catalog": catalog, "catalogs": list(catalogs)}
        fields["limit"] = min(self.page_size, self.max_products or self.page_size)
        return SearchRequest.model_validate(fields, context=CHECKED)


@functools.cache
def _defaults() -> Mapping[str, Any]:
    """Return the fields' defaults. The result is cached, because computing it takes 1 ms."""
    return {
        name: field.get_default(call_default_factory=True)
        for name, field in SearchFilters.model_fields.items()
    }


def checked_search(search: object) -> ProductSearch:
    """Return a search or a mapping of its fields as a `ProductSearch`. None means all products."""
    if isinstance(search, str):
        raise TypeError(
            f"`search` must be a ProductSearch, not the string {search!r}. Pass "
            f"ProductSearch(q={search!r})."
        )
    return ProductSearch.model_validate({} if search is None else search)


def describe_search(search: ProductSearch, of: str | None = None) -> str:
    """Describe a search's result, such as "all products of northpeak"."""
    found = "products" if search.has_filters else "all products"
    if search.max_products is not None:
        found = f"the first {search.max_products:,} products"
    of = of or ", ".join(search.catalogs)
    filters = "; ".join(_filters_in_words(search))
    return f"{found}{of and f' of {of}'}{filters and f' that match {filters}'}"


def _filters_in_words(search: SearchFilters) -> Iterator[str]:
    for name in SearchFilters.model_fields:
        value, words = getattr(search, name), name.replace("_", " ")
        if name in {"understand", *_NEED_UNDERSTANDING} or value is None or value == []:
            continue
        if name == "q":
            yield f"“{value}”{' (interpreted by Octogen)' if search.understand else ''}"
        elif words.endswith((" min", " max")):
            yield f"{words[:-4]} {'from' if words.endswith('min') else 'up to'} {value:g}"
        elif isinstance(value[0], Facet):
            is_not = "not " if name == "exclude_facets" else ""
            yield from (f"{is_not}{each.name} {' or '.join(each.values)}" for each in value)
        else:
            yield f"{words} {' or '.join(value)}"
