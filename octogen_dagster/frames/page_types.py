"""The msgspec types that a search page is decoded to, made from the snapshot's schema.

The strict types accept exactly the values that a column holds without loss. The lax ones accept
every value that may be converted to such a value, which `lax_values` does. Both refuse a field
that they do not know. Once it is learned, it is a member of the next types, so a page with new
fields is decoded at the same speed as one without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import polars as pl
from pydantic.alias_generators import to_camel

from octogen_dagster.api.models import MerchantProductListItem
from octogen_dagster.frames.schema import COLUMNS, IMAGE, PRODUCT_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Learned = dict[str, list[str]]
"""Names of fields that the schema does not know, by the path of the object: "items.brand"."""

REQUIRED = {column.field for column in COLUMNS if column.required}
PAGE, ITEMS = "", "items"
"""The paths of the page itself and of its products."""
PAGE_FIELDS = (ITEMS, "nextCursor", "requestId", "effectiveQuery")

INTEGER = (
    Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    # 12.0 is an integer in JSON, and Polars decodes it as one.
    | Annotated[float, msgspec.Meta(ge=-(2.0**63), lt=2.0**63, multiple_of=1)]
)
_STRICT: Mapping[type[pl.DataType], Any] = {
    pl.String: str,
    pl.Float64: float,
    pl.Int64: INTEGER,
    pl.Boolean: bool,
    pl.Datetime: str,
}
_LAX: Mapping[type[pl.DataType], Any] = dict.fromkeys(_STRICT, str | int | float | bool | None)

ABSENT: Mapping[str, Any] = {"isActive": msgspec.field(default_factory=lambda: True)}
"""What a field means that is absent, if not null.

They are made by a function because msgspec does not write a value that equals a default.
"""

# In the order of the contract: msgspec finds a field fastest where it expects it.
ITEM_FIELDS: Mapping[str, pl.DataType] = {
    to_camel(name): PRODUCT_SCHEMA[name] for name in MerchantProductListItem.model_fields
}


class PageTypes:
    """The types of a page.

    Args:
        learned: The fields that the types know besides those of the schema.
        strict: False for the lax types.
        known_only: False if fields that are neither known nor learned are skipped.

    Attributes:
        decoder: Decodes the JSON of a page.
        learned: As in the arguments.
    """

    def __init__(self, learned: Learned, *, strict: bool, known_only: bool = True) -> None:
        self.learned = learned
        self._scalars = _STRICT if strict else _LAX
        self._known_only = known_only
        item = self._struct(ITEMS, ITEM_FIELDS, REQUIRED)
        items = list.__class_getitem__(item)
        page = self._defined(
            PAGE,
            [
                (ITEMS, items | msgspec.UnsetType | None, msgspec.UNSET),
                ("nextCursor", self._scalars[pl.String] | None, None),
                ("requestId", Any, None),
                ("effectiveQuery", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET),
            ],
        )
        self.decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(page)

    def _kind(self, dtype: Any, path: str) -> Any:
        match instance(dtype):
            case pl.Struct() as struct:
                return self._struct(path, json_fields(struct), required_fields(struct))
            case pl.List(inner=inner):
                kind = self._kind(inner, path)
                # The seed generation sends an image as its URL alone.
                return list.__class_getitem__(kind | str if inner == IMAGE else kind)
            case scalar:
                return self._scalars[type(scalar)]

    def _struct(self, path: str, fields: Mapping[str, Any], required: Collection[str]) -> Any:
        members: list[tuple[Any, ...]] = []
        for name, dtype in fields.items():
            kind = self._kind(dtype, f"{path}.{name}")
            if dtype == IMAGE and self._scalars is _LAX:
                kind |= str
            optional = (name, kind | None, ABSENT.get(name))
            members.append((name, kind) if name in required else optional)
        return self._defined(path, members)

    def _defined(self, path: str, members: list[tuple[Any, ...]]) -> Any:
        learned = {learned_name(place): name for place, name in enumerate(self._names(path))}
        members += [(name, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for name in learned]
        return msgspec.defstruct(
            "Object",
            members,
            rename=learned,
            forbid_unknown_fields=self._known_only,
            omit_defaults=True,
            kw_only=True,
            gc=False,
        )

    def _names(self, path: str) -> Collection[str]:
        return self.learned.get(path, ())


def learned_name(place: int) -> str:
    """Return the attribute that holds the learned field at a place in its object's list."""
    return f"learned_{place}"


def json_fields(struct: pl.Struct) -> dict[str, pl.DataType]:
    """Return the fields of a column's struct by their names in JSON."""
    return {to_camel(field.name): instance(field.dtype) for field in struct.fields}


def required_fields(struct: pl.Struct) -> Collection[str]:
    """Return the names in JSON of the fields without which a struct is not valid."""
    return {"url"} if struct == IMAGE else ()


def instance(dtype: Any) -> pl.DataType:
    """Return a Polars type as an instance."""
    made: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return made
