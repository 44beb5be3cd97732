"""The details schema holds what the service's full view says, field by field."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import httpx
import polars as pl
import pytest
from pydantic.alias_generators import to_snake

from octogen_dagster.api.models import MerchantProductView
from octogen_dagster.frames.details.schema import DETAIL_DESCRIPTIONS, DETAIL_SCHEMA, VIEW_SCHEMA
from octogen_dagster.frames.schema import COLUMN_DESCRIPTIONS, PRODUCT_SCHEMA
from octogen_dagster.sandbox.server import Sandbox
from tests.frames.details.made_up import (
    InstantReader,
    found,
    looked_up,
    products,
    row_of,
    rows_of,
    url_of,
)

BARE = {"uuid": "u-1", "productUrl": "https://shop.example/1"}
NO_COLUMNS = {"uuid", "catalog_key", "product_url", "display_match_score", "raw_score"}
OF_THE_LOOKUP = {"catalog_display_name"}
BY_NAME = {"attributes", "attribute_handles", "classification"}
TIMESTAMPS = {"updated_at", "published_at"}


def frame_of(*views: dict[str, Any]) -> pl.DataFrame:
    uuids = [str(number) for number in range(len(views))]
    lookups = {
        url_of(uuid): looked_up({"product": view | {"uuid": uuid}})
        for uuid, view in zip(uuids, views, strict=True)
    }
    reader = InstantReader(lookups.__getitem__)
    frame, _, _ = rows_of(products(*uuids), DETAIL_SCHEMA.to_frame(), reader)
    return frame.select(*VIEW_SCHEMA)


def as_columns(value: Any, name: str = "") -> Any:
    """The service's JSON as the frame should show it."""
    if name in BY_NAME and value is not None:
        return [{"name": key, "values": values} for key, values in value.items()]
    if name == "images" and value and isinstance(value[0], str):
        return [{"url": url} for url in value]
    if name in TIMESTAMPS and value is not None:
        return datetime.fromisoformat(value.replace("Z", "+00:00"))  # Python 3.10 knows no Z
    if isinstance(value, list):
        return [as_columns(entry) for entry in value]
    if isinstance(value, dict):
        return {to_snake(key): as_columns(inner, to_snake(key)) for key, inner in value.items()}
    return value


def differences(found: Any, sent: Any, path: str) -> list[str]:
    """Where what is found is not what was sent; what was not sent must be null."""
    if isinstance(sent, dict) and isinstance(found, dict):
        return [
            *(f"{path}.{name} is missing" for name in sent.keys() - found.keys()),
            *(
                line
                for name, value in found.items()
                for line in differences(value, sent.get(name), f"{path}.{name}")
            ),
        ]
    if isinstance(sent, list) and isinstance(found, list) and len(sent) == len(found):
        pairs = enumerate(zip(found, sent, strict=True))
        return [line for at, pair in pairs for line in differences(*pair, f"{path}[{at}]")]
    return [] if found == sent else [f"{path}: {found!r}, not {sent!r}"]


@pytest.mark.parametrize("generation", ["seed", "current"])
def test_whatever_the_service_says_of_a_product_is_in_its_columns(generation: Any) -> None:
    headers, views = {}, []
    with Sandbox(catalogs={"northpeak": 60, "voltaic": 40}, generation=generation) as sandbox:
        headers["Authorization"] = f"Bearer {sandbox.api_key}"
        with httpx.Client(base_url=sandbox.base_url, headers=headers) as client:
            items = client.post("/products/search", json={"limit": 100}).json()["items"]
            for item in items:
                url = {"url": item["productUrl"]}
                views.append(client.post("/products/lookup", json=url).json()["product"])
    frame = frame_of(*views)

    wrong = [
        line
        for found, view in zip(frame.to_dicts(), views, strict=True)
        for line in differences(found, {"is_active": True} | as_columns(view), view["uuid"])
        if line.split(".")[-1].removesuffix(" is missing") not in NO_COLUMNS | OF_THE_LOOKUP
    ]
    assert wrong == []
    assert len(frame) == 100
    never = [name for name in frame.columns if frame[name].null_count() == len(frame)]
    # The seed generation does not say them of a product.
    assert set(never) <= {"category_path", "gender", "primary_image"}


def test_every_field_of_the_view_is_a_column_but_those_a_lookup_cannot_fill() -> None:
    assert MerchantProductView.model_fields.keys() - DETAIL_SCHEMA.keys() == {
        "display_match_score",
        "raw_score",
    }


def test_a_column_that_both_snapshots_have_is_of_one_type() -> None:
    shared = [name for name in DETAIL_SCHEMA if name in PRODUCT_SCHEMA]
    assert [name for name in shared if DETAIL_SCHEMA[name] != PRODUCT_SCHEMA[name]] == ["colors"]
    assert len(shared) > 15


def test_every_column_is_described() -> None:
    assert DETAIL_DESCRIPTIONS.keys() == DETAIL_SCHEMA.keys()
    assert all(text.endswith(".") for text in DETAIL_DESCRIPTIONS.values())
    assert DETAIL_DESCRIPTIONS["brand"] == COLUMN_DESCRIPTIONS["brand"]
    assert DETAIL_DESCRIPTIONS["colors"] != COLUMN_DESCRIPTIONS["colors"]


def test_attributes_are_a_list_of_names_and_values() -> None:
    attributes = {"fit": ["slim", "regular"], "sole": []}
    frame = frame_of(BARE | {"enrichment": {"attributes": attributes}})
    assert frame["enrichment"].struct.field("attributes").to_list() == [
        [{"name": "fit", "values": ["slim", "regular"]}, {"name": "sole", "values": []}]
    ]


def test_what_is_not_said_is_null_but_a_product_is_active() -> None:
    row = frame_of(BARE).row(0, named=True)
    assert {name: value for name, value in row.items() if value is not None} == {"is_active": True}


def test_fields_nobody_knows_are_counted_by_their_path_on_the_wire() -> None:
    lookup = found(
        "a",
        mood="calm",
        primaryImage={"url": "https://shop.example/1.jpg", "blurHash": "LEHV6n"},
        variants=[{"weightGrams": 5}, {"weightGrams": 6, "color": {"pantone": "19-4052"}}],
        audience={"ageGroups": ["adult"], "sign": "leo"},
        enrichment={"canonical_brand": {"mood": "calm"}, "attributes": {"fit": ["slim"]}},
    )
    _, unknown = row_of(lookup)
    assert unknown == {
        "product.mood": 1,
        "product.primaryImage.blurHash": 1,
        "product.variants.weightGrams": 2,
        "product.variants.color.pantone": 1,
        "product.audience.sign": 1,
        "product.enrichment.canonical_brand.mood": 1,
    }
