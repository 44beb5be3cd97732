from datetime import datetime, timezone
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster.frames.changes import CHANGES_DESCRIPTIONS, CHANGES_SCHEMA
from octogen_dagster.frames.details.scan import DetailScan
from octogen_dagster.frames.details.schema import DETAIL_DESCRIPTIONS, DETAIL_SCHEMA
from octogen_dagster.frames.details.statistics import DetailStatistics
from octogen_dagster.frames.schema import COLUMN_DESCRIPTIONS, PRODUCT_SCHEMA
from octogen_dagster.snapshots.catalogs_schema import CATALOGS_DESCRIPTIONS, CATALOGS_SCHEMA
from octogen_dagster.snapshots.metadata import (
    column_schema,
    figures_metadata,
    preview,
    snapshot_metadata,
)
from octogen_dagster.snapshots.resource import OctogenResource

THEN = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("schema", "descriptions"),
    [
        (PRODUCT_SCHEMA, COLUMN_DESCRIPTIONS),
        (CHANGES_SCHEMA, CHANGES_DESCRIPTIONS),
        (DETAIL_SCHEMA, DETAIL_DESCRIPTIONS),
        (CATALOGS_SCHEMA, CATALOGS_DESCRIPTIONS),
    ],
    ids=["products", "changes", "details", "catalogs"],
)
def test_each_column_of_our_own_schemas_has_its_type_and_a_description(
    schema: pl.Schema, descriptions: dict[str, str]
) -> None:
    # A column that a product has as well is described as the product's.
    described = {
        name: COLUMN_DESCRIPTIONS[name] if PRODUCT_SCHEMA.get(name) == dtype else descriptions[name]
        for name, dtype in schema.items()
    }
    columns = column_schema(schema).columns
    assert [(each.name, each.type, each.description) for each in columns] == [
        (name, str(dtype), described[name]) for name, dtype in schema.items()
    ]
    assert all(described.values())


def test_a_column_of_another_type_or_name_is_not_described() -> None:
    (price, stock) = column_schema({"current_price": pl.String(), "stock": pl.Int64()}).columns
    assert (price.type, price.description) == ("String", None)
    assert (stock.type, stock.description) == ("Int64", None)


def test_a_preview_shows_the_columns_that_tell_most() -> None:
    frame = pl.DataFrame(
        {
            "uuid": ["1"],
            "product_url": ["https://shop/1"],
            "in_stock": [True],
            "current_price": [9.5],
            "brand": [{"name": "Acme", "slug": "acme"}],
            "title": ["Boot"],
        }
    )
    assert preview(frame).splitlines() == [
        "| title | brand | current_price | in_stock | product_url |",
        "| --- | --- | --- | --- | --- |",
        "| Boot | Acme | 9.5 | True | https://shop/1 |",
    ]


def test_a_preview_leaves_out_columns_that_are_null_throughout() -> None:
    frame = pl.DataFrame({"title": ["Boot", None], "current_price": [None, None]})
    assert preview(frame).splitlines()[0] == "| title |"


def test_a_preview_without_these_columns_shows_the_first_eight() -> None:
    frame = pl.DataFrame({f"c{number}": [number] for number in range(10)})
    assert preview(frame).splitlines()[0] == "| c0 | c1 | c2 | c3 | c4 | c5 | c6 | c7 |"


def test_a_preview_of_no_rows_shows_the_columns() -> None:
    header, *rest = preview(PRODUCT_SCHEMA.to_frame()).splitlines()
    assert header == "| title | brand | current_price | currency | in_stock | product_url |"
    assert len(rest) == 1


def test_a_snapshot_is_shown_by_its_columns_and_its_first_five_rows() -> None:
    metadata: dict[str, Any] = snapshot_metadata(pl.LazyFrame({"n": [11, 12, 13, 14, 15, 16]}))
    assert metadata.keys() == {"dagster/column_schema", "octogen/preview"}
    assert [each.name for each in metadata["dagster/column_schema"].columns] == ["n"]
    assert isinstance(metadata["octogen/preview"], dg.MarkdownMetadataValue)
    text = metadata["octogen/preview"].md_str
    assert text is not None
    assert text.splitlines()[2:] == ["| 11 |", "| 12 |", "| 13 |", "| 14 |", "| 15 |"]


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
    rows = [{"looked_up_at": THEN}, {"looked_up_at": None, "error": "gave up"}]
    metadata = figures_metadata(scan.figures(pl.LazyFrame(rows, schema=DETAIL_SCHEMA)))
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
    nothing = figures_metadata(scan.figures(DETAIL_SCHEMA.to_frame().lazy()))
    assert metadata.keys() - nothing.keys() == {"octogen/oldest_lookup", "octogen/first_error"}
