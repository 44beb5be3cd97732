"""The coverage of a shop's host: its catalogs, what is known of their products, their prices."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice, pairwise
from typing import NamedTuple

from octogen_dagster.sandbox.data.catalog import Catalog
from octogen_dagster.sandbox.data.product import FIRST_INDEX_RUN, Product
from octogen_dagster.sandbox.rest.facets import facet_values
from octogen_dagster.sandbox.rest.views import Json

_MAX_SAMPLED_PRODUCTS = 1000
_TOP_VALUES = 10
_PRICE_BUCKETS = 5


class _Field(NamedTuple):
    name: str
    display_name: str
    source: str


_FIELDS = (
    _Field("raw_brand_name", "Merchant brand", "product"),
    _Field("gender", "Gender", "enrichment"),
    _Field("age_groups", "Age group", "enrichment"),
    _Field("product_type", "Product type", "enrichment"),
    _Field("color_family", "Color family", "enrichment"),
    _Field("category_path.depth_0", "Category", "enrichment"),
    _Field("fit", "Fit", "enrichment"),
    _Field("material", "Material", "enrichment"),
    _Field("brand_name", "Brand", "brands"),
    _Field("brand_origin_country", "Brand origin country", "brands"),
)
_SOURCES = ("product", "enrichment", "brands")


def domain_coverage(host: str, catalogs: Sequence[Catalog]) -> Json:
    """Return the answer about a host.

    Args:
        host: The normalized host.
        catalogs: The catalogs that serve it, at least one.
    """
    by_key = sorted(catalogs, key=lambda catalog: catalog.key)
    return {"host": host, "catalogs": [_snapshot(catalog) for catalog in by_key]}


def _snapshot(catalog: Catalog) -> Json:
    indexes = (index for index in range(catalog.size) if catalog.contains(index))
    sample = [catalog.product(index) for index in islice(indexes, _MAX_SAMPLED_PRODUCTS)]
    scale = catalog.product_count / len(sample) if sample else 0.0
    fields = [_field(field, sample, scale) for field in _FIELDS]
    populated = [field for field in fields if field["populated"]]
    computed_at = catalog.last_indexed_at or FIRST_INDEX_RUN
    return {
        "catalog": catalog.key,
        "catalogDisplayName": catalog.display_name,
        "productCount": catalog.product_count,
        "computedAt": computed_at.isoformat(),
        "fields": sorted(populated, key=lambda f: (_SOURCES.index(f["source"]), -f["coverage"])),
        "price": _prices(sample, scale),
    }


def _field(field: _Field, sample: Sequence[Product], scale: float) -> Json:
    """Return the values of a facet among all products, estimated from a sample."""
    values_of = facet_values(field.name)
    values = [tuple(values_of(product)) for product in sample]
    counts = Counter(value for several in values for value in set(several))
    known = sum(bool(several) for several in values)
    return {
        "name": field.name,
        "displayName": field.display_name,
        "source": field.source,
        "coverage": round(known / len(sample), 3) if sample else 0.0,
        "populated": round(known * scale),
        "distinct": len(counts),
        "truncated": len(counts) > _TOP_VALUES,
        "topValues": [
            {"value": value.lower(), "label": value, "count": round(count * scale)}
            for value, count in counts.most_common(_TOP_VALUES)
        ],
    }


def _prices(sample: Sequence[Product], scale: float) -> Json | None:
    """Return a histogram of the middle nine tenths of the prices; None without prices."""
    prices = sorted(price for p in sample if (price := p.current_price) is not None and price > 0)
    if not prices:
        return None
    low, high = prices[len(prices) // 20], prices[-1 - len(prices) // 20]
    width = max(1.0, (high - low) / _PRICE_BUCKETS)
    edges = [round(low + width * number, 2) for number in range(_PRICE_BUCKETS + 1)]

    def count(minimum: float, maximum: float) -> int:
        return round(sum(minimum <= price < maximum for price in prices) * scale)

    return {
        "populated": round(len(prices) * scale),
        "median": prices[len(prices) // 2],
        "below": count(0, edges[0]),
        "above": count(edges[-1], float("inf")),
        "buckets": [
            {"min": minimum, "max": maximum, "count": count(minimum, maximum)}
            for minimum, maximum in pairwise(edges)
        ],
    }
