"""Responses to lookups, checked and brought into one form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from octogen_dagster.api.http import Response
from octogen_dagster.errors import OctogenResponseError
from octogen_dagster.frames.details import wire
from octogen_dagster.frames.details.wire import WireLookup, read_lookup
from tests.frames.details.made_up import looked_up, row_of

BARE = {"uuid": "a", "productUrl": "https://shop.example/a"}


def read(**product: Any) -> WireLookup:
    content = json.dumps({"product": BARE | product}).encode()
    return read_lookup(Response(200, content=content), "The product")


def value_of(name: str, **product: Any) -> Any:
    return row_of(looked_up({"product": BARE | product}))[0][name]


@pytest.mark.parametrize(
    "product",
    [
        {"images": ["https://img.example/1.jpg"], "primaryImage": "https://img.example/1.jpg"},
        {"images": [{"url": "https://img.example/1.jpg", "width": 12.0}, "https://img.example/2"]},
        {"variants": [{"color": "Navy"}, {"color": {"label": "Red"}}, {"color": None}]},
        {"updatedAt": "2026-11-01T04:00:00"},
        {"reviews": [{"publishedAt": "2026-11-01T04:00:00+02:00", "rating": 5}]},
        {"newField": [{"any": 10**30}], "brand": {"name": "B", "founder": "F"}},
        {"enrichment": {"attributes": {"fit": ["slim"], "": []}, "founded": {}}},
    ],
)
def test_what_a_service_may_send_needs_no_model(
    product: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "parsed", None)
    assert read(**product).uuid == "a"


def test_values_of_another_type_are_converted_as_the_models_do() -> None:
    assert value_of("title", title=5) == "5"
    assert value_of("current_price", currentPrice="12.5") == 12.5
    assert value_of("images", images=[{"url": "u", "width": 2**70}])[0]["width"] is None


def test_a_timestamp_that_python_cannot_represent_in_utc_is_null() -> None:
    assert value_of("updated_at", updatedAt="0001-01-01T00:00:00+14:00") is None


@pytest.mark.parametrize(
    ("product", "problem"),
    [
        ({"currentPrice": "free"}, "a wrong product.currentPrice: input should be a valid number"),
        ({"updatedAt": "soon"}, "a wrong product.updatedAt: input should be a valid datetime"),
        ({"productUrl": None}, "a wrong product.productUrl: input should be a valid string"),
        ({"images": [{"width": 5}]}, "a wrong product.images.0.url: field required"),
    ],
)
def test_a_refused_response_names_the_field(product: dict[str, Any], problem: str) -> None:
    with pytest.raises(OctogenResponseError) as raised:
        read(**product)
    assert str(raised.value).startswith(f"The product was answered with 200 and {problem}")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"<html>", "a body that is not JSON"),
        (b'{"product": {"uuid": "a"', "a body that is not JSON"),
        (b'{"product": {"uuid": "a", "productUrl": "u", "title": "\xff"}}', "not JSON"),
        (b'{"product": {"uuid": "a", "productUrl": "u", "new": "\xff"}}', "not JSON"),
        (b"{}", "a wrong product: field required"),
    ],
)
def test_a_body_that_is_no_lookup_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(OctogenResponseError, match=problem):
        read_lookup(Response(200, content=content), "The product")
