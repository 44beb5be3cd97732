"""A run links a listing's dataset, waits for its grant, and deletes only what it may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
from google.cloud import bigquery_analyticshub_v1 as ah

import octogen_dagster as od
from octogen_dagster.bigquery.partitions import listing_partition_key
from tests.results import failure
from tests.results import metadata as metadata_of
from tests.servers.google import DATASET, EXCHANGE, FIELDS, LISTING, PROJECT, REVOKED, STALE, Google
from tests.servers.octogen import Octogen
from tests.servers.octogen_mcp import PRINCIPAL

AT_ONCE = dg.RetryPolicy(max_retries=2, delay=0)
LISTINGS_TOOL = "list_bigquery_listing_resources"
REFRESH = "refresh_bigquery_subscription_status"

Run = Callable[..., dg.ExecuteInProcessResult]


pytestmark = pytest.mark.usefixtures("quick_google")


@pytest.fixture
def run(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Materialize the partition of a listing, with Octogen's control plane if there is one."""

    def run(
        google: Google, octogen: Octogen | None = None, listing: str = LISTING, **arguments: Any
    ) -> dg.ExecuteInProcessResult:
        key = listing_partition_key(listing)
        instance.add_dynamic_partitions("octogen_listings", [key])
        settings: dict[str, Any] = {"grant_waits": (), "control_plane": octogen is not None}
        asset = od.build_linked_datasets_asset(**settings | arguments)
        with google.running() as endpoint, (octogen or Octogen()).running() as url:
            monkeypatch.setenv("OCTOGEN_MCP_ACCESS_TOKEN", "access-secret-0")
            return dg.materialize(
                [asset],
                partition_key=key,
                instance=instance,
                raise_on_error=False,
                resources={
                    "analytics_hub": od.AnalyticsHubResource(project=PROJECT, endpoint=endpoint),
                    "octogen_control_plane": od.OctogenControlPlaneResource(
                        principal=PRINCIPAL, url=url
                    ),
                },
            )

    return run


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    return metadata_of(result, "octogen_linked_datasets")


def retries(result: dg.ExecuteInProcessResult) -> list[float | None]:
    """The waits before further attempts."""
    return [
        event.step_retry_data.seconds_to_wait
        for event in result.all_events
        if event.is_step_up_for_retry
    ]


def test_a_listing_becomes_a_linked_dataset_once(run: Run) -> None:
    google = Google()
    result = run(google)
    assert metadata(result) == {
        "dagster/table_name": f"{PROJECT}.{DATASET}.products_current_v1",
        "octogen/linked_dataset": f"{PROJECT}.{DATASET}",
        "octogen/state": "STATE_ACTIVE",
        "octogen/location": "us",
        "octogen/listing": LISTING,
        "octogen/subscription": google.subscriptions[0].name,
        "octogen/already_subscribed": False,
        "octogen/sample_query": (
            f"```sql\nSELECT * FROM `{PROJECT}.{DATASET}.products_current_v1` LIMIT 10;\n```"
        ),
        "octogen/console": (
            f"https://console.cloud.google.com/bigquery?project={PROJECT}&p={PROJECT}"
            f"&d={DATASET}&page=dataset"
        ),
    }
    (output,) = [event for event in result.all_events if event.is_successful_output]
    assert output.step_output_data.metadata == {}  # it is in one event only
    assert metadata(run(google))["octogen/already_subscribed"] is True
    assert len(google.subscriptions) == 1


def test_what_the_listing_forbids_is_shown_if_it_may_be_read(run: Run) -> None:
    google = Google()
    key = "octogen/restricted_export_config"
    google.listings[0].restricted_export_config = ah.Listing.RestrictedExportConfig(
        enabled=True, restrict_query_result=True
    )
    assert metadata(run(google))[key] == {"enabled": True, "restrict_query_result": True}
    google.refuse("GetListing", "PERMISSION_DENIED")
    assert key not in metadata(run(google))
    google.listings[0].restricted_export_config.enabled = False
    assert key not in metadata(run(google))


def test_a_grant_that_arrives_is_waited_for(run: Run) -> None:
    google = Google(granted=False)
    on_the_way = google._subscribe

    def arrives(request: Any) -> Any:
        google.granted = google.calls.count("SubscribeListing") > 2
        return on_the_way(request)

    google._subscribe = arrives  # type: ignore[method-assign]
    result = run(google, grant_waits=(0.01, 0.02))
    assert metadata(result)["octogen/state"] == "STATE_ACTIVE"
    assert retries(result) == [0.01, 0.02]


def test_a_grant_that_does_not_arrive_ends_the_run(run: Run) -> None:
    google = Google(granted=False)
    result = run(google, grant_waits=(0.01,))
    assert "Octogen's grant has not arrived yet" in failure(result)
    assert google.calls.count("SubscribeListing") == 2
    google.granted = True
    assert run(google).success


def test_what_passes_is_retried_and_what_lasts_is_not(run: Run) -> None:
    google = Google()
    google.refuse("ListSubscriptions", "CANCELLED")
    assert retries(run(google, retry_policy=AT_ONCE)) == [0]
    google = Google()
    google.refuse("SubscribeListing", "INVALID_ARGUMENT")
    result = run(google, retry_policy=AT_ONCE)
    assert "Correct the name or the location" in failure(result)
    assert retries(result) == []


# Subscriptions that are not in force.


@pytest.mark.parametrize("taken_first", [False, True])
def test_a_revoked_subscription_is_not_reported_before_the_grant_arrives(
    taken_first: bool, run: Run
) -> None:
    google = Google(granted=False)
    google.add(state=REVOKED)
    if taken_first:  # Google may look at the destination before it looks at the grant
        google.refuse("SubscribeListing", "ALREADY_EXISTS")
    result = run(google)
    assert "Octogen's grant has not arrived yet" in failure(result)
    assert ("Nothing was changed" in failure(result)) == taken_first


def test_the_dataset_that_was_reported_is_remembered_where_google_stops_naming_it(run: Run) -> None:
    google = Google(names_the_dataset=FIELDS[1:])
    mine = {"dataset_id": lambda _: "mine"}
    assert run(google, **mine).success
    (linked,) = google.subscriptions
    linked.linked_dataset_map = {}
    linked.state = STALE
    found = metadata(run(google))
    assert (found["octogen/state"], found["octogen/linked_dataset"]) == (
        "STATE_STALE",
        f"{PROJECT}.mine",
    )
    linked.state = REVOKED
    assert f"revoked subscription {linked.name} to this listing" in failure(run(google, **mine))


# With Octogen's control plane.


def test_octogen_registers_the_subscriber_and_is_told_of_the_subscription(run: Run) -> None:
    google, octogen = Google(), Octogen()
    octogen.share("acme")
    octogen.share("zen", "preparing")
    assert metadata(run(google, octogen))["octogen/already_subscribed"] is False
    register = "register_bigquery_subscriber"
    assert octogen.asked == [LISTINGS_TOOL, "list_bigquery_subscribers", register, REFRESH]
    assert octogen.arguments[-1]["catalog_key"] == "acme"
    assert metadata(run(google, octogen))["octogen/already_subscribed"] is True
    assert octogen.asked[4:] == [LISTINGS_TOOL, "list_bigquery_subscribers"]


@pytest.mark.parametrize("key", ["acme", "acme-2"])
def test_a_run_asks_for_its_own_catalog_if_the_name_of_its_listing_tells_it(
    key: str, run: Run
) -> None:
    octogen = Octogen().register()
    octogen.share("zen")
    octogen.share(key)
    listing = f"{EXCHANGE}/listings/catalog_acme_exported_product_view_v1"
    octogen.listings[1]["listingResource"] = octogen.cells[1]["listingResource"] = listing
    assert run(Google([ah.Listing(name=listing)]), octogen, listing).success
    asked = [each for each in octogen.arguments if not each or "catalogs" in each]
    assert asked == [{"catalogs": ["acme"]}, *[{}] * (1 if key == "acme" else 2)]


def test_octogen_s_suggestion_is_used_unless_a_dataset_id_is_chosen(run: Run) -> None:
    octogen = Octogen().register()
    octogen.share("acme", linkedDatasetSuggestion="suggested", location="US")
    octogen.share("zen")
    google = Google()
    found = metadata(run(google, octogen))
    assert found["octogen/linked_dataset"] == f"{PROJECT}.suggested"
    assert found["octogen/location"] == "US"
    zen = f"{EXCHANGE}/listings/zen"
    found = metadata(run(google, octogen, zen, dataset_id=lambda _: "mine"))
    assert found["octogen/linked_dataset"] == f"{PROJECT}.mine"


def test_the_status_of_a_catalog_s_listing_in_another_region_is_not_that_of_this_one(
    run: Run,
) -> None:
    octogen = Octogen().register()
    in_eu = LISTING.replace("/us/", "/eu/")
    octogen.share("acme", "active", listingResource=in_eu)
    octogen.listings.append(octogen.listings[0] | {"listingResource": in_eu})
    assert "Octogen reports no status for this subscriber yet" in failure(run(Google(), octogen))


@pytest.mark.parametrize("status", ["preparing", None])
def test_a_pending_grant_asks_google_for_nothing_unless_the_project_is_subscribed(
    status: str | None, run: Run
) -> None:
    google, octogen = Google(), Octogen().register()
    octogen.share("acme", status)
    assert "Octogen has not granted access yet" in failure(run(google, octogen))
    assert google.calls == ["ListSubscriptions"]
    name = google.add()
    found = metadata(run(google, octogen))
    assert (found["octogen/subscription"], found["octogen/already_subscribed"]) == (name, True)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ({"status": "refresh_failed"}, "Octogen reports refresh_failed. Ask Octogen for help."),
        ({"reasonCode": "scope_revoked"}, "Octogen does not share this listing (scope_revoked)."),
        ({"status": "removing"}, "Octogen does not share this listing (removing)."),
    ],
)
def test_any_other_status_is_a_failure_that_lasts(
    cell: dict[str, str], said: str, run: Run
) -> None:
    octogen = Octogen().register()
    octogen.share("acme", **{"status": "preparing"} | cell)
    google = Google()
    result = run(google, octogen)
    assert f"Listing {LISTING}: {said}" in failure(result)
    assert (retries(result), google.calls) == ([], [])


def test_a_subscriber_that_octogen_does_not_serve_is_a_failure_that_lasts(run: Run) -> None:
    octogen = Octogen().register(desiredState="disabled")
    octogen.share("acme")
    result = run(Google(), octogen)
    assert (
        "Octogen reports the state disabled for this subscriber. Enable the subscriber."
        in failure(result)
    )
    assert retries(result) == []


def test_a_listing_that_is_not_shared_registers_nobody(run: Run) -> None:
    octogen = Octogen()
    octogen.share("zen")
    result = run(Google(), octogen)
    assert f"Octogen no longer shares listing {LISTING} with" in failure(result)
    assert octogen.asked == [LISTINGS_TOOL]


def test_a_subscription_that_octogen_does_not_look_at_counts(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    octogen = Octogen(failing={REFRESH: "internal"}).register()
    octogen.share("acme")
    assert run(Google(), octogen).success
    log = capfd.readouterr().err
    assert (
        f"Listing {LISTING}: The project is subscribed, but refreshing Octogen's status failed"
        in log
    )
