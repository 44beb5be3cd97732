"""A denial of Google says whose fault it is: which role is missing, where, and who can grant it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from google.rpc import error_details_pb2  # type: ignore[import-untyped]

import octogen_dagster as od
from octogen_dagster import errors
from octogen_dagster.cli.main import main
from tests.messages import Golden
from tests.servers.analytics_hub import error_info
from tests.servers.google import EXCHANGE, LISTING, PROJECT, Google

DISABLED = error_info(
    "SERVICE_DISABLED", service="analyticshub.googleapis.com", consumer="projects/7"
)
PERIMETER = error_info("SECURITY_POLICY_VIOLATED", uid="x-1_y")

Call = Callable[[str], object]


def subscribe(endpoint: str) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANALYTICS_HUB_EMULATOR_HOST", endpoint)
        return od.subscribe_to_listing(listing_resource=LISTING, destination_project=PROJECT)


def list_exchange(endpoint: str) -> object:
    hub = od.AnalyticsHubResource(project=PROJECT, endpoint=endpoint)
    return od.ExchangeSource(EXCHANGE).listings(SimpleNamespace(analytics_hub=hub))


def denied(google: Google, call: Call = subscribe) -> errors.OctogenBigQueryError:
    with google.running() as endpoint, pytest.raises(errors.OctogenBigQueryError) as caught:
        call(endpoint)
    return caught.value


def test_a_denial_without_the_right_to_subscribe_is_a_grant_on_its_way(golden: Golden) -> None:
    google = Google(granted=False)
    error = denied(google)
    assert type(error) is errors.OctogenBigQueryAccessPendingError
    assert error.persistence is errors.Persistence.PASSING
    golden("errors", error)
    google.granted = True
    with google.running() as endpoint:
        assert subscribe(endpoint)


@pytest.mark.parametrize(
    "details",
    [
        [],
        [PERIMETER],
        [error_info("IAM_PERMISSION_DENIED", permission="bigquery.datasets.create")],
    ],
    ids=["nothing named", "perimeter", "permission"],
)
def test_a_denial_in_spite_of_the_right_names_the_cause(golden: Golden, details: list[Any]) -> None:
    google = Google()
    google.refuse("SubscribeListing", "PERMISSION_DENIED", 1, *details)
    error = denied(google)
    assert type(error) is errors.OctogenBigQueryError
    assert error.persistence is errors.Persistence.PERMANENT
    golden("errors", error)
    assert google.calls.count("SubscribeListing") == 1


def test_a_disabled_api_is_never_a_grant_on_its_way(golden: Golden) -> None:
    google = Google(granted=False)
    google.refuse("SubscribeListing", "PERMISSION_DENIED", 1, DISABLED)
    error = denied(google)
    assert type(error) is errors.OctogenBigQueryError
    golden("errors", error)


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        ("PERMISSION_DENIED", [DISABLED], errors.OctogenBigQueryError),
        ("PERMISSION_DENIED", [PERIMETER], errors.OctogenBigQueryError),
        ("UNKNOWN", [], errors.OctogenBigQueryUnavailableError),
    ],
    ids=["disabled", "perimeter", "unknown"],
)
def test_a_denial_of_which_the_permissions_cannot_be_read_says_both(
    golden: Golden, code: str, details: list[Any], kind: type[errors.OctogenBigQueryError]
) -> None:
    google = Google(granted=False)
    google.refuse("TestIamPermissions", code, 1, *details)
    error = denied(google)
    assert type(error) is kind
    golden("errors", error)


@pytest.mark.parametrize(
    ("method", "call"), [("ListListings", list_exchange), ("ListSubscriptions", subscribe)]
)
@pytest.mark.parametrize(
    "details", [[], [DISABLED], [PERIMETER]], ids=["nothing named", "disabled", "perimeter"]
)
def test_a_denial_names_the_permission_the_role_and_where_to_grant_it(
    golden: Golden, method: str, call: Call, details: list[Any]
) -> None:
    google = Google()
    google.refuse(method, "PERMISSION_DENIED", 1, *details)
    error = denied(google, call)
    golden("errors", error)
    assert type(error) is errors.OctogenBigQueryError


def test_the_perimeter_is_found_in_the_text_as_well() -> None:
    google = Google()
    perimeter = error_details_pb2.PreconditionFailure.Violation(type="VPC_SERVICE_CONTROLS")
    google.refuse(
        "ListListings",
        "PERMISSION_DENIED",
        1,
        error_details_pb2.PreconditionFailure(violations=[perimeter]),
        text="Prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: x-1_y",
    )
    error = str(denied(google, list_exchange))
    assert "VPC Service Controls perimeter" in error
    assert "(unique identifier x-1_y)" in error


@pytest.mark.parametrize(
    "metadata", [{}, {"service": "x; rm -rf", "consumer": "projects/`id`"}], ids=["none", "odd"]
)
def test_a_detail_that_is_no_name_is_not_put_into_a_command(
    golden: Golden, metadata: dict[str, str]
) -> None:
    google = Google()
    detail = error_info("SERVICE_DISABLED", **metadata)
    google.refuse("ListListings", "PERMISSION_DENIED", 1, detail)
    golden("errors", denied(google, list_exchange))


@pytest.mark.parametrize(
    ("details", "granted", "status", "said"),
    [
        ([], False, 3, "Not yet: "),
        ([], True, 1, "roles/bigquery.user"),
        ([DISABLED], False, 1, "`gcloud services enable analyticshub"),
        ([PERIMETER], True, 1, "VPC Service Controls"),
    ],
)
def test_the_command_has_an_exit_status_for_a_grant_on_its_way(
    details: list[Any], granted: bool, status: int, said: str
) -> None:
    google = Google(granted=granted)
    google.refuse("SubscribeListing", "PERMISSION_DENIED", 1, *details)
    with google.running() as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANALYTICS_HUB_EMULATOR_HOST", endpoint)
        names = ["--listing", LISTING, "--project", PROJECT, "--apply", "--json"]
        done = CliRunner().invoke(main, ["bq", "subscribe", *names])
    assert (done.exit_code, done.stdout) == (status, "")
    assert said in done.stderr
