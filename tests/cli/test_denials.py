"""The exit status of a command whose subscription Analytics Hub denies."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.cli.bigquery import subscribe
from tests.sharing.hubs import answering, error_info, granting, refusing

LISTING = "projects/octogen/locations/us/dataExchanges/catalogs/listings/acme"
SUBSCRIBE = "analyticshub.listings.subscribe"


@pytest.mark.parametrize(
    ("details", "permissions", "status", "reason"),
    [
        ([], [], 3, "Not yet: "),
        ([], [SUBSCRIBE], 1, "grant these Google credentials roles/bigquery.user"),
        ([error_info("SERVICE_DISABLED")], [], 1, "`gcloud services enable analyticshub.google"),
    ],
    ids=["grant", "right", "api"],
)
def test_only_a_grant_that_has_not_arrived_is_pending(
    monkeypatch: pytest.MonkeyPatch,
    details: list[Any],
    permissions: list[str],
    status: int,
    reason: str,
) -> None:
    with answering(
        ListSubscriptions=lambda _: ah.ListSubscriptionsResponse(),
        SubscribeListing=refusing("PERMISSION_DENIED", "Denied.", *details),
        TestIamPermissions=granting(*permissions),
    ) as endpoint:
        monkeypatch.setenv("ANALYTICS_HUB_EMULATOR_HOST", endpoint)
        arguments = ["--listing", LISTING, "--project", "mine", "--apply"]
        done = CliRunner().invoke(subscribe, arguments)
    assert done.exit_code == status
    assert reason in done.stderr
