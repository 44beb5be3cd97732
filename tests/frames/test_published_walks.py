"""Catalogs that are read in several walks from a service made from the published models."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from upath import UPath

from octogen_dagster.api import paging
from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import (
    CatalogService,
    CatalogSource,
    GrantedCatalogs,
    ShopCatalogs,
)
from octogen_dagster.api.catalog_states import CatalogList, CatalogState
from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.paging import IndexedAgainError
from octogen_dagster.api.search import ProductSearch
from octogen_dagster.errors import OctogenPagingError, OctogenServerError, OctogenSplitCatalogError
from octogen_dagster.frames.pages.store import PageStore
from octogen_dagster.frames.plan import PlannedCatalog
from octogen_dagster.frames.scan import ProductScan
from octogen_dagster.frames.snapshot_brands import SnapshotBrands
from octogen_dagster.frames.walks import WalkPlanner, in_reading_order, useful_threads
from tests.frames.scripted import connection_at
from tests.published_service import PublishedService

HOST = "shop.example"
STAMP = datetime(2026, 11, 25, tzinfo=timezone.utc)
SEARCH = ProductSearch(catalogs=["acme"], page_size=5)
BRANDS = [f"Brand {number}" for number in range(12)]


def uuids(count: int) -> list[str]:
    return [f"{number:08}" for number in range(count)]


def branded(products: list[str], brands: list[str | None]) -> dict[str, str]:
    """Brands for products, in turn; None leaves one without."""
    pairs = zip(products, itertools.cycle(brands), strict=False)
    return {product: brand for product, brand in pairs if brand is not None}


@pytest.fixture
def service() -> Iterator[PublishedService]:
    """A catalog of 100 pages: twelve brands, and one product in 13 without."""
    products = uuids(500)
    brands = branded(products, [*BRANDS, None])
    with PublishedService(
        {"acme": products}, brands=brands, hosts={HOST: ["acme"]}
    ).running() as running:
        yield running


class Place:
    """The place of a snapshot whose pages are saved in a folder.

    Attributes:
        snapshot: The snapshot that is there.
        provenance: Its provenance.
        lines: What was logged.
    """

    def __init__(self, folder: Path, snapshot: pl.DataFrame | None = None) -> None:
        self.folder = folder
        self.snapshot = snapshot
        self.provenance: dict[str, str] = {}
        self.lines: list[str] = []

    def page_store(self, clock: Callable[[], datetime]) -> PageStore:
        return PageStore(UPath(self.folder), clock=clock)

    def latest(self) -> pl.LazyFrame | None:
        return None if self.snapshot is None else self.snapshot.lazy()

    def latest_provenance(self) -> dict[str, str]:
        return self.provenance

    def log(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        self.lines.append(line)


def connection_to(service: PublishedService, **settings: Any) -> CatalogService:
    return connection_at(service.base_url, **{"catalogs": ShopCatalogs(hosts=[HOST]), **settings})


def scan(service: PublishedService, search: ProductSearch = SEARCH, **settings: Any) -> ProductScan:
    return ProductScan(search, connection_to(service, **settings))


def published_to(place: Place, scanned: ProductScan) -> pl.DataFrame:
    """Read a scan and publish it, as the IO manager does."""
    with scanned.reading(place) as reading:
        frame = reading.frame.collect()
        reading.published()
    return frame


def walks_of(service: PublishedService) -> Counter[str]:
    """How many pages of each walk were requested; "whole" is the catalog without facets."""
    return Counter(
        "whole"
        if not (body.get("facets") or body.get("exclude_facets"))
        else ", ".join(body["facets"][0]["values"])
        if body.get("facets")
        else "remainder"
        for body in service.searches
    )


@dataclass(frozen=True)
class Stamped(CatalogSource):
    """A source that says when catalogs were indexed, and which brands they have.

    Attributes:
        stamp: Returns when each catalog was indexed.
        service: The service.
    """

    stamp: Callable[[], datetime]
    service: PublishedService

    async def fetch(self, client: OctogenClient) -> CatalogList:
        brands = Counter(self.service.brands.values()).items()
        return CatalogList(
            [
                CatalogState(
                    key,
                    product_count=len(products),
                    last_indexed_at=self.stamp(),
                    brands=tuple(brands),
                )
                for key, products in self.service.catalogs.items()
            ]
        )


def dies_after(
    service: PublishedService,
    place: Place,
    source: CatalogSource | None,
    searches: int,
    **settings: Any,
) -> None:
    """A run that dies when the service has answered so many searches, and then fails."""
    service.max_searches = searches
    dying = scan(service, catalogs=source or ShopCatalogs(hosts=[HOST]), **settings)
    with pytest.raises(OctogenServerError):
        published_to(place, dying)
    for thread in threading.enumerate():
        if thread.name.startswith("octogen-read"):
            thread.join()
    service.max_searches = None


class TestWhole:
    def test_each_product_comes_once_and_few_pages_more(self, service: PublishedService) -> None:
        scanned = scan(service)
        frame = scanned.frame.collect()
        assert sorted(frame["uuid"]) == service.catalogs["acme"]
        walks = walks_of(service)
        assert len(walks) == 6  # the remainder, four sets, and page 1 of the whole catalog
        assert walks["whole"] == 1
        assert walks.total() <= 105
        assert scanned.statistics.walks == 5
        assert (scanned.statistics.rows, scanned.statistics.repeats) == (500, 0)
        assert scanned.statistics.charged_requests == walks.total()
        assert scanned.statistics.catalogs == ["acme"]
        query = scanned.statistics.effective_query
        assert query is not None
        assert "facets" not in query
        assert "excludeFacets" not in query

    def test_brands_come_from_the_snapshot_that_is_replaced(
        self, service: PublishedService, tmp_path: Path
    ) -> None:
        place = Place(tmp_path)
        first = published_to(place, scan(service, catalogs=GrantedCatalogs()))
        assert walks_of(service) == {"whole": 100}
        place.snapshot = first
        service.searches.clear()
        again = published_to(place, scan(service, catalogs=GrantedCatalogs()))
        assert sorted(again["uuid"]) == service.catalogs["acme"]
        walks = walks_of(service)
        assert len(walks) == 6
        assert walks.total() <= 105
        (line,) = [line for line in place.lines if "walks" in line]
        assert line == (
            "Catalog 'acme' is read in 5 walks by brand, up to 8 at a time, with at most 5 more "
            "pages."
        )

    def test_a_snapshot_without_the_catalog_or_that_cannot_be_read_is_as_good_as_none(
        self, service: PublishedService, tmp_path: Path
    ) -> None:
        for snapshot in (pl.DataFrame({"uuid": ["1"]}), pl.DataFrame()):
            place = Place(tmp_path, snapshot)
            frame = published_to(place, scan(service, catalogs=GrantedCatalogs()))
            assert len(frame) == 500
            assert any("The brands of the latest snapshot are not known" in x for x in place.lines)
        assert set(walks_of(service)) == {"whole"}


class TestPlanning:
    """One product is a page here, and only the plan is made."""

    SEARCH = ProductSearch(page_size=1)

    def planner(self, service: PublishedService, **settings: Any) -> WalkPlanner:
        connection = connection_to(service, **settings)
        return WalkPlanner(
            self.SEARCH,
            connection,
            BlockingClient(connection),
            SnapshotBrands(lambda: None, print),
            lambda _line: None,
        )

    def catalogs(self, **pages: int) -> list[PlannedCatalog]:
        """Catalogs of so many pages, all of whose brands are known."""
        return [
            PlannedCatalog(
                key,
                self.SEARCH.request(key),
                product_count=count,
                brands={brand: count // len(BRANDS) for brand in BRANDS},
            )
            for key, count in pages.items()
        ]

    @pytest.mark.parametrize(
        ("pages", "walks"),
        [
            ({"acme": 500}, [13]),  # as many as there are brands, and the remainder
            ({"acme": 100}, [5]),  # 5 %: page 1, and a page that is not full in each but one
            ({"acme": 59}, [2]),
            ({"acme": 49}, [1]),
            ({"acme": 100, **{f"other {number}": 100 for number in range(7)}}, [1] * 8),
            ({"acme": 900, **{f"other {number}": 100 for number in range(7)}}, [12] + [1] * 7),
            ({"acme": 110, **{f"other {number}": 100 for number in range(6)}}, [1] * 7),
            ({"acme": 300, **{f"other {number}": 100 for number in range(5)}}, [12] + [1] * 5),
        ],
    )
    def test_a_catalog_is_split_if_it_would_be_read_when_all_others_have_ended(
        self, service: PublishedService, pages: dict[str, int], walks: list[int]
    ) -> None:
        planned = self.planner(service).plan(self.catalogs(**pages))
        assert [len(each) for each in planned] == walks

    def test_fewer_walks_at_once_need_fewer_parts(self, service: PublishedService) -> None:
        (walks,) = self.planner(service, concurrency=2).plan(self.catalogs(acme=500))
        assert len(walks) == 8

    def test_page_1_is_used_as_that_of_a_catalog_that_is_not_split(
        self, service: PublishedService
    ) -> None:
        service.requests_per_minute = 10
        ((whole,),) = self.planner(service).plan(self.catalogs(acme=500))
        assert whole.part is None
        assert whole.first_page is not None
        assert whole.first_page.page.uuids == service.catalogs["acme"][:1]
        assert walks_of(service) == {"whole": 1}

    def test_the_most_demanding_request_is_tried_first_and_used(
        self, service: PublishedService
    ) -> None:
        (walks,) = self.planner(service).plan(self.catalogs(acme=500))
        assert len(service.searches) == 2
        (tried,) = [walk for walk in walks if walk.first_page]
        assert tried.part
        assert len(tried.part.excluded) == len(BRANDS) - 1
        assert tried.request.body().items() <= {**service.searches[1], "catalog": "acme"}.items()

    def test_the_longest_walks_begin_first(self, service: PublishedService) -> None:
        catalogs = self.catalogs(acme=900, small=30, large=300)
        walks = in_reading_order(self.planner(service).plan(catalogs))
        sizes = [walk.part.products if walk.part else walk.product_count for walk in walks]
        assert sizes == sorted(sizes, key=lambda size: -(size or 0))
        assert [walk.catalog for walk in walks[:2]] == ["large", "acme"]
        assert in_reading_order([[each] for each in catalogs]) == catalogs

    @pytest.mark.parametrize(
        ("pages", "seconds", "limit", "reserve", "threads"),
        [
            (10_000, 0.2, None, 0.2, 8),  # no limiter
            (10_000, 0.2, 10_000, 0.0, 8),  # the bucket holds all of it
            (10**6, 0.2, 1_200, 0.0, 5),  # 20 a second, each 0.2 s: 4, and the bucket at first
            (10**6, 0.2, 600, 0.0, 3),
            (10**6, 0.01, 600, 0.0, 1),
            (2_000, 0.2, 1_000, 0.0, 7),
            (2_000, 0.2, 1_000, 0.5, 5),  # the reserve is for others
        ],
    )
    def test_no_more_walks_are_useful_than_the_rate_limit_serves(
        self, pages: int, seconds: float, limit: int | None, reserve: float, threads: int
    ) -> None:
        connection = connection_at("http://127.0.0.1:1/v1", limiter=RateLimiter(reserve))
        with connection.spending.request("/products/search", "It") as charge:
            charge.requests_per_minute = limit
        assert useful_threads(pages, seconds, connection) == threads


class TestResume:
    def test_each_walk_goes_on_with_the_sets_that_it_began_with(
        self, service: PublishedService, tmp_path: Path
    ) -> None:
        place = Place(tmp_path)
        source = Stamped(lambda: STAMP, service)
        dies_after(service, place, source, searches=60)
        begun = walks_of(service)
        assert len(begun) == 6
        place.snapshot = pl.DataFrame({"uuid": ["1"]})  # is not asked
        frame = published_to(place, scan(service, catalogs=source))
        assert sorted(frame["uuid"]) == service.catalogs["acme"]
        assert walks_of(service).keys() == begun.keys()
        assert walks_of(service)["whole"] == 1
        assert len(service.searches) <= 105
        assert not list(tmp_path.glob("*/*.pages"))

    def test_saved_pages_are_compared_in_each_walk_if_there_is_no_stamp(
        self, service: PublishedService, tmp_path: Path
    ) -> None:
        place = Place(tmp_path)
        dies_after(service, place, None, searches=60)
        frame = published_to(place, scan(service))
        assert sorted(frame["uuid"]) == service.catalogs["acme"]
        assert len(service.searches) <= 105 + 2 * 5

    def test_without_a_stamp_no_walk_goes_on_if_the_pages_of_another_have_changed(
        self, service: PublishedService, tmp_path: Path
    ) -> None:
        place = Place(tmp_path)
        dies_after(service, place, None, searches=60)
        # One of a page that is compared, and some of pages between those that are.
        for place_of in (3, *range(39, 51)):
            old, new = service.catalogs["acme"][place_of], f"new {place_of}"
            service.catalogs["acme"][place_of] = new
            service.brands[new] = service.brands[old]
        service.searches.clear()
        frame = published_to(place, scan(service))
        assert sorted(frame["uuid"]) == sorted(service.catalogs["acme"])
        assert len(service.searches) <= 105 + 2 * 5
        assert "Catalog 'acme': its other saved pages are not used either." in place.lines

    def test_of_two_reads_side_by_side_the_one_with_more_pages_is_resumed(
        self, service: PublishedService, tmp_path: Path
    ) -> None:
        place, aside = Place(tmp_path / "one"), Place(tmp_path / "other")
        source = Stamped(lambda: STAMP, service)
        dies_after(service, place, source, searches=60)
        service.searches.clear()
        dies_after(service, aside, source, searches=15, max_extra_pages_ratio=0.03)
        (later,) = (tmp_path / "other").iterdir()
        later.rename(tmp_path / "one" / later.name.replace(later.name[:16], "20990101T000000Z"))
        service.searches.clear()
        assert len(published_to(place, scan(service, catalogs=source))) == 500
        assert len(service.searches) <= 50

    def test_a_service_that_begins_to_refuse_the_facets_is_read_in_one_walk(
        self, service: PublishedService, tmp_path: Path
    ) -> None:
        place = Place(tmp_path)
        source = Stamped(lambda: STAMP, service)
        dies_after(service, place, source, searches=60)
        service.max_values = 3
        with pytest.raises(
            OctogenPagingError, match="run it again, and the catalog is split anew or read in one"
        ):
            published_to(place, scan(service, catalogs=source))
        service.searches.clear()
        assert len(published_to(place, scan(service, catalogs=source))) == 500
        assert walks_of(service) == {"whole": 100}

    def test_turned_off_the_walks_are_not_resumed(
        self, service: PublishedService, tmp_path: Path
    ) -> None:
        place = Place(tmp_path)
        dies_after(service, place, None, searches=60)
        service.searches.clear()
        assert len(published_to(place, scan(service, max_extra_pages_ratio=0.0))) == 500
        assert walks_of(service) == {"whole": 100}
        assert (
            "Catalog 'acme': its saved pages are of several walks, and max_extra_pages_ratio is 0. "
            "They are not used."
        ) in place.lines


class TestBrokenLogic:
    def test_walks_that_bring_far_too_many_products_end_together(
        self, service: PublishedService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(paging, "MIN_LIMIT", 0)
        service.product_counts["acme"] = 160
        place = Place(tmp_path)
        place.provenance = {"octogen.rows_per_product": '{"acme": 1.0}'}
        search = SEARCH.model_copy(update={"page_size": 3})
        with pytest.raises(
            OctogenPagingError,
            match=r"^Catalog 'acme', part \d of 2: \d+ products came in all walks, and more "
            r"would follow, although the source of catalogs says 160: the pages do not come to an",
        ):
            published_to(place, scan(service, search))
        assert len(walks_of(service)) > 2

    def test_products_that_no_walk_brings_are_noticed_by_the_count(
        self, service: PublishedService, tmp_path: Path
    ) -> None:
        place = Place(tmp_path)
        place.provenance = {"octogen.rows_per_product": '{"acme": 1.0}'}
        service.faults.add("excluded")
        service.counts["acme"] = 500
        with pytest.raises(
            OctogenSplitCatalogError,
            match="only 462 of the at least 500 products that the service counts came in any of",
        ):
            published_to(place, scan(service))

    @pytest.mark.parametrize("counts", [{"acme": 500}, {}])
    def test_a_source_that_counts_more_than_there_are_fails_no_read(
        self, service: PublishedService, tmp_path: Path, counts: dict[str, int]
    ) -> None:
        service.product_counts["acme"] = 600
        service.counts |= counts
        place = Place(tmp_path)
        assert len(published_to(place, scan(service))) == 500
        assert len(walks_of(service)) > 2
        own = "is at least 500" if counts else "cannot be had"
        assert place.lines[-1] == (
            "Catalog 'acme': 500 products came in all walks, and the source counts 600, perhaps "
            f"those of another day. The service's own count {own}."
        )

    def test_a_catalog_that_was_indexed_again_is_no_broken_logic(
        self, service: PublishedService
    ) -> None:
        service.faults.add("exclude_facets")
        stamps = itertools.count()
        source = Stamped(lambda: STAMP.replace(minute=next(stamps)), service)
        with pytest.raises(IndexedAgainError, match="indexed again while it was read"):
            scan(service, catalogs=source).frame.collect()
