"""Ticks of the listing sensor whose source, or whose check of subscriptions, fails."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.bigquery.listing_sources import (
    ExchangeSource,
    OctogenSource,
    Source,
    StaticSource,
)
from octogen_dagster.bigquery.partitions import listing_partition_key
from octogen_dagster.bigquery.resources import AnalyticsHubResource, OctogenControlPlaneResource
from tests.bigquery.daemon import PRINCIPAL, PROJECT, Daemon, end_of_reads
from tests.servers.analytics_hub import answering, error_info, refusing

EXCHANGE = "projects/octogen/locations/us/dataExchanges/catalogs"
LISTING = f"{EXCHANGE}/listings/northpeak"
LISTED = ah.ListListingsResponse(listings=[ah.Listing(name=LISTING)])
SUBSCRIBED = ah.ListSubscriptionsResponse(
    subscriptions=[ah.Subscription(listing=LISTING, state=ah.Subscription.State.STATE_ACTIVE)]
)
NOWHERE = "127.0.0.1:1"
FAILED_TWICE = (Path(__file__).parents[1] / "golden" / "failing_listing_cursor.json").read_text()
"""The cursor after two ticks in a row that reached nothing."""


@pytest.fixture
def daemon(instance: dg.DagsterInstance) -> Daemon:
    return Daemon(instance, ExchangeSource(EXCHANGE), tick_timeout=1.0)


def connect(daemon: Daemon, endpoint: str) -> None:
    daemon.resources["analytics_hub"] = AnalyticsHubResource(project=PROJECT, endpoint=endpoint)


def skipped(daemon: Daemon) -> str:
    """The reason of a tick that is skipped."""
    result = daemon.evaluate()
    assert isinstance(result, dg.SkipReason), result
    return result.skip_message or ""


def failed(daemon: Daemon) -> str:
    """The reason of a tick that fails."""
    with pytest.raises(dg.Failure) as caught:
        daemon.evaluate()
    assert caught.value.__suppress_context__
    return str(caught.value)


@pytest.mark.parametrize(
    "code", ["PERMISSION_DENIED", "NOT_FOUND", "INVALID_ARGUMENT", "UNAUTHENTICATED"]
)
def test_a_refusal_fails_the_tick(daemon: Daemon, code: str) -> None:
    with answering(ListListings=refusing(code)) as endpoint:
        connect(daemon, endpoint)
        for _ in range(2):
            assert failed(daemon).startswith(
                f"The listings could not be read. Exchange {EXCHANGE}: Analytics Hub refused "
                f"({code}: Refused)."
            )


def test_a_disabled_api_fails_the_tick(daemon: Daemon) -> None:
    disabled = error_info("SERVICE_DISABLED", consumer="projects/7")
    with answering(ListListings=refusing("PERMISSION_DENIED", "No.", disabled)) as endpoint:
        connect(daemon, endpoint)
        assert "gcloud services enable analyticshub.googleapis.com --project 7" in failed(daemon)


@pytest.mark.parametrize("code", ["UNKNOWN", "RESOURCE_EXHAUSTED"])
def test_a_failure_that_passes_skips_each_tick(daemon: Daemon, code: str) -> None:
    with answering(ListListings=refusing(code)) as endpoint:
        connect(daemon, endpoint)
        daemon.cursor = FAILED_TWICE
        reason = skipped(daemon)
    assert reason.startswith("The listings could not be read; the next tick tries again. ")
    assert f"({code}: " in reason
    assert daemon.cursor == FAILED_TWICE.strip()


def test_a_hub_that_is_not_there_fails_the_third_tick_in_a_row(daemon: Daemon) -> None:
    connect(daemon, NOWHERE)
    assert "(UNAVAILABLE: " in skipped(daemon)
    assert '"failed_ticks":1,' in str(daemon.cursor)
    daemon.cursor = FAILED_TWICE
    text = failed(daemon)
    assert text.startswith(
        "The listings could not be read, for the third tick in a row or longer. Exchange "
    )
    assert "(UNAVAILABLE: " in text
    with answering(ListListings=lambda _: LISTED) as endpoint:
        connect(daemon, endpoint)
        assert "failed_ticks" not in str(daemon.tick(crash="before the runs").cursor)


@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        ({"gcp_credentials": "nonsense"}, "gcp_credentials are not a Google key file in base64"),
        ({}, "there are no Google credentials"),
    ],
    ids=["invalid", "missing"],
)
def test_credentials_that_cannot_be_used_fail_the_tick(
    daemon: Daemon,
    resource: dict[str, Any],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    daemon.resources["analytics_hub"] = AnalyticsHubResource(project=PROJECT, **resource)
    assert reason in failed(daemon)


def control_plane(instance: dg.DagsterInstance, url: str) -> Daemon:
    daemon = Daemon(instance, OctogenSource(), tick_timeout=1.0)
    daemon.resources["octogen_control_plane"] = OctogenControlPlaneResource(
        principal=PRINCIPAL, url=url
    )
    return daemon


def test_a_control_plane_without_a_login_fails_the_tick(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert "The listings could not be read. " in failed(control_plane(instance, "http://[::1]:1/"))


def test_a_control_plane_that_is_not_there_fails_the_third_tick_in_a_row(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTOGEN_MCP_ACCESS_TOKEN", "token")
    daemon = control_plane(instance, f"http://{NOWHERE}/mcp/")
    daemon.cursor = FAILED_TWICE
    assert "did not answer (ConnectError): check the address and the network." in failed(daemon)


@pytest.mark.parametrize("source", [ExchangeSource(EXCHANGE), OctogenSource()])
def test_an_address_that_stays_silent_fails_the_third_tick_in_a_row(
    source: Source, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTOGEN_MCP_ACCESS_TOKEN", "token")
    daemon = Daemon(instance, source, tick_timeout=0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        connect(daemon, address)
        daemon.resources["octogen_control_plane"] = OctogenControlPlaneResource(
            principal=PRINCIPAL, url=f"http://{address}/mcp/"
        )
        skipped(daemon)
        assert '"failed_ticks":1,' in str(daemon.cursor)
        daemon.cursor = FAILED_TWICE
        assert "for the third tick in a row or longer. " in failed(daemon)
        end_of_reads()


@pytest.fixture
def subscribed(instance: dg.DagsterInstance) -> Daemon:
    """A sensor whose one listing is subscribed to."""
    daemon = Daemon(instance, StaticSource([LISTING]), tick_timeout=1.0)
    key = listing_partition_key(LISTING)
    instance.add_dynamic_partitions("octogen_listings", [key])
    instance.report_runless_asset_event(dg.AssetMaterialization(daemon.asset.key, partition=key))
    return daemon


def test_a_check_that_is_refused_fails_the_tick(subscribed: Daemon) -> None:
    with answering(ListSubscriptions=refusing("PERMISSION_DENIED")) as endpoint:
        connect(subscribed, endpoint)
        text = failed(subscribed)
    assert text.startswith("The subscriptions could not be checked. The subscriptions of projects/")
    assert "roles/analyticshub.subscriptionOwner" in text


def test_a_tick_that_fails_does_not_repeat_warnings(
    subscribed: Daemon, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    instance.add_dynamic_partitions("octogen_listings", ["nonsense"])
    with answering(ListSubscriptions=refusing("PERMISSION_DENIED")) as endpoint:
        connect(subscribed, endpoint)
        for _ in range(3):
            failed(subscribed)
    assert "are no listings" not in capfd.readouterr().err
    with answering(ListSubscriptions=lambda _: SUBSCRIBED) as endpoint:
        connect(subscribed, endpoint)
        for _ in range(3):
            subscribed.tick()
    assert capfd.readouterr().err.count("are no listings") == 1


def test_a_check_without_an_answer_is_a_warning_and_fails_the_third_tick_in_a_row(
    subscribed: Daemon, capfd: pytest.CaptureFixture[str]
) -> None:
    connect(subscribed, NOWHERE)
    assert '"failed_ticks":1,' in str(subscribed.tick().cursor)
    assert "Subscriptions could not be checked, a later tick checks" in capfd.readouterr().err
    subscribed.cursor = FAILED_TWICE
    assert "could not be checked, for the third tick in a row" in failed(subscribed)
    with answering(ListSubscriptions=lambda _: SUBSCRIBED) as endpoint:
        connect(subscribed, endpoint)
        assert "failed_ticks" not in str(subscribed.tick(minutes=5).cursor)


@pytest.fixture
def endless() -> Iterator[tuple[str, itertools.count[int]]]:
    """A hub whose exchange never ends, and the number of its pages."""
    numbers = itertools.count()

    def page(_: Any) -> ah.ListListingsResponse:
        listing = ah.Listing(name=LISTING)
        return ah.ListListingsResponse(listings=[listing], next_page_token=f"{next(numbers)}")

    with answering(ListListings=page) as endpoint:
        yield endpoint, numbers


def test_a_thread_ends_with_its_tick_though_the_pages_do_not(
    instance: dg.DagsterInstance,
    endless: tuple[str, itertools.count[int]],
) -> None:
    daemon = Daemon(instance, ExchangeSource(EXCHANGE), tick_timeout=0.3)
    endpoint, numbers = endless
    connect(daemon, endpoint)
    assert "Try again later." in skipped(daemon)
    end_of_reads()
    assert next(numbers) > 0
