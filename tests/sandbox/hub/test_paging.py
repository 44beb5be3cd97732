"""Pages and their tokens."""

import base64
from types import SimpleNamespace

import pytest

from octogen_dagster.sandbox.hub.names import Refusal
from octogen_dagster.sandbox.hub.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, page_of


def page(
    items: list[int], size: int = 0, token: str = "", scope: str = "scope"
) -> tuple[list[int], str]:
    request = SimpleNamespace(page_size=size, page_token=token)
    return page_of(items, lambda item: item, request, scope)


def test_pages_show_each_item_once() -> None:
    first, token = page([1, 2, 3], size=2)
    second, end = page([1, 2, 3], size=2, token=token)
    assert (first, second, end) == ([1, 2], [3], "")


def test_the_last_page_may_be_full() -> None:
    assert page([1, 2], size=2) == ([1, 2], "")


def test_a_page_size_of_0_is_the_default_and_the_largest_is_limited() -> None:
    items = list(range(2000))
    assert len(page(items)[0]) == DEFAULT_PAGE_SIZE
    assert len(page(items, size=2000)[0]) == MAX_PAGE_SIZE


def test_items_may_appear_and_go_away_between_two_pages() -> None:
    _, token = page([1, 2, 3, 4], size=2)
    assert page([2, 4, 5], size=2, token=token) == ([4, 5], "")


@pytest.mark.parametrize("token", ["x", "bnVsbA==", base64.b64encode(b'["other", 1]').decode()])
def test_an_invalid_token_is_refused(token: str) -> None:
    with pytest.raises(Refusal, match="page_token is not valid"):
        page([1, 2], token=token)


def test_a_token_is_valid_for_its_scope_only() -> None:
    _, token = page([1, 2], size=1)
    with pytest.raises(Refusal, match="page_token is not valid"):
        page([1, 2], token=token, scope="another")


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(Refusal, match="page_size must not be negative"):
        page([1], size=-1)
