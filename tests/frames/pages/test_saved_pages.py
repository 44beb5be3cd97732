"""The first pages of a catalog, and why a service does not continue them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from upath import UPath

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.catalog_states import CatalogState
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.errors import OctogenServerError
from octogen_dagster.frames.decode import read_page
from octogen_dagster.frames.pages.saved_pages import (
    NotContinuedError,
    SavedPages,
    request_next_page,
    verified_pages,
)
from octogen_dagster.frames.pages.saved_read import SavedRead
from octogen_dagster.frames.pages.segments import Segment, SegmentName
from octogen_dagster.frames.pages.storage import PageStorage
from octogen_dagster.frames.plan import Walk
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.frames.pages.samples import read_record, segment
from tests.frames.products import answer
from tests.frames.scripted import ScriptedCatalog

SEARCH = ProductSearch(catalogs=["acme"], page_size=2)
PLANNED = Walk(SEARCH.request("acme"), (CatalogState("acme"),))
INDEXED_AT = datetime(2026, 11, 25, tzinfo=timezone.utc)
STAMPED = replace(PLANNED, catalogs=(CatalogState("acme", last_indexed_at=INDEXED_AT),))
LAST = 4
"""The number of the last page of the scripted service."""


@pytest.fixture
def read(tmp_path: Path) -> SavedRead:
    return SavedRead(PageStorage(UPath(tmp_path / ".acme.pages")), "one", read_record())


def saved_again(read: SavedRead, *names: SegmentName) -> SavedRead:
    """A read as another process finds it."""
    return SavedRead(read.storage, read.name, read.record, names)


def saved_pages(read: SavedRead, count: int, generation: str = "seed") -> SavedPages:
    """The first pages of the scripted service, two in a segment."""
    catalog = ScriptedCatalog(LAST)
    pages = [read_page(answer(catalog.page(number)), "It") for number in range(1, count + 1)]
    names = [
        read.write(0, begin // 2, Segment(generation, pages[begin : begin + 2]))
        for begin in range(0, count, 2)
    ]
    saved = verified_pages(saved_again(read, *names), 0, "It", raise_line)
    assert saved
    return saved


def raise_line(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture
def scripted() -> ScriptedCatalog:
    return ScriptedCatalog(LAST)


class TestVerifying:
    def test_a_read_without_segments_of_a_catalog_has_no_pages(self, read: SavedRead) -> None:
        name = read.write(0, 0, segment("p0"))
        assert verified_pages(saved_again(read, name), 1, "It", raise_line) is None

    def test_pages_of_several_segments_are_counted(self, read: SavedRead) -> None:
        saved = saved_pages(read, 3)
        assert (saved.pages, len(saved.segments)) == (3, 2)
        assert (saved.last_cursor, saved.next_cursor) == ("c3", "c4")
        assert [len(part.pages) for part in (saved.first, saved.last)] == [2, 1]

    def test_page_1_alone_was_requested_without_a_cursor(self, read: SavedRead) -> None:
        saved = saved_pages(read, 1)
        assert (saved.pages, saved.last_cursor, saved.next_cursor) == (1, None, "c2")

    def test_the_last_page_has_none_after_it(self, read: SavedRead) -> None:
        saved = saved_pages(read, LAST)
        assert (saved.pages, saved.last_cursor, saved.next_cursor) == (LAST, "c4", None)

    @pytest.mark.parametrize(("damaged", "pages"), [(0, 0), (1, 1), (2, 2)])
    def test_pages_end_before_a_damaged_segment(
        self, read: SavedRead, damaged: int, pages: int
    ) -> None:
        names = [
            read.write(0, number, segment(f"p{number}", next_cursor=f"c{number}"))
            for number in range(3)
        ]
        (read.storage.folder / read.name / str(names[damaged])).write_bytes(b"")
        lines: list[str] = []
        saved = verified_pages(saved_again(read, *names), 0, "Catalog 'acme'", lines.append)
        assert (saved.pages if saved else 0) == pages
        (line,) = lines
        assert line.startswith(f"Catalog 'acme': The saved pages {read.storage.folder}/one/")
        assert line.endswith("The pages before it are used.")


class TestTheNextPage:
    def test_of_a_stamped_catalog_it_is_the_only_request(
        self, read: SavedRead, scripted: ScriptedCatalog, connection: CatalogService
    ) -> None:
        found = request_next_page(STAMPED, saved_pages(read, 2), BlockingClient(connection))
        assert found
        assert found.uuids == ["p3", "q3"]
        assert scripted.cursors == ["c3"]

    def test_without_a_stamp_the_first_and_the_last_saved_page_are_compared(
        self, read: SavedRead, scripted: ScriptedCatalog, connection: CatalogService
    ) -> None:
        found = request_next_page(PLANNED, saved_pages(read, 3), BlockingClient(connection))
        assert found
        assert found.uuids == ["p4", "q4"]
        assert scripted.cursors == ["c4", None, "c3"]

    def test_page_1_alone_is_compared_once(
        self, read: SavedRead, scripted: ScriptedCatalog, connection: CatalogService
    ) -> None:
        assert request_next_page(PLANNED, saved_pages(read, 1), BlockingClient(connection))
        assert scripted.cursors == ["c2", None]

    def test_after_the_last_page_there_is_none(
        self, read: SavedRead, scripted: ScriptedCatalog, connection: CatalogService
    ) -> None:
        assert (
            request_next_page(PLANNED, saved_pages(read, LAST), BlockingClient(connection)) is None
        )
        assert scripted.cursors == [None, "c4"]


class TestNotContinued:
    @pytest.mark.parametrize(("cursor", "number"), [(None, 1), ("c3", 3)])
    def test_a_saved_page_that_changed(
        self,
        read: SavedRead,
        scripted: ScriptedCatalog,
        connection: CatalogService,
        cursor: str | None,
        number: int,
    ) -> None:
        document = json.loads(scripted.contents[cursor])
        document["items"][1]["title"] = "Another title"
        scripted.contents[cursor] = json.dumps(document).encode()
        saved = saved_pages(read, 3)
        with pytest.raises(NotContinuedError, match=rf"^page {number} is no longer the one that"):
            request_next_page(PLANNED, saved, BlockingClient(connection))
        assert request_next_page(STAMPED, saved, BlockingClient(connection))

    def test_a_score_that_changed_is_no_change(
        self, read: SavedRead, scripted: ScriptedCatalog, connection: CatalogService
    ) -> None:
        document = json.loads(scripted.contents[None])
        document["items"][0] |= {"rawScore": 0.5, "displayMatchScore": 0.25}
        scripted.contents[None] = json.dumps(document).encode()
        assert request_next_page(PLANNED, saved_pages(read, 2), BlockingClient(connection))

    def test_page_1_for_a_later_cursor(
        self, read: SavedRead, scripted: ScriptedCatalog, connection: CatalogService
    ) -> None:
        scripted.contents["c3"] = scripted.page(1)
        with pytest.raises(NotContinuedError, match=r"no longer knows the cursor of the saved"):
            request_next_page(STAMPED, saved_pages(read, 2), BlockingClient(connection))

    def test_another_generation(self, read: SavedRead, connection: CatalogService) -> None:
        saved = saved_pages(read, 2, generation="current")
        with pytest.raises(NotContinuedError, match="another generation of its contract"):
            request_next_page(STAMPED, saved, BlockingClient(connection))

    @pytest.mark.parametrize("status", [400, 404, 409, 410, 422])
    def test_a_refused_cursor(self, read: SavedRead, sandbox: Sandbox, status: int) -> None:
        sandbox.inject(Fault("status", status, path="/products/search"))
        with pytest.raises(NotContinuedError, match=rf"refuses the cursor .* \({status}\)\.$"):
            request_next_page(STAMPED, saved_pages(read, 2), BlockingClient(connection_to(sandbox)))

    def test_a_service_that_fails_is_an_error_and_no_reason(
        self, read: SavedRead, sandbox: Sandbox
    ) -> None:
        sandbox.inject(Fault("status", 503, path="/products/search"))
        with pytest.raises(OctogenServerError):
            request_next_page(STAMPED, saved_pages(read, 2), BlockingClient(connection_to(sandbox)))


def connection_to(sandbox: Sandbox) -> CatalogService:
    return CatalogService(
        api_key=ApiKey(sandbox.api_key),
        base_url=sandbox.base_url,
        retry=RetryPolicy(attempts=1),
    )
