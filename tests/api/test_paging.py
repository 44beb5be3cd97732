"""A walk through pages: model servers in memory, whatever their pages look like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from octogen_dagster.api.paging import MAX_RESTARTS, SPARE_BARREN_PAGES, PageTracker
from octogen_dagster.errors import OctogenPagingError

PageContent = list[str]


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
    """All products of a search the way a client reads them, and the walk they were read by."""
    walk, seen, cursor = PageTracker("Catalog 'acme'"), dict[str, None](), None
    while True:
        uuids, cursor = server.read(cursor)
        walk.page_received(uuids, cursor)
        fresh = [uuid for uuid in dict.fromkeys(uuids) if uuid not in seen]
        walk.deduplicated(new=len(fresh), repeats=len(uuids) - len(fresh))
        seen.update(dict.fromkeys(fresh))
        if not cursor:
            return list(seen), walk


@st.composite
def walks(draw: st.DrawFn) -> list[PageContent]:
    """Pages of any sizes in which products come again anywhere.

    At most a few pages hold nothing new, and none but those with a single product is all of
    page 1 again.
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
    assume(all(len(page) < 2 or page != pages[0] for page in pages[1:]))
    return pages or [[]]


def products_of(pages: Sequence[PageContent]) -> list[str]:
    return list(dict.fromkeys(uuid for page in pages for uuid in page))


class TestAWellBehavedServer:
    @given(walks(), st.booleans())
    def test_each_product_comes_once_and_repeats_are_counted(
        self, pages: list[PageContent], fresh_cursors: bool
    ) -> None:
        server = ModelServer(pages, fresh_cursors=fresh_cursors)
        products, walk = read_all(server)
        assert products == products_of(pages)
        assert walk.pages == server.asked == len(pages)
        assert walk.repeats == sum(map(len, pages)) - len(products)

    @pytest.mark.parametrize("pages", [[[]], [["a"]], [["a"], ["b"], ["c"]], [["a", "b"], []]])
    def test_small_results(self, pages: list[PageContent]) -> None:
        products, walk = read_all(ModelServer(pages))
        assert products == products_of(pages)
        assert (walk.restarts, walk.repeats) == (0, 0)

    def test_empty_pages_on_the_way_are_passed(self) -> None:
        pages = [["a"], *[[] for _ in range(SPARE_BARREN_PAGES)], ["b"]]
        assert read_all(ModelServer(pages))[0] == ["a", "b"]

    def test_pages_of_one_product_that_repeat_the_first_are_no_restarts(self) -> None:
        pages = [["a"], ["b"], ["a"], ["c"], ["a"], ["d"], ["a"], ["e"]]
        products, walk = read_all(ModelServer(pages))
        assert products == ["a", "b", "c", "d", "e"]
        assert (walk.restarts, walk.repeats) == (0, 3)


class TestRestarts:
    @given(walks(), st.data(), st.booleans())
    def test_up_to_two_lose_nothing_and_double_nothing(
        self, pages: list[PageContent], data: st.DataObject, fresh_cursors: bool
    ) -> None:
        requests = st.integers(2, max(2, 2 * len(pages)))
        restarts = data.draw(st.frozensets(requests, max_size=MAX_RESTARTS))
        server = ModelServer(pages, restarts, fresh_cursors)
        products, walk = read_all(server)
        assert products == products_of(pages)
        happened = sum(number <= server.asked for number in restarts)
        if not fresh_cursors and len(pages) > 1 and pages[0]:
            assert walk.restarts == happened

    def test_the_repeats_of_a_restart_are_counted(self) -> None:
        pages = [["a", "b"], ["c", "d"], ["e"]]
        _, walk = read_all(ModelServer(pages, restarts=frozenset({3})))
        assert (walk.pages, walk.restarts, walk.repeats) == (5, 1, 4)

    def test_two_far_into_a_long_walk_are_survived(self) -> None:
        pages = [[f"{number}-{n}" for n in range(3)] for number in range(60)]
        products, walk = read_all(ModelServer(pages, restarts=frozenset({50, 99})))
        assert len(products) == 180
        assert (walk.pages, walk.restarts) == (158, 2)

    def test_one_is_noticed_by_the_products_when_the_cursor_is_another(self) -> None:
        pages = [["a", "b"], ["c", "d"], ["e"]]
        _, walk = read_all(ModelServer(pages, frozenset({3}), fresh_cursors=True))
        assert walk.restarts == 1

    def test_one_is_noticed_by_the_cursor_when_a_product_is_new(self) -> None:
        walk = PageTracker("It")
        walk.page_received(["a", "b"], "1")
        walk.page_received(["c", "d"], "2")
        walk.page_received(["new", "a"], "1")
        assert walk.restarts == 1

    def test_one_at_which_page_1_has_changed_is_suspected(self) -> None:
        first = [f"a{number}" for number in range(12)]
        walk = PageTracker("Catalog 'acme'")
        walk.page_received(first, "1")
        walk.page_received([f"b{number}" for number in range(12)], "2")
        walk.page_received(
            [*first[:6], *(f"c{number}" for number in range(6))], "3"
        )  # half is by chance
        assert not walk.may_have_restarted
        walk.page_received([*first[1:], "b0"], "4")
        assert walk.may_have_restarted
        assert walk.restarts == 0

    @pytest.mark.parametrize("fresh_cursors", [False, True])
    def test_the_third_is_an_error_that_names_the_page(self, fresh_cursors: bool) -> None:
        pages = [["a", "b"], ["c", "d"], ["e", "f"], ["g"]]
        server = ModelServer(pages, frozenset({2, 4, 7}), fresh_cursors)
        with pytest.raises(OctogenPagingError) as caught:
            read_all(server)
        assert str(caught.value).startswith("Catalog 'acme': page 7 is page 1 again, for the 3rd")
        assert "Nothing was published; run it again" in str(caught.value)
        assert server.asked == 7


class TestLoops:
    @given(walks(), st.data())
    def test_a_cursor_that_was_used_before_is_an_error_that_names_both_pages(
        self, pages: list[PageContent], data: st.DataObject
    ) -> None:
        assume(len(pages) >= 3)
        back = data.draw(st.integers(1, len(pages) - 2))
        walk = PageTracker("It")
        for number, uuids in enumerate(pages[:-1], 1):
            walk.page_received(uuids, str(number))
            walk.deduplicated(new=1, repeats=0)
        assume(set(pages[-1]).isdisjoint(pages[0]) or back > 1)
        with pytest.raises(OctogenPagingError) as caught:
            walk.page_received(pages[-1], str(back))
        assert f"page {len(pages)} came with the cursor that page {back} had" in str(caught.value)

    def test_a_page_that_names_itself_is_one(self) -> None:
        walk = PageTracker("It")
        walk.page_received(["a"], "1")
        walk.page_received(["b"], "2")
        with pytest.raises(OctogenPagingError, match="page 3 came with the cursor that page 2 had"):
            walk.page_received(["c"], "2")

    def test_one_after_a_restart_is_still_seen(self) -> None:
        walk = PageTracker("It")
        for uuids, cursor in ((["a"], "1"), (["b"], "2"), (["a"], "1"), (["b"], "2")):
            walk.page_received(uuids, cursor)
        with pytest.raises(OctogenPagingError, match="page 5 came with the cursor that page 4 had"):
            walk.page_received(["b"], "2")


class TestNoEnd:
    @pytest.mark.parametrize("uuids", [[], ["a"], ["b", "a"]])
    @pytest.mark.parametrize("productive", [1, 7])
    def test_pages_with_nothing_new_come_to_an_error(
        self, uuids: list[str], productive: int
    ) -> None:
        walk = PageTracker("Catalog 'acme'")
        for number in range(productive):
            walk.page_received([f"p{number}", "a", "b"], f"c{number}")
            walk.deduplicated(new=1, repeats=0)
        for number in range(productive + SPARE_BARREN_PAGES):
            walk.page_received(uuids, f"d{number}")
            walk.deduplicated(new=0, repeats=len(uuids))
        walk.page_received(uuids, "e")
        with pytest.raises(OctogenPagingError) as caught:
            walk.deduplicated(new=0, repeats=len(uuids))
        barren = productive + SPARE_BARREN_PAGES + 1
        assert f"{barren} pages in a row, up to page {walk.pages}, brought no new product" in str(
            caught.value
        )

    @pytest.mark.parametrize("every", [1, 2, 5])
    def test_a_server_that_starts_again_for_ever_comes_to_an_error(self, every: int) -> None:
        pages = [[str(number)] for number in range(9)]
        restarts = frozenset(range(2, 1000, every))
        for fresh_cursors in (False, True):
            server = ModelServer(pages, restarts, fresh_cursors)
            with pytest.raises(OctogenPagingError):
                read_all(server)
            assert server.asked < 100
