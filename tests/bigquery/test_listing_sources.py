"""The sources that a user gives the listing sensor."""

from types import SimpleNamespace

import pytest

from octogen_dagster.bigquery.listing_sources import (
    ExchangeSource,
    OctogenSource,
    Source,
    StaticSource,
)
from octogen_dagster.bigquery.resources import AnalyticsHubResource, OctogenControlPlaneResource
from octogen_dagster.errors import OctogenBigQueryInputError
from tests.bigquery.daemon import PRINCIPAL, PROJECT
from tests.sharing.hostile_hub import HostileHub as Hub

ANALYTICS_HUB = "analytics_hub"
CONTROL_PLANE = "octogen_control_plane"


def found(source: Source) -> dict[str, str | None]:
    """The status of each listing by resource name, read with the resources the source names."""
    resources = {
        ANALYTICS_HUB: AnalyticsHubResource(project=PROJECT),
        CONTROL_PLANE: OctogenControlPlaneResource(principal=PRINCIPAL),
    }
    named = SimpleNamespace(**{key: resources[key] for key in source.resource_keys})
    return {listing.resource: listing.status for listing in source.listings(named).listings}


def test_an_exchange_source_reads_the_exchange_and_knows_no_status(hub: Hub) -> None:
    resources = [hub.share("northpeak"), hub.share("strada")]
    coverage = hub.share("list", listing_id="coverage_cul_1_v1")
    source = ExchangeSource(hub.exchange)
    assert set(source.resource_keys) == {ANALYTICS_HUB}
    assert found(source) == dict.fromkeys(resources)
    assert coverage in found(ExchangeSource(hub.exchange, only_catalogs=False))


def test_an_octogen_source_reads_octogen_s_listings_and_their_status(hub: Hub) -> None:
    northpeak, strada = hub.share("northpeak"), hub.share("strada")
    with OctogenControlPlaneResource(principal=PRINCIPAL).control_plane() as control_plane:
        control_plane.register(PROJECT, PRINCIPAL)
    source = OctogenSource()
    assert set(source.resource_keys) == {ANALYTICS_HUB, CONTROL_PLANE}
    statuses = found(source)
    assert statuses.keys() == {northpeak, strada}
    assert None not in statuses.values()
    assert found(OctogenSource(catalogs=["strada"])).keys() == {strada}


def test_a_static_source_has_the_listings_it_is_given() -> None:
    resource = "projects/octogen/locations/us/dataExchanges/e/listings/a"
    source = StaticSource([resource, resource])
    assert set(source.resource_keys) == {ANALYTICS_HUB}
    assert found(source) == {resource: None}


def test_a_static_source_refuses_what_is_no_listing() -> None:
    with pytest.raises(OctogenBigQueryInputError, match="'northpeak' is not the name of a listing"):
        StaticSource(["northpeak"])
