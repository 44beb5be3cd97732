"""What an exchange shows, what Octogen shares and what is written down become listings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from google.cloud import bigquery_analyticshub_v1 as ah

import octogen_dagster as od
from tests.messages import Golden
from tests.servers.google import BY_NUMBER, EXCHANGE, LISTING, PROJECT, Google
from tests.servers.octogen import Octogen
from tests.servers.octogen_mcp import PRINCIPAL

Source = od.ExchangeSource | od.OctogenSource | od.StaticSource

IN_EU = LISTING.replace("/us/", "/eu/")
ASK = "To subscribe to this listing, set only_catalogs=False."


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTOGEN_MCP_ACCESS_TOKEN", "access-secret-0")


def found(source: Source, google: Google | None = None, octogen: Octogen | None = None) -> Any:
    with (google or Google()).running() as endpoint, (octogen or Octogen()).running() as url:
        resources = {
            "analytics_hub": od.AnalyticsHubResource(project=PROJECT, endpoint=endpoint),
            "octogen_control_plane": od.OctogenControlPlaneResource(principal=PRINCIPAL, url=url),
        }
        named = {key: resources[key] for key in source.resource_keys}
        return source.listings(SimpleNamespace(**named))


def statuses(source: Source, **servers: Any) -> dict[str, str | None]:
    return {str(each.name): each.status for each in found(source, **servers).listings}


def of_exchange(listing: ah.Listing, *, only_catalogs: bool = True) -> Any:
    return found(od.ExchangeSource(EXCHANGE, only_catalogs), Google([listing]))


def test_an_exchange_knows_its_listings_and_no_status() -> None:
    names = [f"{EXCHANGE}/listings/{name}" for name in ("zen", "acme", "catalog_acme_v2")]
    dataset = ah.Listing.BigQueryDatasetSource(dataset="projects/p/datasets/d")
    google = Google([ah.Listing(name=name, bigquery_dataset=dataset) for name in names])
    google.listings.append(ah.Listing(name=IN_EU))
    assert statuses(od.ExchangeSource(EXCHANGE), google=google) == dict.fromkeys(sorted(names))


@pytest.mark.parametrize(
    ("listing", "reason"),
    [
        (
            ah.Listing(name=f"{EXCHANGE}/listings/coverage_cul_7_v1"),
            f"is a coverage list, not a catalog. {ASK}",
        ),
        (
            ah.Listing(name=LISTING, commercial_info=ah.Listing.CommercialInfo()),
            f"is sold on Google Cloud Marketplace. {ASK}",
        ),
    ],
    ids=["coverage", "commercial"],
)
def test_what_is_no_catalog_is_taken_only_if_asked_for(listing: ah.Listing, reason: str) -> None:
    of_catalogs = of_exchange(listing)
    assert of_catalogs.listings == []
    assert of_catalogs.left_out == [f"Listing {listing.name} {reason}"]
    asked = of_exchange(listing, only_catalogs=False)
    assert [str(each.name) for each in asked.listings] == [listing.name]


@pytest.mark.parametrize("only_catalogs", [True, False])
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"resource_type": ah.SharedResourceType.PUBSUB_TOPIC}, "shares a Pub/Sub topic"),
        ({"pubsub_topic": ah.Listing.PubSubTopicSource(topic="t")}, "shares a Pub/Sub topic"),
        ({"allow_only_metadata_sharing": True}, "shares only metadata"),
    ],
    ids=["type", "topic", "metadata"],
)
def test_what_cannot_become_a_linked_dataset_is_left_out(
    fields: dict[str, Any], reason: str, only_catalogs: bool
) -> None:
    left = of_exchange(ah.Listing(name=LISTING, **fields), only_catalogs=only_catalogs)
    assert left.listings == []
    assert left.left_out[0].startswith(f"Listing {LISTING} {reason}")


def test_a_name_that_is_none_is_left_out_and_one_that_shows_who_queries_it_is_noted(
    golden: Golden,
) -> None:
    odd = ah.Listing(name=f"{EXCHANGE}/listings/bad id")
    google = Google([odd, ah.Listing(name=LISTING, log_linked_dataset_query_user_email=True)])
    listings = found(od.ExchangeSource(EXCHANGE), google)
    assert [str(each.name) for each in listings.listings] == [LISTING]
    golden("errors", listings.left_out[0])
    (note,) = listings.notes
    golden("logs", note)


def test_a_listing_whose_linked_dataset_must_not_be_exported_is_noted(golden: Golden) -> None:
    config = ah.Listing.RestrictedExportConfig(
        enabled=True, restrict_direct_table_access=True, restrict_query_result=True
    )
    restricted = ah.Listing(name=LISTING, restricted_export_config=config)
    (note,) = of_exchange(restricted).notes
    golden("logs", note)
    config.enabled = False
    assert of_exchange(ah.Listing(name=LISTING, restricted_export_config=config)).notes == []


def test_octogen_knows_the_status_for_its_registered_subscriber(golden: Golden) -> None:
    octogen = Octogen()
    octogen.share("acme")
    octogen.share("zen", "preparing")
    zen = f"{EXCHANGE}/listings/zen"
    assert statuses(od.OctogenSource(), octogen=octogen) == {LISTING: None, zen: None}
    octogen.register(subscriberProjectId="theirs", subscriberId="theirs")
    assert statuses(od.OctogenSource(), octogen=octogen) == {LISTING: None, zen: None}
    octogen.register()
    known = {LISTING: "awaiting_subscription", zen: "preparing"}
    assert statuses(od.OctogenSource(), octogen=octogen) == known
    some = found(od.OctogenSource(["zen", "typo"]), octogen=octogen)
    assert [str(each.name) for each in some.listings] == [zen]
    (left_out,) = some.left_out
    golden("logs", left_out)


def test_a_catalog_in_two_regions_has_a_status_for_each() -> None:
    octogen = Octogen().register()
    octogen.share("acme", "active")
    octogen.listings.append(octogen.listings[0] | {"listingResource": IN_EU})
    assert statuses(od.OctogenSource(), octogen=octogen) == {LISTING: "active", IN_EU: ""}
    octogen.cells.insert(0, {"catalogKey": "acme", "status": "pending"})  # it names no listing
    assert statuses(od.OctogenSource(), octogen=octogen) == {LISTING: "active", IN_EU: "pending"}


def test_a_catalog_whose_listing_has_no_name_is_left_out() -> None:
    octogen = Octogen().register()
    octogen.share("acme")
    for catalog, resource in (("none", None), ("number", 7), ("odd", "acme")):
        octogen.share(catalog)["listingResource"] = resource
    octogen.cells.clear()
    listings = found(od.OctogenSource(), octogen=octogen)
    assert [str(each.name) for each in listings.listings] == [LISTING]
    assert [reason[:43] for reason in listings.left_out] == [
        "Catalog none: '' is not the name of a listi",
        "Catalog number: '' is not the name of a lis",
        "Catalog odd: 'acme' is not the name of a li",
    ]


def test_what_is_written_down_is_taken_once_however_its_project_is_named() -> None:
    (listing,) = found(od.StaticSource([LISTING, BY_NUMBER, LISTING])).listings
    assert (str(listing.name), listing.status) == (LISTING, None)
