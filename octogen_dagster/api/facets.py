"""Facets: the filters of a search, and the names and values that every catalog has."""

from __future__ import annotations

import difflib
import sys
import warnings

if sys.version_info >= (3, 11):
    from enum import StrEnum
else:
    from backports.strenum import StrEnum
from typing import TYPE_CHECKING, Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    model_validator,
)
from typing_extensions import Self

from octogen_dagster.suggestions import refuse_unknown_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


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

CHECKED: Mapping[str, bool] = {"octogen_dagster.checked": True}
"""The validation context of facets that were checked before, perhaps by an older version."""

_OTHER_WORDS: Mapping[str, str] = {
    "age": FacetName.AGE_GROUPS,
    "brand": FacetName.BRAND_NAME,
    "category": FacetName.CATEGORY_PATH_DEPTH_0,
    "category_path": FacetName.CATEGORY_PATH_DEPTH_0,
    "sex": FacetName.GENDER,
}
_MIN_SIMILARITY_OF_NAMES = 0.8  # product_line is an attribute, and not meant to be product_type


def not_blank(text: str) -> str:
    """Refuse a blank text. Python takes more characters for blank than pydantic strips.

    Raises:
        ValueError: The text is blank.
    """
    if not text.strip():
        raise ValueError("must not be blank")
    return text


Text = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(not_blank)
]


class Facet(BaseModel):
    """A filter by products whose facet `name` has any of `values`, ignoring case.

    A name that resembles one of `FacetName` is a warning, because any attribute is a name.

    Raises:
        pydantic.ValidationError: The name is empty, there are no values, or `gender`,
            `age_groups` or `color_family` has no such value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    _refuse_unknown = model_validator(mode="before")(refuse_unknown_settings)

    name: Text = Field(description="A FacetName, or a product attribute such as fit.")
    values: list[Text] = Field(min_length=1, description="A product needs one of these.")

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Self:
        if info.context == CHECKED:
            return self
        name = self.name.lower()
        if known := _CLOSED.get(name):
            _check_values(name, self.values, known)
        if self.name not in set(FacetName) and (meant := _similar_name(name)):
            warnings.warn(
                f"The facet {self.name!r} is read as a product attribute. If you mean '{meant}', "
                "use that name.",
                stacklevel=3,
            )
        return self


def _check_values(name: str, values: Iterable[str], known: tuple[str, ...]) -> None:
    """Check the values of a closed facet.

    Raises:
        ValueError: A value does not exist; the message has the closest ones.
    """
    by_lower = {value.lower(): value for value in known}
    for value in values:
        if value.lower() in by_lower:
            continue
        close = difflib.get_close_matches(value.lower(), by_lower, n=2, cutoff=0.5)
        meant = f" (did you mean {' or '.join(by_lower[each] for each in close)}?)" if close else ""
        raise ValueError(
            f"{name} has no value {value!r}{meant}: use {', '.join(known[:-1])} or {known[-1]}"
        )


def _similar_name(name: str) -> str | None:
    """Return the facet that a name resembles, as `colour` resembles `color`."""
    close = difflib.get_close_matches(name, list(FacetName), 1, _MIN_SIMILARITY_OF_NAMES)
    return _OTHER_WORDS.get(name) or next(iter(close), None)
