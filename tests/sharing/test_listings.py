from __future__ import annotations

import pytest

from octogen_dagster.api.errors import OctogenBigQueryError, OctogenBigQueryInputError
from octogen_dagster.sandbox.hub import Hub
from octogen_dagster.sandbox.hub_faults import HubFault
from octogen_dagster.sandbox.hub_state import ON_COMMAND
from octogen_dagster.sharing.analytics_hub import AnalyticsHub
from octogen_dagster.sharing.control_plane import OctogenMCP, SharedListing
from octogen_dagster.sharing.listings import (
    ControlPlaneListings,
    ExchangeListings,
    Listing,
    ListingSource,
    StaticListings,
)
from octogen_dagster.sharing.tokens import GivenToken

PROJECT = "reader-project"
PRINCIPAL = f"serviceAccount:reader@{PROJECT}.iam.gserviceaccount.com"
EXCHANGE = "projects/octogen-sandbox/locations/us/dataExchanges/catalogs"


def test_listings_that_are_written_down() -> None:
    names = [f"{EXCHANGE}/listings/{name}" for name in ("zen", "acme-2", "zen")]
    source: ListingSource = StaticListings(names)
    assert source.listings() == [
        Listing(names[1], None, None, "us", "octogen_acme_2", None),
        Listing(names[0], None, None, "us", "octogen_zen", None),
    ]
    assert StaticListings([]).listings() == []


def test_one_that_is_no_listing_is_an_error_at_once() -> None:
    with pytest.raises(OctogenBigQueryInputError, match="'acme' is not the name of a listing"):
        StaticListings(["acme"])


def test_the_listings_of_an_exchange(hub: Hub) -> None:
    names = [hub.share(f"catalog-{number}") for number in range(250)]
    hub.share("elsewhere", exchange="others")
    with AnalyticsHub(endpoint=hub.endpoint) as analytics_hub:
        source: ListingSource = ExchangeListings(analytics_hub, EXCHANGE)
        found = source.listings()
    assert [listing.resource for listing in found] == sorted(names)
    assert found[0] == Listing(names[0], None, "catalog-0", "us", "octogen_catalog_0", None)


def test_an_exchange_that_may_not_be_read_or_is_none(hub: Hub) -> None:
    with AnalyticsHub(endpoint=hub.endpoint) as analytics_hub:
        with pytest.raises(OctogenBigQueryInputError, match="is not the name of an exchange"):
            ExchangeListings(analytics_hub, "catalogs")
        with pytest.raises(OctogenBigQueryError, match=f"Exchange {EXCHANGE}2: .*NOT_FOUND"):
            ExchangeListings(analytics_hub, f"{EXCHANGE}2").listings()
        hub.inject(HubFault("status", "PERMISSION_DENIED", method="ListListings"))
        with pytest.raises(OctogenBigQueryError, match="Let an administrator"):
            ExchangeListings(analytics_hub, EXCHANGE).listings()


def test_the_listings_of_the_control_plane_with_a_subscribers_status(hub: Hub) -> None:
    acme, zen = hub.share("acme"), hub.share("zen", grant=ON_COMMAND)
    with OctogenMCP(GivenToken(hub.access_token), hub.mcp_url) as octogen:
        source: ListingSource = ControlPlaneListings(octogen, project=PROJECT, principal=PRINCIPAL)
        assert [listing.status for listing in source.listings()] == [None, None]
        octogen.register("other-project", PRINCIPAL)
        assert [listing.status for listing in source.listings()] == [None, None]
        octogen.register(PROJECT, PRINCIPAL)
        assert source.listings() == [
            Listing(acme, "acme", None, "us", "octogen_acme", "awaiting_subscription"),
            Listing(zen, "zen", None, "us", "octogen_zen", "pending"),
        ]
        some = ControlPlaneListings(
            octogen, project=PROJECT, principal=PRINCIPAL, catalogs=["zen", "other"]
        )
        assert [listing.catalog_key for listing in some.listings()] == ["zen"]


def test_a_catalog_whose_listing_has_no_name_is_left_out_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Octogen(OctogenMCP):
        def listings(self, catalogs: object = ()) -> list[SharedListing]:
            return [
                SharedListing("none"),
                SharedListing("odd", "acme"),
                SharedListing("good", f"{EXCHANGE}/listings/good"),
            ]

        def subscribers(self) -> tuple[list[object], list[object]]:  # type: ignore[override]
            return [], []

    source = ControlPlaneListings(Octogen(GivenToken("x")), project=PROJECT, principal=PRINCIPAL)
    assert source.listings() == [
        Listing(f"{EXCHANGE}/listings/good", "good", None, "us", "octogen_good", None)
    ]
    assert [record.getMessage()[:28] for record in caplog.records] == [
        "Catalog none is left out: ''",
        "Catalog odd is left out: 'ac",
    ]
