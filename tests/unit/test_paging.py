"""The page tracker, against model servers in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from octogen_dagster.api import paging
from octogen_dagster.api.paging import PageTracker
from octogen_dagster.errors import OctogenPagingError

PageContent = list[str]


@dataclass
class Page:
    """A page as the tracker sees it."""

    uuids: PageContent
    next_cursor: str | None = None


@dataclass
class ModelServer:
    """Pages as the contract describes them, that start again at page 1 at certain requests.

    Args:
        pages: What is on each.
        restarts: The numbers of the requests, from 2, that are answered with page 1.
        fresh_cursors: Never the same cursor twice, as a service whose cursors hold the time.
    """

    pages: list[PageContent]
    restarts: frozenset[int] = frozenset()
    fresh_cursors: bool = False
    asked: int = 0
    serial: Iterator[int] = field(default_factory=count)

    def read(self, cursor: str | None) -> tuple[PageContent, str | None]:
        self.asked += 1
        number = 0 if cursor is None or self.asked in self.restarts else int(cursor.split("/")[0])
        if number + 1 >= len(self.pages):
            return self.pages[number], None
        serial = f"/{next(self.serial)}" if self.fresh_cursors else ""
        return self.pages[number], f"{number + 1}{serial}"


def read_all(server: ModelServer) -> tuple[list[str], PageTracker]:
    """All products of a search as a client reads them, and the tracker of its pages."""
    tracker, seen, cursor = PageTracker("Catalog 'acme'"), dict[str, None](), None
    while True:
        uuids, cursor = server.read(cursor)
        tracker.page_received(Page(uuids, cursor))
        fresh = [uuid for uuid in dict.fromkeys(uuids) if uuid not in seen]
        tracker.deduplicated(new=len(fresh), repeats=len(uuids) - len(fresh))
        seen.update(dict.fromkeys(fresh))
        if not cursor:
            return list(seen), tracker


@st.composite
def walks(draw: st.DrawFn) -> list[PageContent]:
    """Pages of any sizes in which products come again anywhere.

    At most a few pages hold nothing new.
    """
    sizes = draw(st.lists(st.integers(1, 5), max_size=30))
    serial = count()
    pages: list[PageContent] = []
    for size in sizes:
        pages.append([str(next(serial)) for _ in range(size)])
    known = [uuid for page in pages for uuid in page]
    if known:
        for _ in range(draw(st.integers(0, 20))):
            page = draw(st.sampled_from(pages))
            page.insert(draw(st.integers(0, len(page))), draw(st.sampled_from(known)))
        for _ in range(draw(st.integers(0, 3))):
            again = draw(st.lists(st.sampled_from(known), max_size=5))
            pages.insert(draw(st.integers(1, len(pages))), again)
    if draw(st.booleans()) and pages:  # a page with page 1's products, as many as there may be
        pages[0] += [str(next(serial)) for _ in range(draw(st.integers(0, 12)))]
        # After a restart page 2 would come again, so a new product follows here.
        at = draw(st.integers(1, len(pages)))
        pages[at:at] = [[*pages[0]], [str(next(serial))]]
    return pages or [[]]


def restarted(number: int) -> str:
    return (
        f"Catalog 'acme': the service returned page 1 again instead of page {number}. It no longer "
        "knows the cursor, probably because the catalog was re-indexed. Nothing was published. Run "
        "it again."
    )


def products_of(pages: Sequence[PageContent]) -> list[str]:
    return list(dict.fromkeys(uuid for page in pages for uuid in page))


class TestAWellBehavedServer:
    @given(walks(), st.booleans())
    def test_each_product_comes_once_and_repeats_are_counted(
        self, pages: list[PageContent], fresh_cursors: bool
    ) -> None:
        server = ModelServer(pages, fresh_cursors=fresh_cursors)
        products, tracker = read_all(server)
        assert products == products_of(pages)
        assert tracker.pages == server.asked == len(pages)
        assert tracker.repeats == sum(map(len, pages)) - len(products)


class TestRestarts:
    @given(walks(), st.data())
    def test_the_cursor_of_page_1_for_a_later_cursor_is_an_error(
        self, pages: list[PageContent], data: st.DataObject
    ) -> None:
        assume(len(pages) > 1 and pages[0])
        number = data.draw(st.integers(2, len(pages)))
        server = ModelServer(pages, frozenset({number}))
        with pytest.raises(OctogenPagingError) as caught:
            read_all(server)
        assert server.asked == number
        assert str(caught.value) == restarted(number)

    @given(st.integers(2, 6), st.integers(0, 4))
    def test_page_1_and_then_page_2_is_an_error_though_the_cursors_are_others(
        self, number: int, changed: int
    ) -> None:
        pages = [[f"{page}-{place}" for place in range(10)] for page in range(6)]
        server = ModelServer(pages, frozenset({number}), fresh_cursors=True)
        tracker = PageTracker("Catalog 'acme'")
        cursor = None
        for _ in range(number):
            uuids, cursor = server.read(cursor)
            tracker.page_received(Page(uuids, cursor))
        assert tracker.may_have_restarted
        uuids, cursor = server.read(cursor)
        page = Page([*(f"new-{place}" for place in range(changed)), *uuids[changed:]], cursor)
        if number == 2:  # page 2 came for the first time
            tracker.page_received(page)
            return
        with pytest.raises(OctogenPagingError) as caught:
            tracker.page_received(page)
        assert str(caught.value) == restarted(number)


def endless(tracker: PageTracker, *, page_size: int = 100) -> int:
    """Receive pages of new products without an end, and return the number that were accepted."""
    for number in count():
        uuids = [f"{number}-{place}" for place in range(page_size)]
        try:
            tracker.page_received(Page(uuids, f"c{number}"))
        except OctogenPagingError:
            return number
        tracker.deduplicated(new=page_size, repeats=0)
    raise AssertionError


class TestTooManyProducts:
    @pytest.mark.parametrize(
        ("product_count", "accepted"), [(0, 100), (50, 100), (3_333, 100), (4_000, 120)]
    )
    def test_pages_stop_at_three_times_the_rows_to_expect_but_not_below_10_000(
        self, product_count: int, accepted: int
    ) -> None:
        assert endless(PageTracker("It", product_count, 1.0)) == accepted
        assert endless(PageTracker("It", product_count, 0.1)) == accepted
        assert endless(PageTracker("It", product_count // 10, 10.0)) == accepted

    def test_without_a_count_they_stop_at_a_fixed_number(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert paging.MAX_PRODUCTS == 10_000_000
        monkeypatch.setattr(paging, "MAX_PRODUCTS", 500)
        assert endless(PageTracker("It")) == 5
