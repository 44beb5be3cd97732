"""The search: its fields with their descriptions and limits, spelled once.

`ProductSearch` is a search whose whole result is read, `SearchRequest` the body of one page. The
run configuration of an asset, the YAML of a component, the arguments of the client, the search in
words and the comparison of effective queries are made from their fields.
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

from octogen_dagster.validation import refuse_unknown_settings

_Function = TypeVar("_Function", bound=Callable[..., Any])

MAX_PAGE_SIZE = 100
MAX_CATALOGS = 500
"""The most catalogs of one request."""


class FacetName(StrEnum):
    """Facets that every catalog has. Any product attribute, such as `fit`, is a facet name too."""

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
    """Values of the facet `gender`."""

    MALE = "male"
    FEMALE = "female"
    UNISEX = "unisex"


class AgeGroup(StrEnum):
    """Values of the facet `age_groups`."""

    INFANT = "infant"
    TODDLER = "toddler"
    KIDS = "kids"
    ADULT = "adult"


class ColorFamily(StrEnum):
    """Values of the facet `color_family`."""

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
    FacetName.COLOR_FAMILY: (*ColorFamily, "Multicolor"),  # the last one only some products have
}
"""The facets whose values are all known."""

_OTHER_WORDS: Mapping[str, str] = {
    "age": FacetName.AGE_GROUPS,
    "brand": FacetName.BRAND_NAME,
    "category": FacetName.CATEGORY_PATH_DEPTH_0,
    "category_path": FacetName.CATEGORY_PATH_DEPTH_0,
    "sex": FacetName.GENDER,
}
_MIN_SIMILARITY_OF_NAMES = 0.8  # product_line is an attribute, and not meant to be product_type

CHECKED: Mapping[str, bool] = {"octogen_dagster.checked": True}
"""The validation context of facets that were checked before, perhaps by an older version."""


def _not_blank(text: str) -> str:
    # Python takes more characters for blank than pydantic strips.
    if not text.strip():
        raise ValueError("must not be blank")
    return text


Text = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_not_blank)
]


class Facet(BaseModel):
    """A filter by products whose facet `name` has any of `values`, ignoring case.

    A name that resembles one of `FacetName` is a warning, because any attribute is a name.

    Raises:
        pydantic.ValidationError: The name is empty, there are no values, or `gender`,
            `age_groups` or `color_family` has no such value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    _refuse_unknown = model_validator(mode="wrap")(refuse_unknown_settings)

    name: Text = Field(description="A FacetName, or a product attribute such as fit.")
    values: list[Text] = Field(min_length=1, description="A product needs one of these.")

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Self:
        if info.context == CHECKED:
            return self
        name = self.name.lower()
        _check_values(name, self.values)
        if self.name not in set(FacetName):
            close = difflib.get_close_matches(name, list(FacetName), 1, _MIN_SIMILARITY_OF_NAMES)
            if meant := _OTHER_WORDS.get(name) or next(iter(close), None):
                warnings.warn(
                    f"The facet {self.name!r} is read as a product attribute. If you mean "
                    f"'{meant}', use that name.",
                    stacklevel=3,
                )
        return self


def _check_values(name: str, values: Iterable[str]) -> None:
    """Refuse a value that a closed facet does not have, and name the closest ones."""
    if name not in _CLOSED:
        return
    by_lower = {value.lower(): value for value in _CLOSED[name]}
    for value in values:
        if value.lower() in by_lower:
            continue
        close = difflib.get_close_matches(value.lower(), by_lower, n=2, cutoff=0.5)
        meant = f" (did you mean {' or '.join(by_lower[each] for each in close)}?)" if close else ""
        *others, last = _CLOSED[name]
        raise ValueError(f"{name} has no value {value!r}{meant}: use {', '.join(others)} or {last}")


_Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_BrandQuality = Annotated[float, Field(ge=1, le=6)]
_NEED_UNDERSTANDING = ("omit_generated_facets", "fallback_category", "relax")
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
    _refuse_unknown = model_validator(mode="wrap")(refuse_unknown_settings)

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
    price_min: _Price | None = Field(default=None, description="Lowest current price, inclusive.")
    price_max: _Price | None = Field(default=None, description="Highest current price, inclusive.")
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
    brand_quality_min: _BrandQuality | None = Field(
        default=None, description="Lowest quality of the brand, 1 to 6, inclusive."
    )
    brand_quality_max: _BrandQuality | None = Field(
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

    @field_validator("facets", "exclude_facets", mode="before")
    @classmethod
    def _check_facets(cls, facets: Any) -> Any:
        if isinstance(facets, dict):
            meant = [
                {"name": name, "values": [values] if isinstance(values, str) else values}
                for name, values in facets.items()
            ]
            raise ValueError(f"must be a list: write {meant}")
        return facets

    @property
    def has_keywords(self) -> bool:
        """True if `q` is not blank; the service browses without it."""
        return bool(self.q and self.q.strip())

    @property
    def has_filters(self) -> bool:
        """True if the search leaves out products of the catalogs that it reads."""
        return self.has_keywords or any(
            getattr(self, name) != default
            for name, default in _defaults().items()
            if name not in _NO_FILTERS
        )

    def as_json(self) -> dict[str, Any]:
        """The fields that are set, as JSON."""
        return {
            name: value
            for name, value in self.model_dump(mode="json").items()
            # Compared by identity, since a bound of 0 is equal to False.
            if value is not None and value is not False and value != []
        }

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("price", "brand_quality"):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if low is not None and high is not None and low > high:
                raise ValueError(f"{name}_min {low} is above {name}_max {high}: swap them")
        names = [facet.name for facet in self.facets]
        excluded = [facet.name for facet in self.exclude_facets]
        _check_unique("facets", names, "put all values in one facet")
        _check_unique("exclude_facets", excluded, "put all values in one facet")
        _check_unique("omit_generated_facets", self.omit_generated_facets, "name each once")
        own = {name.lower() for name in names}
        if both := [name for name in self.omit_generated_facets if name.lower() in own]:
            raise ValueError(
                f"omit_generated_facets names {', '.join(both)}, and facets does too: a facet of "
                "the search replaces the generated one, so name it in facets only"
            )
        if not (self.understand and self.has_keywords):
            for name in _NEED_UNDERSTANDING:
                if getattr(self, name):
                    raise ValueError(f"{name} needs q and understand=True: set both or leave it")
        return self


def _check_unique(field: str, names: Iterable[str], advice: str) -> None:
    lower = [name.lower() for name in names]
    if repeated := sorted({name for name in lower if lower.count(name) > 1}):
        raise ValueError(f"{field} name {', '.join(repeated)} more than once: {advice}")


class SearchRequest(SearchFilters):
    """The body of a `POST /products/search`: a search and one of its pages."""

    catalog: Annotated[str, AfterValidator(_not_blank)] | None = Field(
        default=None, description="A catalog key; None searches all that the key may search."
    )
    catalogs: list[Text] = Field(
        default_factory=list,
        max_length=MAX_CATALOGS,
        description="Keys of several catalogs, which only the current contract knows.",
    )
    cursor: str | None = Field(
        default=None, min_length=1, description="The next_cursor of the page before."
    )
    limit: int = Field(default=50, ge=1, le=MAX_PAGE_SIZE, description="Products on a page.")

    @classmethod
    def of(cls, **arguments: Unpack[SearchArguments]) -> Self:
        """Return the request of keyword arguments, of which None is as good as none."""
        given = {
            name: value
            for name, value in arguments.items()
            if value is not None or name not in cls.model_fields
        }
        return cls.model_validate(given)

    @model_validator(mode="after")
    def _check_catalogs(self) -> Self:
        if self.catalog is not None and self.catalogs:
            raise ValueError("catalog and catalogs are both given: name all in catalogs")
        return self

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


_FIELDS = list(SearchFilters.model_fields)
CURRENT_FIELDS = (*_FIELDS[_FIELDS.index("understand") :], "catalogs")
"""The fields of a request that only the current contract has."""


class SearchArguments(TypedDict, total=False):
    """The fields of `SearchRequest` once more, for type checkers and editors; a test compares."""

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
    """Show the fields of a request as keyword arguments to `help`, `inspect` and notebooks."""
    signature = inspect.signature(function)
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    fields = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None
            if field.default_factory
            else field.default,  # None is as good as an empty list
        )
        for name, field in SearchRequest.model_fields.items()
    ]
    function.__signature__ = signature.replace(parameters=[*own, *fields])  # type: ignore[attr-defined]
    return function


class ProductSearch(SearchFilters):
    """A search whose whole result is read.

    Without `catalogs` every catalog of the source is read (`OctogenResource(catalog_source=...)`),
    by default every one that is granted to the API key. `max_products` caps the result. Catalogs
    that are named, in the search or by the source, are read in their order until there are enough
    products. Of the granted catalogs, and with filters of up to 500 that are named in one request,
    it takes the products that the service ranks highest.

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

    def request(self, catalog: str | None = None, catalogs: Sequence[str] = ()) -> SearchRequest:
        """Return the request for page 1 of one catalog, of several, or of all if none is named."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in SearchFilters.model_fields}
        fields |= {"catalog": catalog, "catalogs": list(catalogs)}
        fields["limit"] = min(self.page_size, self.max_products or self.page_size)
        return SearchRequest.model_validate(fields, context=CHECKED)


@functools.cache
def _defaults() -> Mapping[str, Any]:
    """The values of a search without filters: pydantic takes a millisecond to find them."""
    return {
        name: field.get_default(call_default_factory=True)
        for name, field in SearchFilters.model_fields.items()
    }


def checked_search(search: object) -> ProductSearch:
    """Return a search that is given as such, as a mapping of its fields, or as None for all."""
    if isinstance(search, str):
        raise TypeError(
            f"search must be a ProductSearch, not the text {search!r}: write "
            f"ProductSearch(q={search!r})"
        )
    return ProductSearch.model_validate({} if search is None else search)


def describe_search(search: ProductSearch, of: str | None = None) -> str:
    """Say which products a search reads, such as "all products of northpeak"."""
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
            yield f"“{value}”{', as Octogen understands it' if search.understand else ''}"
        elif words.endswith((" min", " max")):
            yield f"{words[:-4]} {'from' if words.endswith('min') else 'up to'} {value:g}"
        elif isinstance(value[0], Facet):
            is_not = "not " if name == "exclude_facets" else ""
            yield from (f"{is_not}{each.name} {' or '.join(each.values)}" for each in value)
        else:
            yield f"{words} {' or '.join(value)}"
