"""Each error has one place in the hierarchy, says how long it lasts, and can be pickled."""

from __future__ import annotations

import pickle
from datetime import datetime, timedelta, timezone

import httpx
import pytest

from octogen_dagster.errors import (
    MissingAPIKeyError,
    OctogenAPIError,
    OctogenAuthenticationError,
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

NOON = datetime(2026, 3, 4, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


class TestHierarchy:
    @pytest.mark.parametrize(
        ("kind", "parent"),
        [
            (MissingAPIKeyError, OctogenError),
            (OctogenConnectionError, OctogenError),
            (OctogenTimeoutError, OctogenConnectionError),
            (OctogenBudgetError, OctogenError),
            (OctogenPagingError, OctogenError),
            (OctogenAPIError, OctogenError),
            (OctogenAuthenticationError, OctogenAPIError),
            (OctogenInsufficientCreditError, OctogenAPIError),
            (OctogenForbiddenError, OctogenAPIError),
            (OctogenNotFoundError, OctogenAPIError),
            (OctogenValidationError, OctogenAPIError),
            (OctogenRateLimitError, OctogenAPIError),
            (OctogenServerError, OctogenAPIError),
            (OctogenShopError, OctogenServerError),
            (OctogenResponseError, OctogenAPIError),
        ],
    )
    def test_an_api_error_has_one_parent(
        self, kind: type[OctogenError], parent: type[OctogenError]
    ) -> None:
        assert kind.__bases__ == (parent,)

    def test_a_malformed_name_is_a_value_error_too(self) -> None:
        assert issubclass(OctogenBigQueryInputError, ValueError)


class TestPersistence:
    @pytest.mark.parametrize(
        ("error", "persistence"),
        [
            (MissingAPIKeyError(), Persistence.PERMANENT),
            (OctogenAuthenticationError("", httpx.Response(401)), Persistence.PERMANENT),
            (OctogenNotFoundError("", httpx.Response(404)), Persistence.PERMANENT),
            (OctogenBigQueryInputError(""), Persistence.PERMANENT),
            (OctogenMCPError(""), Persistence.PERMANENT),
            (OctogenConnectionError(""), Persistence.UNCLEAR),
            (OctogenResponseError("", httpx.Response(200)), Persistence.UNCLEAR),
            (OctogenTimeoutError(""), Persistence.UNCLEAR),
            (OctogenRateLimitError("", httpx.Response(429)), Persistence.PASSING),
            (OctogenShopError("", httpx.Response(502)), Persistence.PASSING),
            (OctogenMCPError("", retry_after=0.0), Persistence.PASSING),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_an_error_says_how_long_it_lasts(
        self, error: OctogenError, persistence: Persistence
    ) -> None:
        assert error.persistence is persistence
        assert pickle.loads(pickle.dumps(error)).persistence is persistence


class TestAPIError:
    def test_its_attributes_come_from_the_response_and_the_arguments(self) -> None:
        response = httpx.Response(429, headers={"x-request-id": "r-1"})
        error = OctogenRateLimitError("text", response, {"code": "c"}, 4.0)
        assert error.response is response
        assert (error.status_code, error.request_id) == (429, "r-1")
        assert (error.detail, error.retry_after) == ({"code": "c"}, 4.0)

    def test_detail_request_id_and_retry_after_may_be_missing(self) -> None:
        error = OctogenServerError("text", httpx.Response(503))
        assert (error.detail, error.request_id, error.retry_after) == (None, None, None)


class TestInsufficientCreditError:
    def test_it_has_the_address_where_credit_is_bought(self) -> None:
        url = "https://octogen.example/top-up?org=7"
        detail = {"code": "insufficient_credit", "top_up_url": url}
        error = OctogenInsufficientCreditError("text", httpx.Response(402), detail)
        assert error.top_up_url == pickle.loads(pickle.dumps(error)).top_up_url == url

    @pytest.mark.parametrize(
        "detail",
        [
            None,
            "insufficient_credit",
            {},
            {"top_up_url": None},
            {"top_up_url": "http://octogen.example/top-up"},
            {"top_up_url": "javascript:alert(1)"},
            {"top_up_url": "https:///"},
            {"top_up_url": "https://octogen.example/ and more"},
        ],
    )
    def test_an_address_that_is_not_https_is_no_address(self, detail: object) -> None:
        error = OctogenInsufficientCreditError("text", httpx.Response(402), detail)
        assert error.top_up_url is None


class TestPastPartitionError:
    @pytest.mark.parametrize(
        ("begin", "end", "text"),
        [
            (NOON - HOUR, NOON, "The partition from 2026-03-04 11:00 to 2026-03-04 12:00 UTC is "),
            (NOON - HOUR, NOON, "is over, "),
            (NOON - HOUR, NOON, "Materialize the partition of now"),
            (NOON + HOUR, NOON + 2 * HOUR, "13:00 to 2026-03-04 14:00 UTC has not begun, "),
            (NOON + HOUR, NOON + 2 * HOUR, "Materialize it when its time has come."),
        ],
    )
    def test_it_tells_a_past_from_a_future_partition(
        self, begin: datetime, end: datetime, text: str
    ) -> None:
        error = OctogenPastPartitionError(begin, end, now=NOON)
        assert text in str(error)
        assert (error.begin, error.end) == (begin, end)

    def test_the_present_is_the_default(self) -> None:
        assert "is over" in str(OctogenPastPartitionError(NOON - HOUR, NOON))

    def test_a_copy_keeps_the_text_however_late_it_is_unpickled(self) -> None:
        error = OctogenPastPartitionError(NOON, NOON + HOUR, now=NOON - HOUR)
        copy = pickle.loads(pickle.dumps(error))
        assert str(copy) == str(error)
        assert "has not begun" in str(copy)


class TestPickling:
    @pytest.mark.parametrize(
        "error",
        [
            OctogenError("text"),
            MissingAPIKeyError(),
            OctogenConnectionError("text"),
            OctogenTimeoutError("text"),
            OctogenBudgetError("text"),
            OctogenPagingError("text"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_an_error_without_a_response_keeps_its_type_and_text(self, error: OctogenError) -> None:
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)

    @pytest.mark.parametrize(
        "kind", [OctogenAPIError, *OctogenAPIError.__subclasses__()], ids=lambda kind: kind.__name__
    )
    def test_an_error_with_a_response_keeps_its_attributes(
        self, kind: type[OctogenAPIError]
    ) -> None:
        response = httpx.Response(
            503,
            content=b'{"detail": "x"}',
            headers={"x-request-id": "r-1"},
            request=httpx.Request("POST", "https://api.octogen.ai/v1/products/search"),
        )
        copy = pickle.loads(pickle.dumps(kind("text", response, {"code": "c"}, 4.0)))
        assert type(copy) is kind
        assert str(copy) == "text"
        assert (copy.status_code, copy.detail) == (503, {"code": "c"})
        assert (copy.request_id, copy.retry_after) == ("r-1", 4.0)
        assert copy.response.content == response.content
        assert copy.response.request.url == response.request.url

    @pytest.mark.parametrize("retry_after", [None, 9.5])
    def test_an_mcp_error_keeps_its_wait(self, retry_after: float | None) -> None:
        copy = pickle.loads(pickle.dumps(OctogenMCPRateLimitError("text", retry_after)))
        assert isinstance(copy, OctogenMCPError)
        assert (str(copy), copy.retry_after) == ("text", retry_after)
