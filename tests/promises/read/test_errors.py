"""Each error has one place in the hierarchy, says how long it lasts, and can be pickled."""

from __future__ import annotations

import inspect
import pickle
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from octogen_dagster import errors
from octogen_dagster.errors import (
    MissingAPIKeyError,
    OctogenAPIError,
    OctogenAuthenticationError,
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryInputError,
    OctogenBudgetError,
    OctogenConnectionError,
    OctogenError,
    OctogenForbiddenError,
    OctogenInsufficientCreditError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenNotFoundError,
    OctogenPagingError,
    OctogenPastPartitionError,
    OctogenRateLimitError,
    OctogenResponseError,
    OctogenServerError,
    OctogenShopError,
    OctogenTimeoutError,
    OctogenValidationError,
    Persistence,
)

PERMANENT, UNCLEAR, PASSING = Persistence.PERMANENT, Persistence.UNCLEAR, Persistence.PASSING
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TOP_UP = "https://octogen.example/top-up?org=7"
OF_STATUS: dict[type[OctogenAPIError], tuple[int, Persistence]] = {
    OctogenAuthenticationError: (401, PERMANENT),
    OctogenInsufficientCreditError: (402, PERMANENT),
    OctogenForbiddenError: (403, PERMANENT),
    OctogenNotFoundError: (404, PERMANENT),
    OctogenValidationError: (422, PERMANENT),
    OctogenRateLimitError: (429, PASSING),
    OctogenServerError: (503, PASSING),
    OctogenShopError: (502, PASSING),
    OctogenResponseError: (200, UNCLEAR),
}
OTHERS: list[tuple[OctogenError, Persistence]] = [
    (OctogenError("text"), UNCLEAR),
    (MissingAPIKeyError(), PERMANENT),
    (OctogenConnectionError("text"), UNCLEAR),
    (OctogenTimeoutError("text"), UNCLEAR),
    (OctogenBudgetError("text"), PERMANENT),
    (OctogenPagingError("text"), UNCLEAR),
    (OctogenPastPartitionError(NOON, NOON + HOUR, now=NOON - HOUR), PERMANENT),
    (OctogenBigQueryInputError("text"), PERMANENT),
    (OctogenBigQueryAccessPendingError("text"), PASSING),
    (OctogenMCPError("text"), PERMANENT),
    (OctogenMCPRateLimitError("text", 9.5), PASSING),
]


def api_error(kind: type[OctogenAPIError], detail: object = None) -> OctogenAPIError:
    """An error of a response with a status of its own."""
    response = httpx.Response(
        OF_STATUS[kind][0],
        content=b'{"detail": "x"}',
        headers={"x-request-id": "r-1"},
        request=httpx.Request("POST", "https://api.octogen.ai/v1/products/search"),
    )
    return kind("text", response, detail, 4.0)


def test_the_errors_of_responses_are_one_step_below_that_of_all_responses() -> None:
    assert OctogenShopError.__bases__ == (OctogenServerError,)
    for kind in OF_STATUS.keys() - {OctogenShopError}:
        assert kind.__bases__ == (OctogenAPIError,)
    assert OctogenTimeoutError.__bases__ == (OctogenConnectionError,)
    for other in (MissingAPIKeyError, OctogenConnectionError, OctogenBudgetError, OctogenAPIError):
        assert other.__bases__ == (OctogenError,)
    assert issubclass(OctogenBigQueryInputError, ValueError)
    defined = inspect.getmembers(errors, inspect.isclass)
    kinds = [each for _, each in defined if issubclass(each, Exception)]
    assert all(issubclass(each, OctogenError) for each in kinds)
    assert all(inspect.getdoc(each) for each in kinds)


@pytest.mark.parametrize(("error", "persistence"), OTHERS, ids=lambda value: type(value).__name__)
def test_an_error_and_its_copy_say_the_same(error: OctogenError, persistence: Persistence) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert error.persistence is copy.persistence is persistence
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    if isinstance(error, OctogenMCPError):
        assert getattr(copy, "retry_after", None) == error.retry_after


@pytest.mark.parametrize(
    ("detail", "url"),
    [
        ({"code": "insufficient_credit", "top_up_url": TOP_UP}, TOP_UP),
        (None, None),
        ("insufficient_credit", None),
        ({}, None),
        ({"top_up_url": None}, None),
        ({"top_up_url": "http://octogen.example/top-up"}, None),
        ({"top_up_url": "javascript:alert(1)"}, None),
        ({"top_up_url": "https:///"}, None),
        ({"top_up_url": "https://octogen.example/ and more"}, None),
    ],
)
def test_credit_is_bought_at_an_https_address_or_none_is_named(
    detail: object, url: str | None
) -> None:
    error = api_error(OctogenInsufficientCreditError, detail)
    assert isinstance(error, OctogenInsufficientCreditError)
    assert error.top_up_url == pickle.loads(pickle.dumps(error)).top_up_url == url


@pytest.mark.parametrize(
    ("begin", "end", "text"),
    [
        (NOON - HOUR, NOON, "The partition from 2026-03-04 11:00 to 2026-03-04 12:00 UTC is over"),
        (NOON - HOUR, NOON, "Materialize the current partition"),
        (NOON + HOUR, NOON + 2 * HOUR, "13:00 to 2026-03-04 14:00 UTC has not started yet, "),
        (NOON + HOUR, NOON + 2 * HOUR, "Materialize it once it has started."),
    ],
)
def test_a_past_partition_is_told_from_a_future_one(
    begin: datetime, end: datetime, text: str
) -> None:
    error = OctogenPastPartitionError(begin, end, now=NOON)
    assert text in str(error)
    assert (error.begin, error.end) == (begin, end)
    assert "is over" in str(OctogenPastPartitionError(NOON - HOUR, NOON))  # by the present
