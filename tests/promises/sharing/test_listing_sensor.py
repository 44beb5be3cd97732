"""The listing sensor: what a tick requests, what it says, when it fails; and the hourly check."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pytest
from google.cloud import bigquery_analyticshub_v1 as ah

import octogen_dagster as od
from octogen_dagster.bigquery.partitions import listing_partition_key
from tests.servers.google import ACTIVE, EXCHANGE, LISTING, PROJECT, REVOKED, STALE, Google
from tests.servers.octogen import Octogen
from tests.servers.octogen_mcp import PRINCIPAL

ACME, ZEN = LISTING, f"{EXCHANGE}/listings/zen"
NOWHERE = "127.0.0.1:1"
MINUTE = 60.0
Source = od.ExchangeSource | od.OctogenSource | od.StaticSource


@pytest.fixture(autouse=True)
def _login(monkeypatch: pytest.MonkeyPatch, quick_google: None) -> None:
    monkeypatch.setenv("OCTOGEN_MCP_ACCESS_TOKEN", "access-secret-0")


@dataclass
class Ticks:
    """Ticks of a sensor, whose runs are executed at once."""

    instance: dg.DagsterInstance
    source: Source = field(default_factory=lambda: od.ExchangeSource(EXCHANGE))
    google: Google = field(default_factory=Google)
    octogen: Octogen = field(default_factory=lambda: Octogen().register())
    minutes_later: float = 0.0
    timeout: float = 300.0

    def __post_init__(self) -> None:
        with_octogen = isinstance(self.source, od.OctogenSource)
        self.asset = od.build_linked_datasets_asset(
            control_plane=with_octogen, grant_waits=(), retry_policy=None
        )

    @contextlib.contextmanager
    def resources(self, endpoint: str = "", url: str = "") -> Iterator[dict[str, Any]]:
        with self.google.running() as hub, self.octogen.running() as mcp:
            yield {
                "analytics_hub": od.AnalyticsHubResource(project=PROJECT, endpoint=endpoint or hub),
                "octogen_control_plane": od.OctogenControlPlaneResource(
                    principal=PRINCIPAL, url=url or mcp
                ),
            }

    def evaluate(self, resources: dict[str, Any]) -> dg.SensorResult | dg.SkipReason:
        sensor = od.build_listing_sensor(
            self.asset,
            self.source,
            _clock=lambda: time.time() + self.minutes_later * MINUTE,
            _tick_timeout=self.timeout,
        )
        named = {key: resources[key] for key in self.source.resource_keys}
        result = sensor(dg.build_sensor_context(instance=self.instance, resources=named))
        assert isinstance(result, dg.SensorResult | dg.SkipReason)
        return result

    def tick(self) -> dg.SensorResult:
        with self.resources() as resources:
            result = self.evaluate(resources)
            assert isinstance(result, dg.SensorResult), result
            for added in result.dynamic_partitions_requests or ():
                self.instance.add_dynamic_partitions(
                    added.partitions_def_name, added.partition_keys
                )
            for request in result.run_requests or ():
                job = dg.Definitions([self.asset], resources=resources)
                job.resolve_implicit_global_asset_job_def().execute_in_process(
                    partition_key=request.partition_key,
                    asset_selection=request.asset_selection,
                    instance=self.instance,
                    tags={**request.tags, "dagster/run_key": str(request.run_key)},
                    raise_on_error=False,
                )
        return result

    def requested(self) -> list[str]:
        """The ids of the listings that a tick requests."""
        runs = self.tick().run_requests or ()
        return [(run.partition_key or "").rpartition(":")[2] for run in runs]

    def skipped(self, **addresses: str) -> str:
        with self.resources(**addresses) as resources:
            result = self.evaluate(resources)
        assert isinstance(result, dg.SkipReason), result
        return result.skip_message or ""

    def failed(self, **addresses: str) -> str:
        with self.resources(**addresses) as resources, pytest.raises(dg.Failure) as caught:
            self.evaluate(resources)
        assert caught.value.__suppress_context__
        return str(caught.value)

    def check(self, source: Source | None = None) -> tuple[bool, dict[str, Any]]:
        (checks,) = od.build_linked_datasets_checks(self.asset, source)
        with self.resources() as resources:
            result = dg.materialize(
                [checks],
                instance=self.instance,
                selection=dg.AssetSelection.checks(checks),
                resources=resources,
            )
        (evaluation,) = result.get_asset_check_evaluations()
        assert evaluation.severity is dg.AssetCheckSeverity.WARN
        return evaluation.passed, {name: entry.value for name, entry in evaluation.metadata.items()}


@pytest.fixture
def ticks(instance: dg.DagsterInstance) -> Ticks:
    return Ticks(instance)


def test_each_listing_is_subscribed_to_once(ticks: Ticks) -> None:
    ticks.google.listings.append(ah.Listing(name=ZEN))
    assert [run.asset_check_keys for run in ticks.tick().run_requests or ()] == [[], []]
    result = ticks.tick()
    assert not result.run_requests
    assert result.skip_reason == dg.SkipReason("None of 2 listings is due.")
    assert not result.dynamic_partitions_requests
    assert len(ticks.google.requests) == 2


@pytest.mark.slow
@pytest.mark.parametrize("status", ["pending", "melted"])
def test_a_listing_that_is_not_granted_yet_is_requested_once_and_at_once_when_it_is(
    instance: dg.DagsterInstance, status: str
) -> None:
    ticks = Ticks(
        instance, od.OctogenSource(), octogen=Octogen()
    )  # the run registers the subscriber
    ticks.octogen.share("acme", status)
    assert ticks.requested() == ["acme"]
    ticks.minutes_later = 20 * 60
    assert ticks.requested() == []
    ticks.octogen.cells[0]["status"] = "awaiting_subscription"
    assert ticks.requested() == ["acme"]
    assert len(ticks.google.requests) == 1
    assert ticks.requested() == []


def test_a_listing_whose_partition_was_deleted_is_subscribed_to_again(ticks: Ticks) -> None:
    assert ticks.requested() == ["acme"]
    ticks.instance.delete_dynamic_partition("octogen_listings", listing_partition_key(ACME))
    requested = []
    for ticks.minutes_later in (1, 5, 600, 601):
        requested.append(ticks.requested())
    assert requested == [[], [], ["acme"], []]


@pytest.mark.parametrize(
    ("status", "reason", "due"),
    [
        ("scope_revoked", None, False),
        ("preparing", "scope_revoked", False),
        ("refresh_failed", None, True),
        ("preparing", "needs_attention", True),
        ("active", "removing", True),
    ],
)
def test_what_octogen_withdrew_is_not_requested(
    instance: dg.DagsterInstance, status: str, reason: str | None, due: bool
) -> None:
    ticks = Ticks(instance, od.OctogenSource())
    ticks.octogen.share("acme", status, reasonCode=reason)
    assert ticks.requested() == (["acme"] if due else [])


def test_of_the_subscriptions_only_a_revoked_one_is_requested_again(ticks: Ticks) -> None:
    ticks.tick()
    others: list[list[Any]] = [[REVOKED, ACTIVE], [STALE], [], [17]]
    for ticks.minutes_later, states in zip((20, 600, 1200, 1800), others, strict=True):
        del ticks.google.subscriptions[:]
        for number, state in enumerate(states):
            ticks.google.add(state=state, name=f"s-{number}")
        assert ticks.requested() == [], states
    ticks.google.subscriptions[0].state = REVOKED
    for ticks.minutes_later in (2400, 3000):
        assert ticks.requested() == ["acme"], "its run fails until somebody deletes it"


def test_a_listing_whose_run_is_not_finished_is_not_requested_again(
    ticks: Ticks, instance: dg.DagsterInstance
) -> None:
    key = listing_partition_key(ACME)
    job = dg.Definitions(
        assets=[ticks.asset],
        resources={"analytics_hub": od.AnalyticsHubResource(project=PROJECT, endpoint=NOWHERE)},
    ).resolve_implicit_global_asset_job_def()
    run = instance.create_run_for_job(
        job,
        tags={"dagster/partition": key},
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset([ticks.asset.key]),
    )
    assert ticks.requested() == []
    instance.delete_run(run.run_id)
    assert ticks.requested() == ["acme"]


def test_a_sensor_of_the_same_name_and_another_asset_changes_nothing(
    ticks: Ticks, instance: dg.DagsterInstance
) -> None:
    ticks.google.granted = False
    assert ticks.requested() == ["acme"]
    other = Ticks(instance)
    other.asset = od.build_linked_datasets_asset("others")
    assert other.requested() == ["acme"]
    assert other.requested() == []


def test_partitions_that_are_no_listings_are_named_in_the_log(
    ticks: Ticks, capfd: pytest.CaptureFixture[str]
) -> None:
    ticks.instance.add_dynamic_partitions(
        "octogen_listings", ["acme", "a:b:c", "p:us:e:", "", "p:u s:e:l"]
    )
    assert ticks.requested() == ["acme"]
    log = capfd.readouterr().err
    assert "Skipped: 5 partitions in 'octogen_listings' that are not listings" in log
    assert ticks.check()[0]


def test_what_is_left_out_is_in_the_log_in_a_few_lines(
    ticks: Ticks, capfd: pytest.CaptureFixture[str]
) -> None:
    ticks.google.listings += [
        ah.Listing(name=f"{EXCHANGE}/listings/coverage_{number:02}") for number in range(20)
    ]
    assert ticks.requested() == ["acme"]
    logged = capfd.readouterr().err
    assert logged.count("Skipped: Listing ") == 10
    assert "10 more messages about listings were omitted." in logged


def test_a_refusal_fails_the_tick(ticks: Ticks) -> None:
    for code in ("PERMISSION_DENIED", "NOT_FOUND", "INVALID_ARGUMENT", "UNAUTHENTICATED"):
        ticks.google.refuse("ListListings", code, text="Refused")
        assert ticks.failed().startswith(
            f"The listings could not be read. Exchange {EXCHANGE}: Analytics Hub rejected "
            f"the request ({code}: Refused)."
        )


def test_a_refused_list_of_subscriptions_fails_the_tick_and_names_the_role(ticks: Ticks) -> None:
    ticks.tick()
    ticks.google.refuse("ListSubscriptions", "PERMISSION_DENIED")
    text = ticks.failed()
    assert text.startswith("The listings could not be read. The subscriptions of projects/")
    assert "roles/analyticshub.subscriptionOwner" in text


def test_an_overload_skips_the_tick(ticks: Ticks) -> None:
    ticks.timeout = 1.0
    ticks.google.refuse("ListListings", "RESOURCE_EXHAUSTED", times=10_000)
    reason = ticks.skipped()
    assert reason.startswith("The listings could not be read; the next tick tries again. ")


@pytest.mark.parametrize("source", [od.ExchangeSource(EXCHANGE), od.OctogenSource()])
def test_an_address_that_does_not_answer_may_fail_the_third_tick_in_a_row(
    instance: dg.DagsterInstance, source: Source
) -> None:
    ticks = Ticks(instance, source, timeout=0.5)
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        for place in (NOWHERE, address):
            reason = ticks.skipped(endpoint=place, url=f"http://{place}/mcp/")
            assert ", and the third tick in a row without a response fails. " in reason
    for thread in set(threading.enumerate()) - before:
        if thread.name == "octogen-listings":  # it ends by itself
            thread.join(60)
            assert not thread.is_alive()


def test_the_sensor_has_the_name_the_interval_and_the_other_arguments_it_is_given() -> None:
    sensor = od.build_listing_sensor(
        od.build_linked_datasets_asset(),
        od.OctogenSource(),
        name="shops",
        minimum_interval_seconds=60,
        tags={"team": "data"},
    )
    assert (sensor.name, sensor.minimum_interval_seconds) == ("shops", 60)
    assert sensor.tags["team"] == "data"
    assert sensor.required_resource_keys == {"analytics_hub", "octogen_control_plane"}
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED


@pytest.mark.slow
def test_a_revoked_subscription_that_you_delete_is_back_when_its_partition_is_materialized(
    ticks: Ticks,
) -> None:
    ticks.asset = od.build_linked_datasets_asset(grant_waits=(), retry_policy=None)
    assert ticks.requested() == ["acme"]
    ticks.google.subscriptions[0].state = REVOKED
    ticks.minutes_later = 20
    assert ticks.requested() == ["acme"]
    assert ticks.google.subscriptions[0].state == REVOKED
    ticks.google.subscriptions.clear()
    ticks.google.datasets.clear()
    ticks.minutes_later = 6000
    assert ticks.requested() == []  # it may have been deleted for good
    with ticks.resources() as resources:
        key = listing_partition_key(ACME)
        dg.materialize(
            [ticks.asset], partition_key=key, instance=ticks.instance, resources=resources
        )
    assert ticks.check()[0]


def test_the_check_names_each_subscription_that_is_not_in_order(ticks: Ticks) -> None:
    assert ticks.check() == (True, {"octogen/subscriptions": 0, "octogen/lapsed": 0})
    ticks.tick()
    lapses: dict[Any, str | None] = {ACTIVE: None, 17: None, STALE: "stale", REVOKED: "revoked"}
    for state, lapse in [*lapses.items(), (None, "missing")]:
        del ticks.google.subscriptions[:]
        if state is not None:
            ticks.google.add(state=state)
        passed, metadata = ticks.check()
        assert passed is (lapse is None)
        sample = {listing_partition_key(ACME): lapse} if lapse else None
        assert metadata.get("octogen/sample") == sample


def test_a_partition_that_is_no_listing_fails_the_check_once(ticks: Ticks) -> None:
    ticks.instance.add_dynamic_partitions("octogen_listings", ["odd"])
    ticks.instance.report_runless_asset_event(
        dg.AssetMaterialization(ticks.asset.key, partition="odd")
    )
    with pytest.raises(dg.Failure, match="Partition 'odd' is not a listing") as caught:
        ticks.check()
    assert caught.value.allow_retries is False


@pytest.mark.slow
def test_with_the_source_the_check_knows_what_is_no_longer_listed_or_granted(
    instance: dg.DagsterInstance,
) -> None:
    ticks = Ticks(instance, od.OctogenSource())
    for catalog in ("acme", "zen"):
        ticks.octogen.share(catalog)
    ticks.tick()
    assert ticks.check(ticks.source)[0]
    ticks.octogen.cells[0]["status"] = "scope_revoked"
    del ticks.octogen.listings[1:]
    _, metadata = ticks.check(ticks.source)
    assert metadata["octogen/sample"] == {
        listing_partition_key(ACME): "scope_revoked",
        listing_partition_key(ZEN): "no longer listed",
    }
    assert ticks.check()[0]
