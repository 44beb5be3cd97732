from datetime import datetime, timezone
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster.frames.brands import BRANDS_SCHEMA
from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.details.scan import DetailScan
from octogen_dagster.frames.details.statistics import DetailStatistics
from octogen_dagster.frames.reading import Outcome
from octogen_dagster.snapshots.metadata import (
    figures_metadata,
    snapshot_metadata,
)
from octogen_dagster.snapshots.resource import OctogenResource

THEN = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)


def shown(snapshot: pl.LazyFrame) -> dict[str, Any]:
    """The metadata of a snapshot, without any warning."""
    return snapshot_metadata(Outcome(), snapshot, pytest.fail)


def test_a_snapshot_is_shown_by_its_columns_and_its_first_five_rows() -> None:
    metadata = shown(pl.LazyFrame({"n": [11, 12, 13, 14, 15, 16]}))
    assert metadata.keys() == {"dagster/column_schema", "octogen/preview"}
    assert [each.name for each in metadata["dagster/column_schema"].columns] == ["n"]
    assert isinstance(metadata["octogen/preview"], dg.MarkdownMetadataValue)
    text = metadata["octogen/preview"].md_str
    assert text is not None
    assert text.splitlines()[2:] == ["| 11 |", "| 12 |", "| 13 |", "| 14 |", "| 15 |"]


def test_products_are_shown_with_their_shops_and_a_chart_of_their_brands() -> None:
    url = "https://acme.example/boot?size=38"
    products = [{"uuid": "1", "product_url": url, "brand": {"name": "Acme"}}]
    metadata = shown(pl.LazyFrame(products, schema=PRODUCT_SCHEMA))
    assert metadata["octogen/shops"].md_str == "<https://acme.example>"
    assert metadata["octogen/brands"].md_str.startswith("| brand | products |")
    brands = pl.LazyFrame([{"brand": "Acme", "products": 1}], schema=BRANDS_SCHEMA)
    assert "octogen/brands" in shown(brands)


def test_what_there_is_nothing_to_say_of_is_left_out() -> None:
    assert shown(PRODUCT_SCHEMA.to_frame().lazy()).keys() == {
        "dagster/column_schema",
        "octogen/preview",
    }


def test_figures_become_metadata_of_their_kind() -> None:
    assert figures_metadata(
        {
            "pages": 3,
            "seconds": 1.5,
            "truncated": False,
            "source": "service",
            "fetched_at": THEN,
            "search": {"q": "boots"},
        }
    ) == {
        "octogen/pages": 3,
        "octogen/seconds": 1.5,
        "octogen/truncated": False,
        "octogen/source": "service",
        "octogen/fetched_at": dg.MetadataValue.timestamp(THEN),
        "octogen/search": dg.MetadataValue.json({"q": "boots"}),
    }
    assert figures_metadata({}) == {}


def test_the_figures_of_details_are_shown(octogen: OctogenResource) -> None:
    scan = DetailScan(pl.LazyFrame(), octogen.connection(), only_changed=True)
    scan.statistics = DetailStatistics(
        started_at=THEN, products=10, rows=10, found=6, gone=2, mismatched=1, failed=1,
        carried_over=4, requests=9, retries=3, rate_limit_wait_seconds=1.23456, seconds=5.00049,
    )  # fmt: skip
    scan.statistics.unknown_fields.update({"product.mood": 5, "product.brand.age": 2})
    nothing = figures_metadata(scan._outcome().figures() | scan._outcome().row_figures())
    scan.statistics.oldest_lookup, scan.statistics.first_error = THEN, "gave up"
    metadata = figures_metadata(scan._outcome().figures() | scan._outcome().row_figures())
    assert metadata == {
        "octogen/only_changed": True,
        "octogen/found": 6,
        "octogen/gone": 2,
        "octogen/mismatched": 1,
        "octogen/failed": 1,
        "octogen/looked_up": 6,
        "octogen/carried_over": 4,
        "octogen/requests": 9,
        "octogen/retries": 3,
        "octogen/rate_limit_wait_seconds": 1.235,
        "octogen/seconds": 5.0,
        "octogen/rows_per_second": 2.0,
        "octogen/unknown_fields": 7,
        "octogen/unknown_field_names": dg.MetadataValue.json(
            {"product.mood": 5, "product.brand.age": 2}
        ),
        "octogen/charged_requests": 0,
        "octogen/cost_usd": 0.0,
        "octogen/cost_usd_per_1000_products": 0.0,
        "octogen/cost_saved_usd": 0.008,
        "octogen/fetched_at": dg.MetadataValue.timestamp(THEN),
        "octogen/oldest_lookup": dg.MetadataValue.timestamp(THEN),
        "octogen/first_error": "gave up",
    }
    assert metadata.keys() - nothing.keys() == {"octogen/oldest_lookup", "octogen/first_error"}
