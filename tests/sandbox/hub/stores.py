"""Helpers for tests of the store and the cells, without servers."""

from typing import Any

import pytest

from octogen_dagster.sandbox.hub.names import ExchangeName, Refusal
from octogen_dagster.sandbox.hub.state import (
    AT_ONCE,
    Destination,
    GrantAfter,
    Listing,
    Subscription,
)
from octogen_dagster.sandbox.hub.store import HubStore
from tests.sandbox.hub.calls import PROJECT

EXCHANGE = ExchangeName("octogen-sandbox", "us", "catalogs")


def share(store: HubStore, catalog: str = "kumo", grant: GrantAfter = AT_ONCE) -> Listing:
    return store.share(catalog, grant, EXCHANGE, None)


def subscribe(
    store: HubStore, listing: Listing, dataset: str = "linked", project: str = PROJECT
) -> Subscription:
    return store.subscribe(str(listing.name), Destination(project, dataset, "us"))


def refusal_code(store: HubStore, listing: Listing, **destination: Any) -> str:
    """The code with which a subscription to `destination` is refused."""
    wanted = {"project": PROJECT, "dataset": "linked", "location": "us", **destination}
    with pytest.raises(Refusal) as caught:
        store.subscribe(str(listing.name), Destination(**wanted))
    return caught.value.code
