import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import polars as pl
import pytest

from octogen_dagster import (
    OctogenResource,
    ParquetSnapshotIOManager,
    build_catalogs_asset,
    build_product_details_asset,
    build_products_asset,
)
from octogen_dagster.api.http import Response
from octogen_dagster.api.responses import error_from_response
from octogen_dagster.errors import (
    MissingAPIKeyError,
    OctogenAPIError,
    OctogenBudgetError,
    OctogenConnectionError,
    OctogenPagingError,
    OctogenPastPartitionError,
    OctogenResponseError,
    OctogenSnapshotError,
)
from octogen_dagster.run_failures import RETRY_POLICY, permanent_errors_fail

NOON = datetime(2026, 3, 4, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
TOP_UP = "https://octogen.example/top-up"


def api_error(status: int) -> OctogenAPIError:
    """Return the error that a response with a status becomes."""
    return error_from_response(Response(status), "The search")


@pytest.mark.parametrize(
    "error",
    [
        *(api_error(status) for status in (401, 402, 403, 404, 422)),
        OctogenBudgetError("The budget is spent."),
        OctogenPastPartitionError(NOON - 2 * HOUR, NOON - HOUR, NOON),
        OctogenPastPartitionError(NOON + HOUR, NOON + 2 * HOUR, NOON),
    ],
    ids=lambda error: str(getattr(error, "status_code", type(error).__name__)),
)
def test_a_permanent_error_is_a_failure_without_retries(error: Exception) -> None:
    with pytest.raises(dg.Failure) as failed, permanent_errors_fail():
        raise error
    assert failed.value.allow_retries is False
    assert failed.value.description == str(error)
    assert failed.value.__cause__ is error


@dg.asset
def listed() -> pl.DataFrame:
    return pl.DataFrame({"uuid": ["a"]})


@pytest.mark.parametrize(
    "build",
    [
        build_catalogs_asset,
        lambda: build_products_asset("products"),
        lambda: build_product_details_asset(listed),
    ],
    ids=["catalogs", "products", "details"],
)
def test_a_run_without_a_key_says_which_variables_to_set_and_nothing_of_the_code(
    build: Callable[[], dg.AssetsDefinition], instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    asset = build()
    resources = {
        "octogen": OctogenResource(),
        "io_manager": ParquetSnapshotIOManager(base_dir=str(tmp_path)),
    }
    dg.materialize([listed], instance=instance, resources=resources)
    result = dg.materialize(
        [asset, listed],
        selection=[asset],
        instance=instance,
        resources=resources,
        raise_on_error=False,
    )
    [failed] = [event for event in result.all_events if event.is_step_failure]
    data = failed.step_failure_data
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    assert data.user_failure_data
    assert data.user_failure_data.description == str(MissingAPIKeyError())
    assert data.error
    assert "OCTOGEN_PLATFORM_API_KEY" in data.error.message
    assert data.error.cause is None
    assert "credentials.py" not in str(data.error)


@pytest.mark.parametrize(
    ("url", "metadata"),
    [
        (TOP_UP, {"octogen/top_up_url": dg.MetadataValue.url(TOP_UP)}),
        ("http://octogen.example/top-up", {}),
    ],
)
def test_spent_credit_links_to_where_it_is_bought(url: str, metadata: dict[str, Any]) -> None:
    detail = {"code": "insufficient_credit", "top_up_url": url}
    response = Response(402, content=json.dumps({"detail": detail}).encode())
    with pytest.raises(dg.Failure) as failed, permanent_errors_fail():
        raise error_from_response(response, "The search")
    assert failed.value.metadata == metadata
    assert failed.value.allow_retries is False


@pytest.mark.parametrize(
    "error",
    [
        *(api_error(status) for status in (400, 409, 429, 500, 503)),
        OctogenResponseError("Not JSON.", httpx.Response(200)),
        OctogenConnectionError("The connection was reset."),
        OctogenPagingError("The pages loop."),
        OctogenSnapshotError("The snapshot is not complete."),
        OSError(28, "No space left on device"),
    ],
    ids=lambda error: str(getattr(error, "status_code", type(error).__name__)),
)
def test_any_other_error_stays_as_it_is_and_can_be_retried(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, permanent_errors_fail():
        raise error
    assert raised.value is error


def test_nothing_happens_without_an_error() -> None:
    with permanent_errors_fail():
        result = 1
    assert result == 1


def test_a_run_is_retried_after_10_then_30_then_70_seconds() -> None:
    assert RETRY_POLICY.max_retries == 3
    assert [RETRY_POLICY.calculate_delay(attempt) for attempt in (1, 2, 3)] == [10, 30, 70]
