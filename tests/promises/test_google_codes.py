"""An error of Google is shown with the code that says most."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_gcp import BigQueryResource

from octogen_dagster import (
    build_linked_products_asset,
    build_linked_snapshot_asset,
    subscribe_to_listing,
)
from octogen_dagster.errors import OctogenBigQueryError
from tests.results import failure
from tests.servers import analytics_hub as hubs
from tests.servers.analytics_hub import error_info, granting, refusing
from tests.servers.bigquery import PROJECT, VIEW, BigQueryServer, answering, environment

LISTING = "projects/octo/locations/us/dataExchanges/catalogs/listings/acme"
SCOPE = error_info("ACCESS_TOKEN_SCOPE_INSUFFICIENT", method="SubscribeListing")
LACKING = {
    "code": 403,
    "message": "Caller lacks access to the project.",
    "status": "PERMISSION_DENIED",
    "details": [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "USER_PROJECT_DENIED",
            "domain": "googleapis.com",
        }
    ],
}


@dg.asset
def linked() -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes it for one with no value
    return dg.MaterializeResult(metadata={"dagster/table_name": VIEW})


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """BigQuery; the entry "answer" says how it answers."""
    set_answer: dict[str, Any] = {"answer": BigQueryServer()}

    def answer(method: str, path: str, body: dict[str, Any]) -> Any:
        return set_answer["answer"](method, path, body)

    with answering(answer) as address:
        for name, value in environment(address, address, tmp_path).items():
            monkeypatch.setenv(name, value)
        yield set_answer


def materialized(asset: dg.AssetsDefinition) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [linked, asset],
        resources={
            "bigquery": BigQueryResource(project=PROJECT),
            "io_manager": dg.mem_io_manager,
        },
        raise_on_error=False,
    )


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "FAILED_PRECONDITION"])
@pytest.mark.parametrize("method", ["ListSubscriptions", "SubscribeListing"])
def test_analytics_hub_s_reason_is_shown_beside_the_status(
    method: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from google.cloud import bigquery_analyticshub_v1 as ah

    methods: dict[str, Any] = {
        "ListSubscriptions": lambda _: ah.ListSubscriptionsResponse(),
        "TestIamPermissions": granting("analyticshub.listings.subscribe"),
        method: refusing(code, "Request had insufficient scopes.", SCOPE),
    }
    with hubs.answering(**methods) as endpoint:
        monkeypatch.setenv("ANALYTICS_HUB_EMULATOR_HOST", endpoint)
        with pytest.raises(OctogenBigQueryError) as caught:
            subscribe_to_listing(listing_resource=LISTING, destination_project=PROJECT)
    shown = f"({code} ACCESS_TOKEN_SCOPE_INSUFFICIENT: Request had insufficient scopes)"
    assert f"Analytics Hub refused {shown}" in str(caught.value)


def test_a_refusal_of_bigquery_without_a_list_of_errors_shows_the_reason_in_its_details(
    server: dict[str, Any],
) -> None:
    server["answer"] = lambda *_: (403, {"error": LACKING})
    message = failure(materialized(build_linked_products_asset(linked)))
    assert "BigQuery refused (403 Forbidden USER_PROJECT_DENIED: " in message


def test_the_last_of_many_failed_jobs_says_why(server: dict[str, Any]) -> None:
    bigquery: BigQueryServer = server["answer"]
    wrong = {"reason": "invalidQuery", "message": "Unrecognized name: x", "location": "query"}
    bigquery.failures, bigquery.lost_answers = [wrong] * 20, 20
    message = failure(materialized(build_linked_snapshot_asset(linked, where="x")))
    assert "20 jobs of this run and its retries failed, the last one (invalidQuery: " in message
    assert "Unrecognized name: x)" in message
