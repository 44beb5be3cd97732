"""Listings become linked datasets through Dagster, against the sandbox's Analytics Hub and MCP."""

import functools
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import pytest
from pydantic import SecretStr

from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.bigquery.linked_datasets import build_linked_datasets_asset
from octogen_dagster.bigquery.partitions import listing_of, listing_partition_key
from octogen_dagster.bigquery.resources import AnalyticsHubResource, OctogenControlPlaneResource
from octogen_dagster.control_plane import tokens
from octogen_dagster.control_plane.tokens import SecretFile
from octogen_dagster.control_plane.tools import OctogenMCP
from octogen_dagster.errors import OctogenBigQueryInputError
from octogen_dagster.sharing.resource_names import ListingName
from tests import results
from tests.results import failure
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.hostile_hub import HubFault

metadata = functools.partial(results.metadata, node="octogen_linked_datasets")

PROJECT = "my-project"
PRINCIPAL = "serviceAccount:reader@my-project.iam.gserviceaccount.com"


@pytest.fixture
def run(hub: Hub, instance: dg.DagsterInstance) -> Any:
    def materialize(resource: str, **asset: Any) -> dg.ExecuteInProcessResult:
        key = listing_partition_key(resource)
        instance.add_dynamic_partitions("octogen_listings", [key])
        return dg.materialize(
            [build_linked_datasets_asset(**{"grant_waits": (0.01, 0.01), **asset})],
            partition_key=key,
            instance=instance,
            raise_on_error=False,
            resources={
                "analytics_hub": AnalyticsHubResource(project=PROJECT),
                "octogen_control_plane": OctogenControlPlaneResource(principal=PRINCIPAL),
            },
        )

    return materialize


def subscribe_calls(hub: Hub) -> list[str | None]:
    return [call.outcome for call in hub.calls if call.method == "SubscribeListing"]


def test_a_listing_becomes_a_linked_dataset(hub: Hub, run: Any) -> None:
    resource = hub.share("northpeak")
    found = metadata(run(resource))
    assert found["dagster/table_name"] == "my-project.octogen_northpeak.products_current_v1"
    assert found["octogen/linked_dataset"] == "my-project.octogen_northpeak"
    assert found["octogen/state"] == "STATE_ACTIVE"
    assert found["octogen/location"] == "us"
    assert found["octogen/listing"] == resource
    assert found["octogen/subscription"] == hub.subscriptions[0].name
    assert found["octogen/already_subscribed"] is False
    assert found["octogen/sample_query"] == (
        "```sql\nSELECT * FROM `my-project.octogen_northpeak.products_current_v1` LIMIT 10;\n```"
    )
    assert found["octogen/console"] == (
        "https://console.cloud.google.com/bigquery?project=my-project&p=my-project"
        "&d=octogen_northpeak&page=dataset"
    )

    assert metadata(run(resource))["octogen/already_subscribed"] is True
    assert len(hub.subscriptions) == 1


def test_the_metadata_is_in_one_event(hub: Hub, run: Any) -> None:
    result = run(hub.share("northpeak"))
    (output,) = [event for event in result.all_events if event.is_successful_output]
    assert output.step_output_data.metadata == {}


def test_the_dataset_id_can_be_chosen(hub: Hub, run: Any) -> None:
    resource = hub.share("northpeak")
    found = metadata(run(resource, dataset_id=lambda listing: f"o_{listing.rpartition('/')[2]}"))
    assert found["dagster/table_name"] == "my-project.o_northpeak.products_current_v1"


def test_a_grant_that_arrives_is_waited_for(hub: Hub, run: Any) -> None:
    resource = hub.share("northpeak")
    hub.inject(HubFault("denied", times=2))
    result = run(resource, grant_waits=(0.01, 0.02))
    assert metadata(result)["octogen/state"] == "STATE_ACTIVE"
    waits = [
        event.step_retry_data.seconds_to_wait
        for event in result.all_events
        if event.is_step_up_for_retry
    ]
    assert waits == [0.01, 0.02]


def test_a_grant_that_does_not_arrive_ends_the_run_as_pending(hub: Hub, run: Any) -> None:
    result = run(hub.share("northpeak", granted=False))
    assert not result.success
    assert "Octogen's grant has not arrived yet" in failure(result)
    assert subscribe_calls(hub) == ["PERMISSION_DENIED"] * 3

    hub.grant_access("northpeak")
    assert run(hub.listing_resource("northpeak")).success


def test_a_permanent_error_of_analytics_hub_is_not_retried(hub: Hub, run: Any) -> None:
    hub.add_dataset(PROJECT, "octogen_northpeak")
    result = run(hub.share("northpeak"))
    assert "already has a dataset octogen_northpeak" in failure(result)
    assert not [event for event in result.all_events if event.is_step_up_for_retry]


def revoked_and_granted(hub: Hub, run: Any) -> str:
    """A listing that was subscribed to and revoked, and may be subscribed to again."""
    resource = hub.share("northpeak")
    assert run(resource).success
    hub.revoke_access("northpeak")
    hub.grant_access("northpeak")
    return resource


@pytest.mark.parametrize("control_plane", [False, True])
@pytest.mark.parametrize("place", ["both", "linked_dataset_map"])
def test_the_leftover_of_a_revoked_subscription_is_replaced(
    hub: Hub, run: Any, capfd: pytest.CaptureFixture[str], place: Any, control_plane: bool
) -> None:
    hub.settings.linked_dataset_in = place
    resource = revoked_and_granted(hub, run)
    (left,) = hub.subscriptions
    found = metadata(run(resource, control_plane=control_plane, replace_revoked=True))
    assert found["octogen/replaced_subscription"] == left.name
    assert found["octogen/already_subscribed"] is False
    assert [entry.name for entry in hub.subscriptions] == [found["octogen/subscription"]]
    assert (
        f"Subscription {left.name} was revoked and holds the dataset id: it is deleted now, and "
        "its linked dataset my-project.octogen_northpeak with the access rights set on it."
    ) in capfd.readouterr().err

    assert "octogen/replaced_subscription" not in metadata(run(resource))


def test_a_revoked_subscription_that_was_never_reported_is_kept(
    hub: Hub, run: Any, instance: dg.DagsterInstance
) -> None:
    hub.settings.linked_dataset_in = "linked_dataset_map"
    resource = revoked_and_granted(hub, run)
    before = hub.subscriptions
    instance.wipe_assets([dg.AssetKey("octogen_linked_datasets")])
    assert "which does not say its dataset" in failure(run(resource, replace_revoked=True))
    assert hub.subscriptions == before


def test_the_dataset_of_a_stale_subscription_is_the_one_that_was_reported(
    hub: Hub, run: Any
) -> None:
    hub.settings.linked_dataset_in = "linked_dataset_map"
    resource = hub.share("northpeak")
    run(resource, dataset_id=lambda _: "mine")
    hub.make_stale("northpeak")
    found = metadata(run(resource))
    assert (found["octogen/state"], found["octogen/linked_dataset"]) == (
        "STATE_STALE",
        "my-project.mine",
    )


AT_ONCE = dg.RetryPolicy(max_retries=2, delay=0)


@pytest.fixture
def _one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OctogenControlPlaneResource, "retry", RetryPolicy(attempts=1))


@pytest.mark.usefixtures("_one_try")
@pytest.mark.parametrize(
    "fault",
    [
        HubFault("http_status", 503, method="list_bigquery_listing_resources", times=1),
        HubFault("rate_limit", 60, method="list_bigquery_listing_resources", times=1),
        HubFault("lost_response", method="list_bigquery_listing_resources", times=1),
    ],
    ids=lambda fault: fault.kind,
)
def test_a_transient_failure_of_octogen_is_retried(hub: Hub, run: Any, fault: HubFault) -> None:
    resource = hub.share("northpeak")
    hub.inject(fault)
    result = run(resource, control_plane=True, retry_policy=AT_ONCE)
    assert metadata(result)["octogen/state"] == "STATE_ACTIVE"
    assert len([event for event in result.all_events if event.is_step_restarted]) == 1


def test_a_timeout_of_analytics_hub_is_retried(
    hub: Hub, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = hub.share("northpeak")
    monkeypatch.setattr(AnalyticsHubResource.hub, "__defaults__", (1.0,))  # its deadline
    hub.inject(HubFault("latency", 2.0, method="ListSubscriptions", times=1))
    result = run(resource, retry_policy=AT_ONCE)
    assert metadata(result)["octogen/state"] == "STATE_ACTIVE"
    assert len([event for event in result.all_events if event.is_step_restarted]) == 1


@pytest.mark.usefixtures("_one_try")
def test_a_locked_token_file_is_retried(
    hub: Hub, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = SecretFile(tmp_path / "refresh", "refresh token")
    file.write(SecretStr(hub.refresh_token))
    monkeypatch.setenv("OCTOGEN_MCP_REFRESH_TOKEN_FILE", str(file.path))
    monkeypatch.setattr(tokens, "_LOCK_TIMEOUT", 0.02)
    resource = hub.share("northpeak")
    with file.locked():
        result = run(resource, control_plane=True, retry_policy=AT_ONCE)
    assert failure(result).startswith("Exceeded max_retries of 2")
    tries = [
        event.step_retry_data.error for event in result.all_events if event.is_step_up_for_retry
    ]
    assert ["for 0.02 s; try again later" in str(error) for error in tries] == [True, True]


@pytest.mark.usefixtures("_one_try")
@pytest.mark.parametrize(
    "fault",
    [
        HubFault("tool_error", "internal", method="list_bigquery_subscribers"),
        HubFault("http_status", 404, method="list_bigquery_subscribers"),
        HubFault("status", "INVALID_ARGUMENT", method="SubscribeListing"),
    ],
    ids=lambda fault: fault.kind,
)
def test_a_permanent_failure_of_octogen_is_not_retried(hub: Hub, run: Any, fault: HubFault) -> None:
    resource = hub.share("northpeak")
    hub.inject(fault)
    result = run(resource, control_plane=True, retry_policy=AT_ONCE)
    assert not result.success
    assert not [event for event in result.all_events if event.is_step_up_for_retry]


def test_a_listing_that_was_removed_is_a_failure(hub: Hub, run: Any) -> None:
    resource = hub.share("northpeak")
    hub.remove_listing("northpeak")
    assert "NOT_FOUND" in failure(run(resource))
    assert "Octogen does not share it with your organisation now" in failure(
        run(resource, control_plane=True)
    )


def test_octogen_is_told_of_the_subscription(hub: Hub, run: Any) -> None:
    resource = hub.share("northpeak")
    hub.inject(HubFault("cell", {"status": "preparing", "reasonCode": "preparing"}, times=1))
    hub.share("strada")
    found = metadata(run(resource, control_plane=True))
    assert found["octogen/already_subscribed"] is False
    tools = [call.method for call in hub.calls if call.surface == "mcp"]
    assert tools.count("register_bigquery_subscriber") == 1
    assert "refresh_bigquery_subscription_status" in tools
    assert [entry.catalog for entry in hub.subscriptions] == ["northpeak"]

    assert metadata(run(resource, control_plane=True))["octogen/already_subscribed"] is True


def test_a_status_of_pending_sends_no_request_to_google(hub: Hub, run: Any) -> None:
    result = run(hub.share("northpeak", granted=False), control_plane=True)
    assert "Octogen has not granted access yet" in failure(result)
    assert subscribe_calls(hub) == []


def test_a_subscription_that_octogen_does_not_confirm_is_reported(
    hub: Hub, run: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    resource = hub.share("northpeak")
    tool = "refresh_bigquery_subscription_status"
    hub.inject(HubFault("tool_error", "internal", method=tool))
    assert metadata(run(resource, control_plane=True))["octogen/state"] == "STATE_ACTIVE"
    assert (
        f"Listing {resource}: It is subscribed, but Octogen did not look again: Octogen's MCP tool"
    ) in capfd.readouterr().err


def test_an_existing_subscription_is_reported_although_octogen_says_pending(
    hub: Hub, run: Any
) -> None:
    resource = hub.share("northpeak")
    there = metadata(run(resource))["octogen/subscription"]
    hub.inject(HubFault("cell", {"status": "pending"}))
    found = metadata(run(resource, control_plane=True))
    assert (found["octogen/subscription"], found["octogen/already_subscribed"]) == (there, True)


def test_octogens_suggestion_is_used_unless_a_dataset_id_is_chosen(hub: Hub, run: Any) -> None:
    hub.inject(HubFault("cell", {"linkedDatasetSuggestion": "suggested", "location": "US"}))
    found = metadata(run(hub.share("northpeak"), control_plane=True))
    assert found["octogen/linked_dataset"] == "my-project.suggested"
    assert found["octogen/location"] == "US"
    found = metadata(run(hub.share("strada"), control_plane=True, dataset_id=lambda _: "mine"))
    assert found["octogen/linked_dataset"] == "my-project.mine"
    assert found["octogen/location"] == "US"
    assert [entry.friendly_name for entry in hub.subscriptions] == [
        "Octogen suggested",
        "Octogen mine",
    ]


@pytest.mark.parametrize("other", ["active", "pending", "awaiting_subscription"])
def test_of_two_cells_of_a_catalog_the_one_of_the_listing_is_used(
    hub: Hub, run: Any, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    resource = hub.share("northpeak")
    subscribers = OctogenMCP.subscribers
    elsewhere = resource.replace("/catalogs/", "/another/")

    def with_another(self: OctogenMCP) -> Any:
        found, cells = subscribers(self)
        twins = [
            msgspec.structs.replace(cell, status=other, listing_resource=elsewhere)
            for cell in cells
        ]
        return found, twins + cells

    with OctogenControlPlaneResource(principal=PRINCIPAL).control_plane() as control_plane:
        control_plane.register(PROJECT, PRINCIPAL)
    monkeypatch.setattr(OctogenMCP, "subscribers", with_another)  # the sandbox has one for each
    found = metadata(run(resource, control_plane=True))
    assert (found["octogen/listing"], found["octogen/already_subscribed"]) == (resource, False)
    assert subscribe_calls(hub) == ["OK"]


def test_a_disabled_subscriber_is_a_failure_without_retries(hub: Hub, run: Any) -> None:
    resource = hub.share("northpeak")
    with OctogenControlPlaneResource(principal=PRINCIPAL).control_plane() as control_plane:
        control_plane.register(PROJECT, PRINCIPAL)
    hub.inject(HubFault("subscriber", {"desiredState": "disabled"}))
    result = run(resource, control_plane=True)
    assert "The subscriber is disabled at Octogen: enable it there." in failure(result)
    assert not [event for event in result.all_events if event.is_step_up_for_retry]


def test_partition_keys_turn_back_into_listings() -> None:
    for resource in (
        "projects/octogen/locations/us/dataExchanges/catalogs/listings/acme",
        "projects/example.com:octogen/locations/eu/dataExchanges/c_1/listings/a-b",
    ):
        assert listing_of(listing_partition_key(resource)) == resource
    assert listing_partition_key(resource) == "example.com:octogen:eu:c_1:a-b"


@pytest.mark.parametrize("key", ["", "acme", "a:b:c", "::::", "a:b:c:", "p/x:us:e:l"])
def test_a_partition_key_of_no_listing_is_an_error(key: str) -> None:
    with pytest.raises(OctogenBigQueryInputError, match=r"is not a listing: it has the form"):
        listing_of(key)


def test_listings_with_the_same_id_get_datasets_whose_ids_do_not_depend_on_their_order(
    hub: Hub, instance: dg.DagsterInstance, run: Any
) -> None:
    listings = [
        hub.share("northpeak", listing_id="acme"),
        hub.share("strada", project="other-publisher", listing_id="acme"),
    ]
    instance.add_dynamic_partitions("octogen_listings", [*map(listing_partition_key, listings)])
    datasets = [ListingName.parse(each).distinct_dataset_id("octogen_acme") for each in listings]
    found = [metadata(run(listing))["octogen/linked_dataset"] for listing in listings]
    assert found == [f"{PROJECT}.{dataset}" for dataset in datasets]


def test_a_dataset_keeps_its_id_when_a_listing_with_the_same_one_appears(
    hub: Hub, run: Any
) -> None:
    first = hub.share("northpeak", listing_id="acme")
    second = hub.share("strada", project="other-publisher", listing_id="acme")
    run(first)
    hub.revoke_access("northpeak")
    run(second)
    hub.grant_access("northpeak")
    found = metadata(run(first, replace_revoked=True))
    assert found["octogen/linked_dataset"] == f"{PROJECT}.octogen_acme"
    assert found["octogen/already_subscribed"] is False
