"""The page tracker in what a search of `tests/promises/read/test_paging.py` does not show."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octogen_dagster.api import paging
from octogen_dagster.api.paging import PageTracker
from octogen_dagster.errors import OctogenPagingError


@dataclass
class Page:
    """A page as the tracker sees it."""

    uuids: list[str]
    next_cursor: str | None = None


@given(st.integers(2, 6), st.integers(0, 4))
def test_page_1_and_then_page_2_is_an_error_though_the_cursors_are_others(
    restart: int, changed: int
) -> None:
    cursors = map(str, count())
    tracker = PageTracker("Catalog 'acme'")

    def receive(number: int, changed: int = 0) -> None:
        """Receive a page, of which some products are others by now."""
        uuids = [f"{number}-{place}" for place in range(10)]
        uuids[:changed] = [f"new-{place}" for place in range(changed)]
        tracker.page_received(Page(uuids, next(cursors)))

    for number in range(1, restart):
        receive(number)
    receive(1)
    assert tracker.may_have_restarted
    if restart == 2:  # page 2 comes for the first time
        receive(2, changed)
        return
    with pytest.raises(OctogenPagingError, match=f"page 1 again instead of page {restart}"):
        receive(2, changed)


def test_pages_of_unknown_number_end_at_a_fixed_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert paging.MAX_PRODUCTS == 10_000_000
    monkeypatch.setattr(paging, "MAX_PRODUCTS", 500)
    tracker = PageTracker("It")
    for number in range(5):
        tracker.page_received(Page([f"{number}-{place}" for place in range(100)], f"{number}"))
    with pytest.raises(OctogenPagingError, match="The expected number of products is unknown"):
        tracker.page_received(Page(["one more"], "5"))
