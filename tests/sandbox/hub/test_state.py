"""The values of the store: when a listing may be subscribed to."""

from dataclasses import replace
from typing import Any

import pytest

from octogen_dagster.sandbox.hub.names import ListingName
from octogen_dagster.sandbox.hub.state import AT_ONCE, ON_COMMAND, GrantAfter, Listing

LISTING = Listing(
    serial=1,
    catalog="kumo",
    name=ListingName("octogen-sandbox", "us", "catalogs", "kumo"),
    grant=ON_COMMAND,
    shared_at=1000.0,
)


@pytest.mark.parametrize(
    ("grant", "changes", "now", "expected"),
    [
        (AT_ONCE, {}, 1000.0, True),
        (ON_COMMAND, {"denials": 10**6, "reads": 10**6}, 1e12, False),
        (GrantAfter(denials=2), {"denials": 1}, 1000.0, False),
        (GrantAfter(denials=2), {"denials": 2}, 1000.0, True),
        (GrantAfter(reads=3), {"reads": 2}, 1000.0, False),
        (GrantAfter(reads=3), {"reads": 3}, 1000.0, True),
        (GrantAfter(seconds=60), {}, 1059.9, False),
        (GrantAfter(seconds=60), {}, 1060.0, True),
        (GrantAfter(denials=5, seconds=60), {"denials": 5}, 1000.0, True),
        (GrantAfter(denials=5, seconds=60), {}, 1060.0, True),
    ],
)
def test_access_arrives_at_whichever_comes_first(
    grant: GrantAfter, changes: dict[str, Any], now: float, expected: bool
) -> None:
    assert replace(LISTING, grant=grant, **changes).has_access(now) is expected


def test_a_decision_by_hand_overrules_the_grant() -> None:
    assert replace(LISTING, grant=ON_COMMAND, access="granted").has_access(1000.0)
    assert not replace(LISTING, grant=AT_ONCE, access="revoked").has_access(1000.0)
