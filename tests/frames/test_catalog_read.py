"""The pages of one catalog: first the saved ones, then those of the service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from octogen_dagster.api import paging
from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.errors import OctogenPagingError
from octogen_dagster.frames.catalog_read import CatalogRead
from octogen_dagster.frames.decode import ProductPage
from octogen_dagster.frames.pages.saved_read import SavedRead
from octogen_dagster.frames.pages.saver import PageSaver
from octogen_dagster.frames.pages.storage import PageStorage, RemovedError
from octogen_dagster.frames.plan import PlannedCatalog
from tests.frames.pages.samples import read_record
from tests.frames.products import wire_page
from tests.frames.scripted import ScriptedCatalog

PLANNED = PlannedCatalog("acme", ProductSearch(page_size=2).request("acme"))


def page(number: int, last: int = 4) -> ProductPage:
    """A page of `scripted`."""
    cursor = None if number == last else f"c{number + 1}"
    return wire_page(f"p{number}", f"q{number}", next_cursor=cursor)


def first_uuids(read: CatalogRead, connection: CatalogService) -> list[str]:
    """The first product of each page."""
    with BlockingClient(connection) as client:
        return [page.uuids[0] for page in read.pages(client)]


def removed_after(*pages: ProductPage) -> Iterator[ProductPage]:
    yield from pages
    raise RemovedError("The saved pages are gone.")


def test_without_saved_pages_all_come_from_the_service(
    scripted: ScriptedCatalog, connection: CatalogService
) -> None:
    read = CatalogRead(PLANNED)
    assert first_uuids(read, connection) == ["p1", "p2", "p3", "p4"]
    assert scripted.cursors == [None, "c2", "c3", "c4"]
    assert (read.requested_pages, read.resumed_pages) == (4, 0)


def test_saved_pages_and_the_one_after_them_are_not_requested(
    scripted: ScriptedCatalog, connection: CatalogService
) -> None:
    read = CatalogRead(PLANNED, saved=[page(1), page(2)], next_page=page(3))
    assert first_uuids(read, connection) == ["p1", "p2", "p3", "p4"]
    assert scripted.cursors == ["c4"]
    assert (read.requested_pages, read.resumed_pages) == (2, 2)


def test_a_catalog_whose_last_page_is_saved_needs_no_request(
    scripted: ScriptedCatalog, connection: CatalogService
) -> None:
    read = CatalogRead(PLANNED, saved=[page(number) for number in (1, 2, 3, 4)])
    assert first_uuids(read, connection) == ["p1", "p2", "p3", "p4"]
    assert scripted.cursors == []


def test_too_many_products_are_an_error(
    scripted: ScriptedCatalog, connection: CatalogService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "MAX_PRODUCTS", 3)
    with pytest.raises(OctogenPagingError, match="4 products came up to page 2"):
        first_uuids(CatalogRead(PLANNED), connection)


@pytest.mark.parametrize("count", [0, 2])
def test_after_saved_pages_that_were_removed_the_service_is_asked(
    scripted: ScriptedCatalog, connection: CatalogService, count: int
) -> None:
    lines: list[str] = []
    saved = removed_after(*(page(number + 1) for number in range(count)))
    read = CatalogRead(PLANNED, saved=saved, next_page=page(4), log=lines.append)
    assert first_uuids(read, connection) == ["p1", "p2", "p3", "p4"]
    assert scripted.cursors == [None, "c2", "c3", "c4"][count:]
    (line,) = lines
    assert line.startswith("Catalog 'acme': The saved pages are gone. ")
    assert f"after page {count}." in line


def test_page_1_again_after_saved_pages_is_an_error(
    scripted: ScriptedCatalog, connection: CatalogService
) -> None:
    scripted.contents["c3"] = scripted.page(1)
    read = CatalogRead(PLANNED, saved=[page(1), page(2)])
    with pytest.raises(OctogenPagingError, match="answered page 3 with page 1 again"):
        first_uuids(read, connection)


def test_pages_of_the_service_are_saved_and_saved_ones_are_not_saved_again(
    tmp_path: Path, connection: CatalogService
) -> None:
    saved_read = SavedRead(PageStorage(UPath(tmp_path)), "one", read_record())
    saver = PageSaver(saved_read, 0, generation="seed")
    read = CatalogRead(PLANNED, saved=[page(1)], next_page=page(2), saver=saver)
    first_uuids(read, connection)
    saver.flush()
    pages: list[Any] = [
        saved.uuids[0] for name in saver.segments for saved in saved_read.segment(name).pages
    ]
    assert pages == ["p2", "p3", "p4"]
