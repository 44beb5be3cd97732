from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.api_core.exceptions import GoogleAPICallError
from google.cloud import bigquery_analyticshub_v1 as ah
from google.longrunning import operations_pb2  # type: ignore[import-untyped]
from google.oauth2.credentials import Credentials

from octogen_dagster.errors import OctogenBigQueryError, OctogenBigQueryUnavailableError
from octogen_dagster.sharing import google_credentials
from octogen_dagster.sharing.analytics_hub import AnalyticsHub
from tests.api.servers import RawServer, hanging, http
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.hostile_hub import HubFault
from tests.sharing.hubs import answering, error_info, refusing

EXCHANGE = "projects/octogen-sandbox/locations/us/dataExchanges/catalogs"
SECRET = "google-secret-0123456789"


def names(hub: Hub, timeout: float = 30.0, deadline: float = 120.0) -> list[str]:
    with AnalyticsHub(
        endpoint=hub.endpoint, timeout=timeout, deadline=deadline, first_wait=0.001
    ) as analytics_hub:
        return [listing.name for listing in analytics_hub.listings(EXCHANGE)]


def methods(hub: Hub) -> list[tuple[str, str | None]]:
    return [(call.method, call.outcome) for call in hub.calls]


def credentials(origin: str) -> Credentials:
    """Credentials that must fetch a token from a server before they can be used."""
    return Credentials(  # type: ignore[no-untyped-call]
        None,
        refresh_token=SECRET,
        token_uri=f"{origin}/token",
        client_id="client",
        client_secret=SECRET,
    )


def test_the_environment_variable_selects_a_local_server_and_no_proxy(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.share("acme")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:1")
    for address in (hub.endpoint, f"http://{hub.endpoint}"):
        monkeypatch.setenv("ANALYTICS_HUB_EMULATOR_HOST", address)
        with AnalyticsHub() as analytics_hub:
            assert len(list(analytics_hub.listings(EXCHANGE))) == 1


@pytest.mark.parametrize(
    "code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "ABORTED"]
)
def test_transient_failures_are_retried(hub: Hub, code: str) -> None:
    hub.share("acme")
    hub.inject(HubFault("status", code, times=2))
    assert len(names(hub)) == 1
    assert methods(hub) == [("ListListings", code)] * 2 + [("ListListings", "OK")]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("PERMISSION_DENIED", "The permission analyticshub.listings.list is missing: let the pub"),
        ("NOT_FOUND", "Check the name; a listing may also have been withdrawn."),
        ("INVALID_ARGUMENT", "Correct the name or the location; a linked dataset is"),
        ("UNAUTHENTICATED", "Run `gcloud auth application-default login`"),
        ("FAILED_PRECONDITION", "Try again later, or report it to Octogen."),
    ],
)
def test_other_failures_are_explained_at_once(hub: Hub, code: str, advice: str) -> None:
    hub.share("acme")
    hub.inject(HubFault("status", code))
    with pytest.raises(OctogenBigQueryError) as caught:
        names(hub)
    assert str(caught.value).startswith(
        f"Exchange {EXCHANGE}: Analytics Hub refused ({code}: ListListings: {code} on request). "
        f"{advice}"
    )
    assert len(hub.calls) == 1


def test_a_server_that_stays_unavailable_is_an_error_after_the_deadline(hub: Hub) -> None:
    hub.inject(HubFault("status", "UNAVAILABLE"))
    with pytest.raises(
        OctogenBigQueryUnavailableError,
        match=r"did not answer in time \(UNAVAILABLE: .*\)\. Try again later",
    ):
        names(hub, deadline=0.1)
    assert len(hub.calls) > 1


def test_a_server_that_hangs_is_an_error_after_the_deadline(hub: Hub) -> None:
    hub.share("acme")
    hub.inject(HubFault("latency", 30, times=1))
    assert len(names(hub, timeout=0.3)) == 1
    hub.inject(HubFault("latency", 30))
    with pytest.raises(
        OctogenBigQueryUnavailableError, match=r"in time \(DEADLINE_EXCEEDED: .*Try again"
    ):
        names(hub, timeout=0.1, deadline=0.15)


@pytest.mark.timeout(20)
def test_a_deadline_bounds_a_single_attempt_as_well(hub: Hub) -> None:
    hub.inject(HubFault("latency", 60))
    with pytest.raises(OctogenBigQueryUnavailableError, match="DEADLINE_EXCEEDED"):
        names(hub, deadline=0.2)


def test_a_refused_connection_is_an_error() -> None:
    with (
        AnalyticsHub(endpoint="127.0.0.1:1", deadline=0.1, first_wait=0.001) as analytics_hub,
        pytest.raises(
            OctogenBigQueryUnavailableError, match=r"did not answer in time \(UNAVAILABLE"
        ),
    ):
        list(analytics_hub.listings(EXCHANGE))


def test_all_pages_are_read(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [hub.share(f"catalog-{number}") for number in range(7)]
    monkeypatch.setattr("octogen_dagster.sharing.analytics_hub._PAGE_SIZE", 3)
    hub.inject(HubFault("status", "UNAVAILABLE", times=1))
    assert names(hub) == expected
    assert [outcome for _, outcome in methods(hub)] == ["UNAVAILABLE", "OK", "OK", "OK"]


def test_pages_that_repeat_in_a_circle_are_an_error() -> None:
    def page(request: ah.ListListingsRequest) -> ah.ListListingsResponse:
        return ah.ListListingsResponse(
            listings=[ah.Listing(name="x")],
            next_page_token="b" if request.page_token == "a" else "a",
        )

    with (
        answering(ListListings=page) as endpoint,
        AnalyticsHub(endpoint=endpoint) as analytics_hub,
        pytest.raises(OctogenBigQueryError, match="the pages repeat in a circle"),
    ):
        list(analytics_hub.listings(EXCHANGE))


def test_missing_credentials_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with (
        AnalyticsHub() as analytics_hub,
        pytest.raises(
            OctogenBigQueryError, match=r"there are no Google credentials \(Your default credent"
        ) as caught,
    ):
        list(analytics_hub.listings(EXCHANGE))
    assert "`gcloud auth application-default login`" in str(caught.value)


def test_refused_credentials_are_an_error() -> None:
    refusal = {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
    with (
        RawServer(lambda _: http(400, refusal)) as server,
        AnalyticsHub(credentials(server.origin)) as analytics_hub,
        pytest.raises(OctogenBigQueryError, match=r"the Google credentials cannot be used") as e,
    ):
        list(analytics_hub.listings(EXCHANGE))
    assert re.search("Token has been expired or revoked", str(e.value))
    assert SECRET not in str(e.value)


def test_an_unreachable_token_endpoint_is_an_error() -> None:
    with (
        AnalyticsHub(credentials("http://127.0.0.1:1")) as analytics_hub,
        pytest.raises(OctogenBigQueryUnavailableError, match="Google's token endpoint did not ans"),
    ):
        list(analytics_hub.listings(EXCHANGE))


def test_a_token_endpoint_that_hangs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(google_credentials, "TOKEN_TIMEOUT", 0.1)
    with (
        RawServer(lambda _: hanging(lambda: server)) as server,
        AnalyticsHub(credentials(server.origin)) as analytics_hub,
        pytest.raises(OctogenBigQueryUnavailableError, match="Google's token endpoint did not ans"),
    ):
        list(analytics_hub.listings(EXCHANGE))


def test_without_an_endpoint_the_client_connects_to_google() -> None:
    with (
        RawServer(lambda _: http(body={"access_token": "x", "expires_in": 300})) as server,
        AnalyticsHub(credentials(server.origin)) as analytics_hub,
    ):
        assert analytics_hub._client.api_endpoint == "analyticshub.googleapis.com:443"
        assert len(server.received) == 1


def test_a_deletion_that_does_not_end_is_an_error_after_the_deadline() -> None:
    unfinished = operations_pb2.Operation(name="operations/1")
    with (
        answering(
            DeleteSubscription=lambda _: unfinished, GetOperation=lambda _: unfinished
        ) as endpoint,
        AnalyticsHub(endpoint=endpoint, deadline=0.5) as analytics_hub,
        pytest.raises(OctogenBigQueryUnavailableError) as caught,
    ):
        analytics_hub.delete("projects/p/locations/us/subscriptions/s")
    assert str(caught.value) == (
        "Subscription projects/p/locations/us/subscriptions/s: its deletion did not end within "
        "0.5 s. Try again later."
    )


def test_details_of_a_refusal_arrive_as_google_sends_them() -> None:
    detail = error_info("SERVICE_DISABLED", service="analyticshub.googleapis.com")
    with (
        answering(ListListings=refusing("PERMISSION_DENIED", "No.", detail)) as endpoint,
        AnalyticsHub(endpoint=endpoint) as analytics_hub,
        pytest.raises(GoogleAPICallError) as caught,
    ):
        analytics_hub._client.list_listings(parent=EXCHANGE)
    assert caught.value.reason == "SERVICE_DISABLED"
    assert caught.value.metadata == {"service": "analyticshub.googleapis.com"}
