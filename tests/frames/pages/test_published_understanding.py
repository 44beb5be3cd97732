"""A read of keywords that are understood is continued only while they are understood alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.errors import OctogenServerError
from octogen_dagster.frames.pages.store import PageStore
from octogen_dagster.frames.scan import ProductScan
from tests.frames.pages.reads import Place
from tests.published_service import PublishedService

RED = {"color_family": ["Red"]}
RED_OR_PINK = {"color_family": ["Red", "Pink"]}
SEARCH = ProductSearch(q="red dress", understand=True, catalogs=["acme"], page_size=10)
NOT_USED = (
    "Catalog 'acme': the service understands the search otherwise than when its pages were saved. "
    "They are not used."
)


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
            understood = page["effectiveQuery"]["understood"]
            page["effectiveQuery"]["facets"] = [
                {"name": name, "values": values, "source": "generated"}
                for name, values in (self.at_first.items() if understood else ())
            ]
        return status, page


@pytest.fixture
def service() -> Iterator[Service]:
    """A service with one catalog of 60 dresses, 6 pages."""
    dresses = [f"p{number}" for number in range(60)]
    service = Service({"acme": dresses}, generated=RED)
    with service.running():
        yield service


def read(service: Service, folder: Path, search: ProductSearch) -> tuple[ProductScan, list[str]]:
    """Read a search whole; the scan, and the lines about saved pages."""
    connection = CatalogService(
        api_key=ApiKey("octo_live_test"),
        base_url=service.base_url,
        retry=RetryPolicy(attempts=1),
    )
    scan, lines = ProductScan(search, connection), list[str]()
    store = PageStore(UPath(folder))
    with scan.reading(Place(store, lines.append)) as reading:
        assert reading.frame.collect().height == 60
    return scan, lines


def die(service: Service, folder: Path, search: ProductSearch = SEARCH) -> None:
    """Begin a read that fails at its page 5."""
    service.fails_at = 40
    with pytest.raises(OctogenServerError):
        read(service, folder, search)
    service.fails_at = 1000


def test_it_is_continued_while_nothing_changed(service: Service, tmp_path: Path) -> None:
    die(service, tmp_path)
    scan, lines = read(service, tmp_path, SEARCH)
    assert (scan.statistics.resumed_pages, scan.statistics.pages) == (4, 6)
    assert NOT_USED not in lines
    assert scan.statistics.effective_query == {
        "text": "red dress",
        "understood": True,
        "facets": [{"name": "color_family", "values": ["Red"], "source": "generated"}],
    }


@pytest.mark.parametrize("understands_later_pages_anew", [False, True])
def test_it_begins_anew_when_the_keywords_are_understood_otherwise(
    service: Service, tmp_path: Path, understands_later_pages_anew: bool
) -> None:
    die(service, tmp_path)
    service.generated = RED_OR_PINK
    service.understands_later_pages_anew = understands_later_pages_anew
    scan, lines = read(service, tmp_path, SEARCH)
    assert NOT_USED in lines
    assert "'red dress' is understood as color_family: Pink, Red." in lines
    assert (scan.statistics.resumed_pages, scan.statistics.pages) == (0, 6)


def test_pages_of_a_version_that_let_keywords_be_understood_are_not_used(
    service: Service, tmp_path: Path
) -> None:
    as_written = SEARCH.model_copy(update={"understand": False})
    search = service.search

    def understand_always(body: dict[str, Any]) -> tuple[int, Any]:
        return search(body | {"understand": True})

    service.search = understand_always  # type: ignore[method-assign]
    die(service, tmp_path, as_written)
    service.search = search  # type: ignore[method-assign]
    scan, lines = read(service, tmp_path, as_written)
    assert NOT_USED in lines
    assert scan.statistics.resumed_pages == 0
