"""Any catalog comes in several walks as it comes in one."""

from __future__ import annotations

import itertools

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from octogen_dagster import ProductSearch, ShopCatalogs, scan_products
from tests.published import published
from tests.published_service import PublishedService

NAMES = [None, None, "Acme", "ACME", "acme ", "ß", "SS", "İstanbul", "靴下", "a, b", " ", "\x00"]


def read(service: PublishedService, ratio: float) -> pl.DataFrame:
    frame = scan_products(
        ProductSearch(catalogs=["acme"], page_size=2),
        api_key="octo_live_test",
        base_url=service.base_url,
        catalogs=ShopCatalogs(hosts=["shop.example"]),
        max_extra_pages_ratio=ratio,
    )
    return frame.collect().drop("fetched_at").sort("uuid")


@given(data=st.data())
@settings(published, max_examples=6)
def test_any_catalog_comes_as_in_one_walk(data: st.DataObject) -> None:
    brands = data.draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=30))
    products = [f"{number:08}" for number in range(data.draw(st.integers(100, 130)))]
    ratio = data.draw(st.sampled_from([0.05, 0.2, 1.0]))
    synonyms = {"ss": "ß", "acme": data.draw(st.sampled_from(["acme", "a, b"]))}
    pairs = zip(products, itertools.cycle(brands), strict=False)
    with PublishedService(
        {"acme": products},
        brands={product: brand for product, brand in pairs if brand is not None},
        synonyms=synonyms,
        hosts={"shop.example": ["acme"]},
        counts={"acme": len(products)},
    ).running() as service:
        whole = read(service, 0.0)
        pages = len(service.searches)
        parts = read(service, ratio)
        assert len(service.searches) - pages <= pages * (1 + ratio)
    assert parts.equals(whole)
