"""Counts the fields of a page that the snapshot's schema does not know, by path and name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import msgspec
import polars as pl

from octogen_dagster.frames.page_types import ITEM_FIELDS, ITEMS, PAGE, PAGE_FIELDS, json_fields

UnknownFields = Counter[tuple[str, str]]
"""How many objects have a field, by the path of the object and the name of the field."""

_Object = dict[str, msgspec.Raw]


def _fields(dtype: pl.DataType) -> dict[str, pl.DataType]:
    """Return the fields of a struct, or of the structs in a list, by their names in JSON."""
    inner = dtype.inner if isinstance(dtype, pl.List) else dtype
    return json_fields(inner) if isinstance(inner, pl.Struct) else {}


_NESTED: Mapping[str, dict[str, pl.DataType]] = {
    name: fields for name, dtype in ITEM_FIELDS.items() if (fields := _fields(dtype))
}


def _page_decoder(item: Any) -> msgspec.json.Decoder[Any]:
    page = msgspec.defstruct("Page", [(ITEMS, list.__class_getitem__(item) | None, None)])
    return msgspec.json.Decoder(page)


_page = msgspec.json.Decoder(_Object)
_items = _page_decoder(_Object)
_nested = _page_decoder(
    msgspec.defstruct(
        "Item", [(name, _Object | list[_Object | str] | str | None, None) for name in _NESTED]
    )
)


def count_unknown_fields(content: bytes) -> UnknownFields:
    """Count the unknown fields of a page.

    Args:
        content: The JSON of a page whose types were checked.
    """
    found: UnknownFields = Counter()
    _add(found, PAGE, [_page.decode(content)], PAGE_FIELDS)
    _add(found, ITEMS, _items.decode(content).items or (), ITEM_FIELDS)
    items = _nested.decode(content).items or ()
    for name, known in _NESTED.items():
        values = [value for item in items if (value := getattr(item, name))]
        objects = chain.from_iterable(
            value if isinstance(value, list) else (value,) for value in values
        )
        _add(found, f"{ITEMS}.{name}", (each for each in objects if isinstance(each, dict)), known)
    return found


def _add(
    found: UnknownFields, path: str, objects: Iterable[Mapping[str, Any]], known: Iterable[str]
) -> None:
    names = Counter(chain.from_iterable(objects))
    for name in names.keys() - set(known):
        found[path, name] = names[name]
