"""Cursors are valid only for the search that they were made for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octogen_dagster.sandbox.rest.cursors import Cursors, Position

_CURSORS = Cursors(b"secret")
_POSITION = Position(page=3, place=200, catalog="northpeak")


@given(st.integers(1), st.integers(0), st.text(), st.binary())
def test_a_cursor_leads_back_to_its_position(
    page: int, place: int, catalog: str, search: bytes
) -> None:
    position = Position(page, place, catalog)
    assert _CURSORS.decode(_CURSORS.encode(position, search), search) == position


@given(st.text())
def test_any_other_text_is_not_a_cursor(text: str) -> None:
    assert _CURSORS.decode(text, b"search") is None


def test_a_cursor_of_another_search_or_server_is_not_valid() -> None:
    cursor = _CURSORS.encode(_POSITION, b"search")
    assert _CURSORS.decode(cursor, b"another search") is None
    assert Cursors(b"another secret").decode(cursor, b"search") is None


@pytest.mark.parametrize("at", range(0, 45, 4))
def test_a_changed_cursor_is_not_valid(at: int) -> None:
    cursor = _CURSORS.encode(_POSITION, b"search")
    changed = cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :]
    assert _CURSORS.decode(changed, b"search") is None
