from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.control_plane.tokens import GivenToken
from octogen_dagster.control_plane.tools import (
    Cell,
    OctogenMCP,
    SharedListing,
    Subscriber,
)
from octogen_dagster.errors import OctogenBigQueryError, OctogenBigQueryInputError
from octogen_dagster.sharing.analytics_hub import AnalyticsHub
from octogen_dagster.sharing.listings import (
    ControlPlaneListings,
    ExchangeListings,
    Found,
    Listing,
    StaticListings,
)
from octogen_dagster.sharing.verdict import NOT_GRANTED
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.hostile_hub import HubFault
from tests.sharing.hubs import answering
from tests.sharing.octogen import cell_of

PROJECT = "reader-project"
PRINCIPAL = f"serviceAccount:reader@{PROJECT}.iam.gserviceaccount.com"
EXCHANGE = "projects/octogen-sandbox/locations/us/dataExchanges/catalogs"


def test_static_listings_are_ordered_and_unique() -> None:
    names = [f"{EXCHANGE}/listings/{name}" for name in ("zen", "acme-2", "zen")]
    source = StaticListings(names)
    assert source.listings().listings == [
        Listing(names[1], None, None, "us", "octogen_acme_2", None),
        Listing(names[0], None, None, "us", "octogen_zen", None),
    ]
    assert StaticListings([]).listings() == Found([], [])


def test_a_static_listing_with_an_invalid_name_is_refused_at_once() -> None:
    with pytest.raises(OctogenBigQueryInputError, match="'acme' is not the name of a listing"):
        StaticListings(["acme"])


def test_all_listings_of_an_exchange_are_read(hub: Hub) -> None:
    names = [hub.share(f"catalog-{number}") for number in range(250)]
    hub.share("elsewhere", exchange="others")
    with AnalyticsHub(endpoint=hub.endpoint) as analytics_hub:
        source = ExchangeListings(analytics_hub, EXCHANGE)
        found = source.listings().listings
    assert [listing.resource for listing in found] == sorted(names)
    assert found[0] == Listing(names[0], None, "catalog-0", "us", "octogen_catalog_0", None)


def test_an_exchange_that_is_invalid_missing_or_forbidden_is_an_error(hub: Hub) -> None:
    with AnalyticsHub(endpoint=hub.endpoint) as analytics_hub:
        with pytest.raises(OctogenBigQueryInputError, match="is not the name of an exchange"):
            ExchangeListings(analytics_hub, "catalogs")
        with pytest.raises(OctogenBigQueryError, match=f"Exchange {EXCHANGE}2: .*NOT_FOUND"):
            ExchangeListings(analytics_hub, f"{EXCHANGE}2").listings()
        hub.inject(HubFault("status", "PERMISSION_DENIED", method="ListListings"))
        with pytest.raises(OctogenBigQueryError, match=r"listings\.list is missing"):
            ExchangeListings(analytics_hub, EXCHANGE).listings()


def test_the_listings_of_the_control_plane_have_the_subscribers_status(hub: Hub) -> None:
    acme, zen = hub.share("acme"), hub.share("zen", granted=False)
    with OctogenMCP(GivenToken(hub.access_token), hub.mcp_url) as octogen:
        source = ControlPlaneListings(octogen, project=PROJECT, principal=PRINCIPAL)
        assert [listing.status for listing in source.listings().listings] == [None, None]
        octogen.register("other-project", PRINCIPAL)
        assert [listing.status for listing in source.listings().listings] == [None, None]
        octogen.register(PROJECT, PRINCIPAL)
        assert source.listings().listings == [
            Listing(acme, "acme", None, "us", "octogen_acme", "awaiting_subscription"),
            Listing(zen, "zen", None, "us", "octogen_zen", "preparing"),
        ]
        some = ControlPlaneListings(
            octogen, project=PROJECT, principal=PRINCIPAL, catalogs=["zen", "other"]
        )
        found = some.listings()
        assert [listing.catalog_key for listing in found.listings] == ["zen"]
        assert found.left_out == [f"Catalog other: {NOT_GRANTED}"]


def test_a_listing_of_an_exchange_with_an_invalid_name_is_left_out() -> None:
    odd = ah.Listing(name=f"{EXCHANGE}/listings/bad id")
    good = ah.Listing(name=f"{EXCHANGE}/listings/good", display_name="Good")
    page = ah.ListListingsResponse(listings=[odd, good])
    with (
        answering(ListListings=lambda _: page) as endpoint,
        AnalyticsHub(endpoint=endpoint) as analytics_hub,
    ):
        found = ExchangeListings(analytics_hub, EXCHANGE).listings()
    assert [listing.resource for listing in found.listings] == [good.name]
    (reason,) = found.left_out
    assert reason.startswith(f"A listing of exchange {EXCHANGE}: '{odd.name}' is not the name of a")
    assert "the listing 'bad id' is invalid" in reason


def of_exchange(listing: ah.Listing, *, only_catalogs: bool = True) -> Found:
    page = ah.ListListingsResponse(listings=[listing])
    with (
        answering(ListListings=lambda _: page) as endpoint,
        AnalyticsHub(endpoint=endpoint) as analytics_hub,
    ):
        return ExchangeListings(analytics_hub, EXCHANGE, only_catalogs=only_catalogs).listings()


NAME = f"{EXCHANGE}/listings/catalog_acme_exported_product_view_v1"
COVERAGE = f"{EXCHANGE}/listings/coverage_cul_7_v1"
SOLD = ah.Listing.CommercialInfo()
TOPIC = ah.Listing.PubSubTopicSource(topic="projects/p/topics/t")
OF_PUBSUB = ah.SharedResourceType.PUBSUB_TOPIC
ASK = "To subscribe to such listings too, set only_catalogs=False."


@pytest.mark.parametrize(
    ("listing", "reason"),
    [
        (ah.Listing(name=COVERAGE), f"it is a coverage list, and no catalog. {ASK}"),
        (
            ah.Listing(name=NAME, commercial_info=SOLD),
            f"it is sold on Google Cloud Marketplace. {ASK}",
        ),
    ],
    ids=["coverage", "commercial"],
)
def test_what_is_no_catalog_is_taken_from_an_exchange_only_if_asked_for(
    listing: ah.Listing, reason: str
) -> None:
    assert of_exchange(listing) == Found([], [f"Listing {listing.name}: {reason}"])
    asked = of_exchange(listing, only_catalogs=False)
    assert ([each.resource for each in asked.listings], asked.left_out) == ([listing.name], [])


@pytest.mark.parametrize("only_catalogs", [True, False])
@pytest.mark.parametrize(
    ("listing", "reason"),
    [
        (ah.Listing(name=NAME, resource_type=OF_PUBSUB), "it shares a Pub/Sub topic, which cannot"),
        (ah.Listing(name=NAME, pubsub_topic=TOPIC), "it shares a Pub/Sub topic, which cannot"),
        (ah.Listing(name=NAME, allow_only_metadata_sharing=True), "it shares its metadata only"),
    ],
    ids=["type", "topic", "metadata"],
)
def test_what_cannot_become_a_linked_dataset_is_left_out_of_an_exchange(
    listing: ah.Listing, reason: str, only_catalogs: bool
) -> None:
    found = of_exchange(listing, only_catalogs=only_catalogs)
    assert found.listings == []
    assert found.left_out[0].startswith(f"Listing {NAME}: {reason}")


@pytest.mark.parametrize("listing_id", ["acme", "octogen_coverage_v2", "catalog_acme_v2"])
def test_a_catalog_is_taken_from_an_exchange_however_it_is_named(listing_id: str) -> None:
    dataset = ah.Listing.BigQueryDatasetSource(dataset="projects/p/datasets/d")
    listing = ah.Listing(
        name=f"{EXCHANGE}/listings/{listing_id}",
        bigquery_dataset=dataset,
        resource_type=ah.SharedResourceType.BIGQUERY_DATASET,
        log_linked_dataset_query_user_email=False,
        allow_only_metadata_sharing=False,
    )
    found = of_exchange(listing)
    assert [each.resource for each in found.listings] == [listing.name]
    assert (found.left_out, found.notes) == ([], [])


def test_a_listing_that_shows_who_queries_it_is_taken_with_a_note() -> None:
    found = of_exchange(ah.Listing(name=NAME, log_linked_dataset_query_user_email=True))
    assert [each.resource for each in found.listings] == [NAME]
    assert found.notes == [
        f"Listing {NAME} shows its publisher the e-mail address of everyone who queries its linked "
        "dataset: tell them."
    ]


@dataclass
class Octogen(OctogenMCP):
    """A control plane that shares what it is told to."""

    shared: list[SharedListing]
    cells: list[Cell] = field(default_factory=list)

    def listings(self, catalogs: object = ()) -> list[SharedListing]:
        return self.shared

    def subscribers(self) -> tuple[list[Subscriber], list[Cell]]:
        return [Subscriber("s-1", PROJECT, PRINCIPAL, "enabled")], self.cells


def test_a_catalog_whose_listing_has_no_name_is_left_out() -> None:
    octogen = Octogen(
        [
            SharedListing("none"),
            SharedListing("odd", "acme"),
            SharedListing("good", f"{EXCHANGE}/listings/good"),
        ]
    )
    found = ControlPlaneListings(octogen, project=PROJECT, principal=PRINCIPAL).listings()
    assert found.listings == [
        Listing(f"{EXCHANGE}/listings/good", "good", None, "us", "octogen_good", "")
    ]
    assert [reason[:43] for reason in found.left_out] == [
        "Catalog none: '' is not the name of a listi",
        "Catalog odd: 'acme' is not the name of a li",
    ]


@pytest.mark.parametrize(
    ("cells", "statuses"),
    [
        ([("us", "active"), ("eu", "pending")], {"us": "active", "eu": "pending"}),
        ([("eu", "pending"), ("us", "active")], {"us": "active", "eu": "pending"}),
        ([("us", "active")], {"us": "active", "eu": ""}),
        ([("us", "active"), (None, "pending")], {"us": "active", "eu": "pending"}),
    ],
)
def test_a_catalog_in_two_regions_has_a_status_for_each(
    cells: list[tuple[str | None, str]], statuses: dict[str, str | None]
) -> None:
    def listing(location: str | None) -> SharedListing:
        resource = f"{EXCHANGE}/listings/acme".replace("/us/", f"/{location}/")
        return SharedListing("acme", resource if location else None, location=location)

    octogen = Octogen(
        [listing("us"), listing("eu")],
        [cell_of("s-1", listing(location), status, None) for location, status in cells],
    )
    found = ControlPlaneListings(octogen, project=PROJECT, principal=PRINCIPAL).listings()
    assert {each.location: each.status for each in found.listings} == statuses


@pytest.mark.parametrize(
    ("status", "reason", "found"),
    [
        ("preparing", "removing", "removing"),
        ("preparing", "scope_revoked", "scope_revoked"),
        ("preparing", "needs_attention", "needs_attention"),
        (None, "catalog_not_enabled", "catalog_not_enabled"),
        ("preparing", "preparing", "preparing"),
        ("newer", None, "newer"),
        ("removing", None, "removing"),
        ("active", "removing", "active"),
        ("refresh_failed", "preparing", "refresh_failed"),
    ],
)
def test_a_reason_that_decides_is_the_status(
    status: str | None, reason: str | None, found: str
) -> None:
    resource = f"{EXCHANGE}/listings/acme"
    shared = SharedListing("acme", resource)
    octogen = Octogen([shared], [cell_of("s-1", shared, status, reason)])
    source = ControlPlaneListings(octogen, project=PROJECT, principal=PRINCIPAL)
    (listing,) = source.listings().listings
    assert listing.status == found
