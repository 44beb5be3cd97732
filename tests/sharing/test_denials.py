"""What a refusal of Google means, as a real gRPC connection carries it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.cloud import bigquery_analyticshub_v1 as ah
from google.rpc import error_details_pb2  # type: ignore[import-untyped]

from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryError,
    OctogenBigQueryUnavailableError,
    Persistence,
)
from octogen_dagster.sharing.analytics_hub import AnalyticsHub
from tests.sharing.hubs import answering, error_info, granting, refusing

EXCHANGE = "projects/octogen/locations/us/dataExchanges/catalogs"
LISTING = f"{EXCHANGE}/listings/acme"
SUBJECT = f"Listing {LISTING} as dataset mine.octogen_acme in location us"
SUBSCRIBE = "analyticshub.listings.subscribe"
URL = (
    "https://console.developers.google.com/apis/api/analyticshub.googleapis.com/overview?project=7"
)
DISABLED = error_info(
    "SERVICE_DISABLED",
    service="analyticshub.googleapis.com",
    consumer="projects/7",
    activationUrl=URL,
)
ENABLE = (
    "API analyticshub.googleapis.com is not enabled in project 7: let an administrator run "
    f"`gcloud services enable analyticshub.googleapis.com --project 7` or open {URL}, and try "
    "again a few minutes later."
)
PERIMETER = error_details_pb2.PreconditionFailure(
    violations=[
        error_details_pb2.PreconditionFailure.Violation(
            type="VPC_SERVICE_CONTROLS", description="x-1_y"
        )
    ]
)
CROSS = (
    "A perimeter of VPC Service Controls forbids it (unique identifier x-1_y): let an "
    "administrator of the organization look it up in the VPC Service Controls troubleshooter, and "
    "allow these Google credentials to reach Analytics Hub and BigQuery across the perimeter."
)
OWNER = (
    "let an administrator of project mine grant these Google credentials "
    "roles/analyticshub.subscriptionOwner, with `gcloud projects add-iam-policy-binding mine "
    "--member=PRINCIPAL --role=roles/analyticshub.subscriptionOwner`, where PRINCIPAL is their "
    "serviceAccount:… or user:…."
)


@contextlib.contextmanager
def hub(**methods: Callable[[Any], Any]) -> Iterator[AnalyticsHub]:
    with (
        answering(**methods) as endpoint,
        AnalyticsHub(endpoint=endpoint) as analytics_hub,
    ):
        yield analytics_hub


def denied(*details: Any, message: str = "Access denied.") -> Callable[[Any], Any]:
    return refusing("PERMISSION_DENIED", message, *details)


def subscribe(analytics_hub: AnalyticsHub) -> OctogenBigQueryError:
    """Subscribe, and return the error."""
    dataset = ah.DestinationDatasetReference(project_id="mine", dataset_id="octogen_acme")
    request = ah.SubscribeListingRequest(
        name=LISTING,
        destination_dataset=ah.DestinationDataset(dataset_reference=dataset, location="us"),
    )
    with pytest.raises(OctogenBigQueryError) as caught:
        analytics_hub.subscribe(request)
    return caught.value


def test_a_denial_without_the_right_to_subscribe_is_not_yet() -> None:
    with hub(SubscribeListing=denied(), TestIamPermissions=granting()) as analytics_hub:
        error = subscribe(analytics_hub)
    assert type(error) is OctogenBigQueryAccessPendingError
    assert error.persistence is Persistence.PASSING
    assert str(error) == (
        f"{SUBJECT}: Octogen's grant has not arrived yet (PERMISSION_DENIED: Access denied). It is "
        "asynchronous: try again in a few minutes. If it stays so, check that these Google "
        "credentials are those of the registered principal."
    )


@pytest.mark.parametrize(
    ("detail", "advice"),
    [
        (
            None,
            "The permission bigquery.datasets.create is missing: let an administrator of project "
            "mine grant these Google credentials roles/bigquery.user, with `gcloud projects "
            "add-iam-policy-binding mine --member=PRINCIPAL --role=roles/bigquery.user`, where "
            "PRINCIPAL is their serviceAccount:… or user:…. A perimeter of VPC Service Controls "
            "may also forbid it. If Octogen's grant arrived only minutes ago, try again later.",
        ),
        (PERIMETER, CROSS),
        (error_info("SECURITY_POLICY_VIOLATED", uid="x-1_y"), CROSS),
        (
            error_info("IAM_PERMISSION_DENIED", permission="bigquery.datasets.create"),
            "The permission bigquery.datasets.create is missing: let an administrator of the "
            "resource grant these Google credentials a role that has it.",
        ),
    ],
    ids=["nothing named", "violation", "reason", "permission"],
)
def test_a_denial_with_the_right_to_subscribe_names_the_cause(detail: Any, advice: str) -> None:
    calls = []

    def count(request: Any) -> Any:
        calls.append(request)
        return denied(*([detail] if detail else []))(request)

    with hub(SubscribeListing=count, TestIamPermissions=granting(SUBSCRIBE)) as analytics_hub:
        error = subscribe(analytics_hub)
    assert type(error) is OctogenBigQueryError
    assert error.persistence is Persistence.PERMANENT
    assert str(error) == (
        f"{SUBJECT}: Analytics Hub refused (PERMISSION_DENIED: Access denied), although these "
        f"Google credentials have the right to subscribe to the listing. {advice}"
    )
    assert len(calls) == 1


def test_a_disabled_api_is_never_pending() -> None:
    with hub(SubscribeListing=denied(DISABLED), TestIamPermissions=granting()) as analytics_hub:
        error = subscribe(analytics_hub)
    assert type(error) is OctogenBigQueryError
    assert str(error) == (
        f"{SUBJECT}: Analytics Hub refused (PERMISSION_DENIED: Access denied). {ENABLE}"
    )


@pytest.mark.parametrize(
    ("permissions", "kind", "reason"),
    [
        (denied(DISABLED), OctogenBigQueryError, ENABLE),
        (denied(PERIMETER), OctogenBigQueryError, CROSS),
        (
            refusing("UNKNOWN", "Odd."),
            OctogenBigQueryUnavailableError,
            "Analytics Hub failed (UNKNOWN: Odd). Try again later, or report it to Octogen.",
        ),
    ],
    ids=["disabled", "perimeter", "failure"],
)
def test_a_denial_of_which_the_permissions_cannot_be_read_says_both(
    permissions: Callable[[Any], Any], kind: type[OctogenBigQueryError], reason: str
) -> None:
    with hub(SubscribeListing=denied(), TestIamPermissions=permissions) as analytics_hub:
        error = subscribe(analytics_hub)
    assert type(error) is kind
    text = str(error)
    assert text.startswith(
        f"{SUBJECT}: Analytics Hub refused (PERMISSION_DENIED: Access denied), and whether "
        f"Octogen's grant has arrived is not known. The permissions on listing {LISTING}: "
    )
    assert text.endswith(reason)


@pytest.mark.parametrize(
    ("method", "call", "subject", "advice"),
    [
        (
            "ListListings",
            lambda hub: list(hub.listings(EXCHANGE)),
            f"Exchange {EXCHANGE}",
            "The permission analyticshub.listings.list is missing: let the publisher of exchange "
            f"{EXCHANGE} grant these Google credentials roles/analyticshub.viewer on it, in the "
            "Google console under BigQuery, Sharing; gcloud cannot. For Octogen's exchange ask "
            "Octogen, or list its listings with OctogenSource, which needs no role on the "
            "exchange.",
        ),
        (
            "ListSubscriptions",
            lambda hub: list(hub.subscriptions("mine", "us")),
            "The subscriptions of projects/mine/locations/us",
            f"The permission analyticshub.subscriptions.list is missing: {OWNER}",
        ),
        (
            "DeleteSubscription",
            lambda hub: hub.delete("projects/mine/locations/us/subscriptions/s"),
            "Subscription projects/mine/locations/us/subscriptions/s",
            f"The permission analyticshub.subscriptions.delete is missing: {OWNER}",
        ),
    ],
    ids=["ListListings", "ListSubscriptions", "DeleteSubscription"],
)
@pytest.mark.parametrize(
    ("details", "cause"), [([], None), ([DISABLED], ENABLE), ([PERIMETER], CROSS)]
)
def test_a_denial_names_the_permission_the_role_and_where_to_grant_it(
    method: str,
    call: Callable[[AnalyticsHub], Any],
    subject: str,
    advice: str,
    details: list[Any],
    cause: str | None,
) -> None:
    with (
        hub(**{method: denied(*details)}) as analytics_hub,
        pytest.raises(OctogenBigQueryError) as caught,
    ):
        call(analytics_hub)
    assert str(caught.value) == (
        f"{subject}: Analytics Hub refused (PERMISSION_DENIED: Access denied). {cause or advice}"
    )
    assert caught.value.persistence is Persistence.PERMANENT


@pytest.mark.parametrize(("detail", "cause"), [(DISABLED, ENABLE), (PERIMETER, CROSS)])
def test_a_listing_that_may_not_be_seen_is_missing_unless_no_grant_would_show_it(
    detail: Any, cause: str
) -> None:
    unseen = error_info("IAM_PERMISSION_DENIED", permission="analyticshub.listings.get")
    for refusal in (denied(), denied(unseen)):
        with hub(GetListing=refusal) as analytics_hub:
            assert analytics_hub.listing(LISTING) is None
    with (
        hub(GetListing=denied(detail)) as analytics_hub,
        pytest.raises(OctogenBigQueryError) as caught,
    ):
        analytics_hub.listing(LISTING)
    assert str(caught.value).endswith(cause)


def test_the_perimeter_is_found_in_the_text_as_well() -> None:
    text = (
        "Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: x-1_y"
    )
    with (
        hub(ListListings=denied(message=text)) as analytics_hub,
        pytest.raises(OctogenBigQueryError) as caught,
    ):
        list(analytics_hub.listings(EXCHANGE))
    assert str(caught.value).endswith(CROSS)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"service": "x; rm -rf", "consumer": "projects/`id`", "activationUrl": "javascript:x"},
        {"activationUrl": "https://console.cloud.google.com.evil.example/"},
    ],
)
def test_odd_values_of_the_details_are_not_repeated(metadata: dict[str, str]) -> None:
    with (
        hub(ListListings=denied(error_info("SERVICE_DISABLED", **metadata))) as analytics_hub,
        pytest.raises(OctogenBigQueryError) as caught,
    ):
        list(analytics_hub.listings(EXCHANGE))
    assert str(caught.value).endswith(
        "API analyticshub.googleapis.com is not enabled in the project that these Google "
        "credentials call as: let an administrator run `gcloud services enable "
        "analyticshub.googleapis.com --project PROJECT`, and try again a few minutes later."
    )
