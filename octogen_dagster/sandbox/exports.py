"""The products that Octogen shares over BigQuery, as the rows of views.

A view belongs to a catalog or a URL list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from octogen_dagster.sandbox.catalog import Catalogs, Product

Field: TypeAlias = dict[str, Any]
"""A column in BigQuery's REST format."""

Row: TypeAlias = dict[str, Any]

PRODUCTS, COVERAGE = "products_current_v1", "url_coverage_v1"
_OF_A_COLLECTION = re.compile(r"/collections/[^/]+(?=/products/[^/]+$)")


def _field(name: str, kind: str, mode: str = "NULLABLE", *fields: Field) -> Field:
    return {"name": name, "type": kind, "mode": mode, **({"fields": fields} if fields else {})}


_VARIANT = (_field("sku", "STRING"), _field("size", "STRING"), _field("in_stock", "BOOLEAN"))
_ENRICHMENT = (_field("gender", "STRING"), _field("category_path", "STRING", "REPEATED"))
_PRODUCT_FIELDS = (
    *(_field(name, "STRING") for name in ("uuid", "catalog_key", "product_url", "title", "brand")),
    _field("current_price", "FLOAT"),
    _field("original_price", "FLOAT"),
    _field("currency", "STRING"),
    _field("in_stock", "BOOLEAN"),
    _field("variants", "RECORD", "REPEATED", *_VARIANT),
    _field("enrichment", "RECORD", "NULLABLE", *_ENRICHMENT),
    _field("exported_at", "TIMESTAMP"),
)
_COVERAGE_FIELDS = (
    _field("url", "STRING"),
    _field("normalized_url", "STRING"),
    _field("covered", "BOOLEAN"),
    _field("exported_at", "TIMESTAMP"),
)


@dataclass(frozen=True)
class View:
    """A view's columns and rows. The rows can be read only once."""

    fields: Sequence[Field]
    rows: Iterable[Row]


@dataclass(frozen=True)
class Export:
    """The products and the coverage of a URL list at a given time."""

    exported_at: datetime
    products: Sequence[Row]
    coverage: Sequence[Row]

    @property
    def views(self) -> dict[str, View]:
        return {
            PRODUCTS: View(_PRODUCT_FIELDS, self.products),
            COVERAGE: View(_COVERAGE_FIELDS, self.coverage),
        }


def export(urls: Iterable[tuple[str, str]], catalogs: Catalogs) -> Export:
    """Match URLs with the products in all catalogs.

    Each URL is a pair: as submitted and normalized.
    """
    exported_at = catalogs.day_began_at
    products: dict[str, Row] = {}
    coverage = []
    for url, normalized in urls:
        found = _find_page(normalized, catalogs)
        if found is not None and found.uuid not in products:
            products[found.uuid] = _product_row(found, exported_at)
        of_url = {"url": url, "normalized_url": normalized, "covered": found is not None}
        coverage.append(of_url | {"exported_at": exported_at})
    return Export(exported_at, list(products.values()), coverage)


def views_of_catalog(key: str, catalogs: Catalogs) -> dict[str, View]:
    """Return the view that contains a catalog's products.

    They are exported at the start of the day.
    """
    rows = (
        _product_row(Product(catalog, index), catalogs.day_began_at)
        for catalog in catalogs.known([key])
        for index in range(catalog.size)
        if catalog.contains(index)
    )
    return {PRODUCTS: View(_PRODUCT_FIELDS, rows)}


def _find_page(url: str, catalogs: Catalogs) -> Product | None:
    """Return the product with this URL or, if there is none, the product on the same page."""
    page = url.partition("?")[0]
    candidates = dict.fromkeys((url, page, _OF_A_COLLECTION.sub("", page)))
    found = (catalogs.find(each) for each in candidates)
    return next((product for product in found if product is not None), None)


def _product_row(product: Product, exported_at: datetime) -> Row:
    return {
        "uuid": product.uuid,
        "catalog_key": product.catalog.key,
        "product_url": product.url,
        "title": product.title,
        "brand": product.raw_brand_name,
        "current_price": product.current_price,
        "original_price": product.original_price,
        "currency": product.currency,
        "in_stock": product.in_stock,
        "variants": [
            {"sku": f"{product.index}-{size}", "size": size, "in_stock": product.in_stock}
            for size in product.kind.sizes
        ],
        "enrichment": {
            "gender": product.gender,
            "category_path": list(product.kind.category_path),
        },
        "exported_at": exported_at,
    }
