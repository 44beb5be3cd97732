"""A revoked subscription is deleted only by somebody who asked for it."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from octogen_dagster import (
    AnalyticsHubResource,
    build_linked_datasets_asset,
    listing_partition_key,
    subscribe_to_listing,
)
from octogen_dagster.errors import OctogenBigQueryError
from tests.components.projects import load
from tests.results import failure, metadata
from tests.sharing.google import (
    DEFAULT,
    LISTING,
    PROJECT,
    REVOKED,
    Google,
    linked,
    running,
    subscription,
)

LEFT = subscription(state=REVOKED, name="old")
REVOKED_ERROR = (
    f"Listing {LISTING}: project {PROJECT} already has a dataset {DEFAULT}, and it is left over "
    f"from subscription {LEFT.name} to this listing, which was revoked. Nothing was changed. With "
    "replace_revoked=True of build_linked_datasets_asset (replace_revoked: true in YAML), a run "
    "deletes that subscription with the dataset and the access rights set on it, and subscribes "
    "again. Or delete it yourself."
)

Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def run(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Run:
    key = listing_partition_key(LISTING)
    instance.add_dynamic_partitions("octogen_listings", [key])

    def run(google: Google, **arguments: Any) -> dg.ExecuteInProcessResult:
        with running(google, monkeypatch) as endpoint:
            return dg.materialize(
                [build_linked_datasets_asset(grant_waits=(), **arguments)],
                partition_key=key,
                instance=instance,
                resources={
                    "analytics_hub": AnalyticsHubResource(project=PROJECT, endpoint=endpoint)
                },
                raise_on_error=False,
            )

    return run


def left_over(**attributes: Any) -> Google:
    """A project that has the dataset of a revoked subscription, and may subscribe again."""
    return Google(listed=[[LEFT]], dataset=[linked()], **attributes)


def test_by_default_a_run_deletes_nothing_and_names_the_argument(run: Run) -> None:
    google = left_over()
    result = run(google)
    assert failure(result).startswith(f"dagster._core.definitions.events.Failure: {REVOKED_ERROR}")
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    assert not [call for call in google.calls if call.startswith("delete")]


def test_a_run_that_may_replace_it_deletes_it_and_subscribes_again(run: Run) -> None:
    google = left_over()
    result = run(google, replace_revoked=True)
    assert metadata(result, "octogen_linked_datasets")["octogen/replaced_subscription"] == LEFT.name
    assert "delete old" in google.calls


def test_the_function_deletes_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    google = left_over()
    with running(google, monkeypatch) as endpoint:
        monkeypatch.setenv("ANALYTICS_HUB_EMULATOR_HOST", endpoint)
        with pytest.raises(OctogenBigQueryError) as caught:
            subscribe_to_listing(listing_resource=LISTING, destination_project=PROJECT)
    assert str(caught.value) == REVOKED_ERROR
    assert not [call for call in google.calls if call.startswith("delete")]


@pytest.mark.parametrize("replace", [False, True])
def test_without_a_new_grant_the_run_is_pending_whatever_the_argument(
    replace: bool, run: Run
) -> None:
    google = left_over(permissions=())
    message = failure(run(google, replace_revoked=replace))
    assert "Octogen's grant has not arrived yet, and nothing was changed" in message
    assert not [call for call in google.calls if call.startswith("delete")]


@pytest.mark.parametrize(
    ("setting", "deletes"), [({}, False), ({"replace_revoked": True}, True)], ids=str
)
def test_in_yaml_it_must_be_asked_for_too(
    setting: dict[str, bool],
    deletes: bool,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attributes = {
        "catalogs": False,
        "linked_datasets": {"project": PROJECT, "source": {"listings": [LISTING]}, **setting},
    }
    google = left_over()
    key = listing_partition_key(LISTING)
    instance.add_dynamic_partitions("octogen_listings", [key])
    with running(google, monkeypatch) as endpoint, load(attributes) as (_, defs):
        monkeypatch.setenv("ANALYTICS_HUB_EMULATOR_HOST", endpoint)
        result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            partition_key=key, instance=instance, raise_on_error=False
        )
    assert result.success == deletes
    assert ("delete old" in google.calls) == deletes
