from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from octogen_dagster.api.models import (
    MerchantCatalogSummary,
    MerchantProductListItem,
    MerchantProductListPage,
    MerchantProductUrlLookupResponse,
    MerchantProductView,
    ProductImage,
)
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox

ITEM: dict[str, Any] = {"uuid": "u-1", "productUrl": "https://shop.example/1"}


def item(**fields: Any) -> MerchantProductListItem:
    return MerchantProductListItem.model_validate(ITEM | fields)


def unknown_fields(model: Any, path: str = "") -> set[str]:
    """The paths of all fields that the models do not have."""
    if isinstance(model, list):
        return {found for part in model for found in unknown_fields(part, path)}
    if not isinstance(model, BaseModel):
        return set()
    found = {f"{path}.{name}" for name in model.model_extra or ()}
    for name in type(model).model_fields:
        found |= unknown_fields(getattr(model, name), f"{path}.{name}")
    return found


def post(sandbox: Sandbox, path: str, body: dict[str, Any]) -> Any:
    headers = {"Authorization": f"Bearer {sandbox.api_key}"}
    response = httpx.post(f"{sandbox.base_url}{path}", json=body, headers=headers)
    assert response.status_code == 200
    return response.json()


class TestImages:
    @pytest.mark.parametrize(
        "image",
        [
            "https://cdn.example/1.jpg",
            {"url": "https://cdn.example/1.jpg"},
            {"url": "https://cdn.example/1.jpg", "cdnUrl": None, "width": None, "mimeType": None},
        ],
    )
    def test_a_text_and_an_object_become_the_same_image(self, image: Any) -> None:
        product = item(images=[image], primaryImage=image)
        assert product.images == [ProductImage(url="https://cdn.example/1.jpg")]
        assert product.primary_image == ProductImage(url="https://cdn.example/1.jpg")

    def test_the_fields_of_an_object_are_read(self) -> None:
        measures = {"url": "u", "cdnUrl": "c", "width": 3, "height": 4, "mimeType": "image/webp"}
        images = item(images=[measures | {"sizeBytes": 5}]).images
        assert images is not None
        (image,) = images
        assert (image.cdn_url, image.width, image.height) == ("c", 3, 4)
        assert (image.mime_type, image.size_bytes) == ("image/webp", 5)

    @pytest.mark.parametrize("images", [None, []])
    def test_images_may_be_null_or_empty(self, images: Any) -> None:
        assert item(images=images).images == images


class TestTimes:
    @pytest.mark.parametrize(
        "text",
        ["2026-03-01T12:00:00", "2026-03-01T12:00:00Z", "2026-03-01T14:00:00+02:00"],
    )
    def test_every_time_becomes_utc_and_one_without_a_zone_is_utc(self, text: str) -> None:
        moment = item(updatedAt=text).updated_at
        assert moment == datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
        assert moment.tzinfo is timezone.utc


class TestUnknownFields:
    def test_they_are_kept_at_every_level(self) -> None:
        page = MerchantProductListPage.model_validate(
            {
                "items": [ITEM | {"newField": 1, "brand": {"name": "Acme", "newField": [2]}}],
                "newField": {"three": 3},
            }
        )
        assert page.model_extra == {"newField": {"three": 3}}
        assert page.items[0].model_extra == {"newField": 1}
        assert page.items[0].brand is not None
        assert page.items[0].brand.model_extra == {"newField": [2]}

    def test_the_sandbox_s_are_kept(self, either: Sandbox) -> None:
        either.inject(Fault("unknown_fields"))
        page = MerchantProductListPage.model_validate(post(either, "/products/search", {}))
        assert {".addedWithoutNotice", ".items.addedWithoutNotice"} <= unknown_fields(page)
        assert len(page.items) == 50


class TestResponsesOfTheSandbox:
    def test_the_models_have_every_field_of_a_page(self, either: Sandbox) -> None:
        page = MerchantProductListPage.model_validate(
            post(either, "/products/search", {"limit": 100})
        )
        assert len(page.items) == 100
        assert unknown_fields(page) == set()
        assert any(product.images for product in page.items)

    def test_the_models_have_every_field_of_a_lookup(self, either: Sandbox) -> None:
        either.grant("voltaic", products=60)
        unknown: set[str] = set()
        for product in post(either, "/products/search", {"limit": 100})["items"]:
            found = post(either, "/products/lookup", {"url": product["productUrl"]})
            view = MerchantProductUrlLookupResponse.model_validate(found)
            assert view.product.uuid == product["uuid"]
            unknown |= unknown_fields(view)
        assert unknown == set()

    def test_the_color_of_a_variant_may_be_an_object_or_a_text(self) -> None:
        for color in ("Navy", {"label": "Navy"}):
            view = MerchantProductView.model_validate(ITEM | {"variants": [{"color": color}]})
            assert view.variants is not None
            assert view.variants[0].color is not None
            assert view.variants[0].color.label == "Navy"

    def test_catalogs_are_read(self, sandbox: Sandbox) -> None:
        headers = {"Authorization": f"Bearer {sandbox.api_key}"}
        (first, second) = httpx.get(f"{sandbox.base_url}/catalogs", headers=headers).json()
        catalog = MerchantCatalogSummary.model_validate(first)
        assert (catalog.catalog, catalog.product_count) == ("northpeak", 120)
        assert catalog.display_name == first["displayName"]
        assert catalog.last_indexed_at is not None
        assert catalog.last_indexed_at.tzinfo is timezone.utc
        bare = {**second, "sourceBaseUrl": None, "lastIndexedAt": None}
        assert MerchantCatalogSummary.model_validate(bare).source_base_url is None


class TestConstruction:
    def test_a_model_may_be_made_with_python_names(self) -> None:
        product = MerchantProductListItem(uuid="u", product_url="p", current_price=5)
        assert product.model_dump(by_alias=True, exclude_none=True) == {
            "uuid": "u",
            "productUrl": "p",
            "currentPrice": 5.0,
            "isActive": True,
        }

    def test_numbers_where_text_is_expected_become_text(self) -> None:
        assert item(title=501).title == "501"
