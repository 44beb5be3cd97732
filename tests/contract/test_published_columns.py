"""The columns of a details snapshot compared with the models that Octogen publishes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

import polars as pl
from octogen_ai_sdk.generated.models import MerchantProductUrlLookupResponse, MerchantProductView
from pydantic import BaseModel

from octogen_dagster.frames.columns import DETAIL_SCHEMA

OF_THE_SNAPSHOT = "the product snapshot says it, and a product view must agree with its uuid"
OF_A_SEARCH = "a lookup has no search, so no score"
NO_COLUMNS = {
    "catalog_key": OF_THE_SNAPSHOT,
    "uuid": OF_THE_SNAPSHOT,
    "product_url": OF_THE_SNAPSHOT,
    "display_match_score": OF_A_SEARCH,
    "raw_score": OF_A_SEARCH,
    "product": "its fields are columns",
    "request_id": "it names one request, not the product; an error text has it",
}
OF_A_LIST_ITEM = "the full view adds to a list item, and one of today has it"
NOT_PUBLISHED = {
    "catalog_key": OF_THE_SNAPSHOT,
    "uuid": OF_THE_SNAPSHOT,
    "product_url": OF_THE_SNAPSHOT,
    "listed": "values of the product snapshot",
    "status": "the result of the lookup",
    "error": "the result of the lookup",
    "looked_up_at": "the result of the lookup",
    "category_path": OF_A_LIST_ITEM,
    "gender": OF_A_LIST_ITEM,
}


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_of(argument)


def is_object(annotation: Any) -> bool:
    """True for an object with any names, such as attributes."""
    return get_origin(annotation) is dict or any(map(is_object, get_args(annotation)))


def published_paths(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        if is_object(field.annotation):
            yield from (f"{name}.name", f"{name}.values")
        for part in models_of(field.annotation):
            yield from (f"{name}.{path}" for path in published_paths(part))


def column_paths(fields: dict[str, Any]) -> Iterator[str]:
    for name, dtype in fields.items():
        yield name
        inner = dtype.inner if isinstance(dtype, pl.List) else dtype
        if isinstance(inner, pl.Struct):
            yield from (f"{name}.{path}" for path in column_paths(dict(inner.to_schema())))


def without(paths: set[str], exceptions: dict[str, str]) -> set[str]:
    return {path for path in paths if path.partition(".")[0] not in exceptions}


def test_each_documented_field_has_a_column_and_each_column_a_documented_field() -> None:
    envelope = set(published_paths(MerchantProductUrlLookupResponse))
    documented = envelope | set(published_paths(MerchantProductView))
    columns = set(column_paths(dict(DETAIL_SCHEMA)))
    assert without(documented, NO_COLUMNS) == without(columns, NOT_PUBLISHED)
    assert len(without(columns, NOT_PUBLISHED)) > 120


def test_no_exception_is_made_in_vain() -> None:
    documented = {*MerchantProductUrlLookupResponse.model_fields, *MerchantProductView.model_fields}
    assert set(NO_COLUMNS) <= documented
    assert set(NOT_PUBLISHED) <= set(DETAIL_SCHEMA)
    assert not documented & (set(NOT_PUBLISHED) - set(NO_COLUMNS))
