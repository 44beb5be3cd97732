"""Facets: the filters of a search, and the names and values that every catalog has."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from enum import StrEnum
else:
    from backports.strenum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


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


_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Facet(BaseModel):
    """A filter that keeps products whose facet `name` has any of `values`, ignoring case."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Text = Field(description="A FacetName, or a product attribute such as fit.")
    values: list[_Text] = Field(min_length=1, description="A product needs one of these.")
