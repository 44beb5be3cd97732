"""A read of keywords that are understood is continued only while they are understood alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
    build_products_asset,
)
from tests.published_service import PublishedService

RED = {"color_family": ["Red"]}
RED_OR_PINK = {"color_family": ["Red", "Pink"]}
SEARCH = ProductSearch(q="red dress", understand=True, catalogs=["acme"], page_size=10)
PRODUCTS = build_products_asset("products", SEARCH, retry_policy=None)


@dataclass
class Service(PublishedService):
    """A service that fails from one page on, and understands keywords anew on page 1 only.

    Attributes:
        fails_at: The cursor from which requests fail.
        understands_later_pages_anew: True if later pages are understood anew too, as by a service
            that forgot the cursor.
    """

    fails_at: int = 1000
    understands_later_pages_anew: bool = False
    at_first: dict[str, list[str]] = field(default_factory=lambda: RED)

    def search(self, body: dict[str, Any]) -> tuple[int, Any]:
        cursor = int(body.get("cursor", 0))
        if cursor >= self.fails_at:
            return 503, {"detail": "later"}
        status, page = super().search(body)
        if status == 200 and cursor and not self.understands_later_pages_anew:
            page["effectiveQuery"]["facets"] = [
                {"name": name, "values": values, "source": "generated"}
                for name, values in self.at_first.items()
            ]
        return status, page


@pytest.fixture
def service() -> Iterator[Service]:
    """A service with one catalog of 60 dresses, 6 pages."""
    dresses = [f"p{number}" for number in range(60)]
    service = Service({"acme": dresses}, generated=RED)
    with service.running():
        yield service


def run(service: Service, folder: Path) -> bool:
    service.searches.clear()
    octogen = OctogenResource(api_key="octo_live_test", base_url=service.base_url, attempts=1)
    io_manager = ParquetSnapshotIOManager(base_dir=str(folder))
    resources = {"octogen": octogen, "io_manager": io_manager}
    return dg.materialize([PRODUCTS], resources=resources, raise_on_error=False).success


def die(service: Service, folder: Path) -> None:
    """Begin a read that fails at its page 5."""
    service.fails_at = 40
    assert not run(service, folder)
    service.fails_at = 1000


def generated(folder: Path) -> list[dict[str, Any]]:
    metadata = pl.read_parquet_metadata(folder / "products.parquet")
    facets: list[dict[str, Any]] = json.loads(metadata["octogen.effective_query"])["facets"]
    return facets


def test_it_is_continued_while_nothing_changed(service: Service, tmp_path: Path) -> None:
    die(service, tmp_path)
    assert run(service, tmp_path)
    assert len(service.searches) == 2 + 2  # two are compared
    assert generated(tmp_path) == [
        {"name": "color_family", "values": ["Red"], "source": "generated"}
    ]


@pytest.mark.parametrize("understands_later_pages_anew", [False, True])
def test_it_begins_anew_when_the_keywords_are_understood_otherwise(
    service: Service, tmp_path: Path, understands_later_pages_anew: bool
) -> None:
    die(service, tmp_path)
    service.generated = RED_OR_PINK
    service.understands_later_pages_anew = understands_later_pages_anew
    assert run(service, tmp_path)
    assert [body.get("cursor") for body in service.searches][-6:] == [
        None,
        *("10", "20", "30", "40", "50"),
    ]
    assert generated(tmp_path)[0]["values"] == ["Red", "Pink"]
    assert len(pl.read_parquet(tmp_path / "products.parquet")) == 60
