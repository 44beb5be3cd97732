from datetime import datetime, timezone
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster.frames.columns import PRODUCT_SCHEMA
from octogen_dagster.frames.reading import Outcome
from octogen_dagster.snapshots.metadata import (
    figures_metadata,
    snapshot_metadata,
)

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


def test_products_are_shown_with_their_shops() -> None:
    url = "https://acme.example/boot?size=38"
    products = [{"uuid": "1", "product_url": url, "brand": {"name": "Acme"}}]
    metadata = shown(pl.LazyFrame(products, schema=PRODUCT_SCHEMA))
    assert metadata["octogen/shops"].md_str == "<https://acme.example>"


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
