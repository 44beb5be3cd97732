from __future__ import annotations

import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octogen_dagster import errors
from octogen_dagster.api.http import Response, rate_limit, rate_limit_remaining, retry_after_seconds
from octogen_dagster.api.responses import error_from_response
from octogen_dagster.api.retry import Retries, RetryPolicy

DATE = "Wed, 21 Oct 2026 07:28:00 GMT"
YEAR = 366 * 24 * 3600.0
ODD_DATES = (
    "yesterday",
    "Wed, 99 Oct 2026 07:28:00 GMT",
    f"Wed, 21 Oct 1{'0' * 20} 07:28:00 GMT",
    f"Wed, 21 Oct 2026 07:28:00 +{'9' * 20}",
    "Fri, 31 Dec 9999 23:59:59 -2359",
    " ",
    "\u00b2",
    "é",
)


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, None),
            ({"retry-after": ""}, None),
            ({"retry-after": "soon"}, None),
            ({"retry-after": "-5"}, None),
            ({"retry-after": "1.5"}, None),
            ({"retry-after": "\u00b2"}, None),
            ({"retry-after": "\u0663"}, None),
            ({"retry-after": "1e400"}, None),
            ({"retry-after": "0"}, 0.0),
            ({"retry-after": " 17 "}, 17.0),
            ({"retry-after": "9" * 5000}, YEAR),
            ({"retry-after": DATE, "date": "Wed, 21 Oct 2026 07:26:30 GMT"}, 90.0),
            ({"retry-after": DATE, "date": "Wed, 21 Oct 2026 07:26:30"}, 90.0),
            ({"retry-after": DATE, "date": "Wed, 21 Oct 2026 09:28:00 +0200"}, 0.0),
            ({"retry-after": DATE, "date": "Wed, 21 Oct 2026 08:00:00 GMT"}, 0.0),
            ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT", "date": DATE}, YEAR),
            ({"retry-after": "Wed, 21 Oct 2026 07:29:00", "date": DATE}, 60.0),
            ({"retry-after": "Wed, 21 Oct 2026 07:29:00 -0000", "date": DATE}, 60.0),
            ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
            *(({"retry-after": odd}, None) for odd in ODD_DATES),
        ],
    )
    def test_it_is_read_in_seconds_or_as_a_date(
        self, headers: dict[str, str], seconds: float | None
    ) -> None:
        assert retry_after_seconds(headers) == seconds

    def test_the_names_of_headers_have_no_case(self) -> None:
        assert retry_after_seconds(httpx.Headers({"Retry-After": "120"})) == 120.0

    @pytest.mark.parametrize("date", [None, *ODD_DATES])
    def test_without_a_date_of_the_server_this_machine_s_clock_counts(
        self, date: str | None
    ) -> None:
        headers = {} if date is None else {"date": date}
        later = retry_after_seconds(headers | {"retry-after": "Fri, 01 Jan 2200 00:00:00 GMT"})
        earlier = retry_after_seconds(headers | {"retry-after": "Fri, 01 Jan 2016 00:00:00 GMT"})
        assert (earlier, later) == (0.0, YEAR)


class TestRateLimit:
    @pytest.mark.parametrize(("text", "limit"), [("3000", 3000.0), (" 60 ", 60.0), ("1.5", 1.5)])
    def test_it_is_a_number(self, text: str, limit: float) -> None:
        headers = {"x-ratelimit-limit": text, "x-ratelimit-remaining": text}
        assert rate_limit(headers) == rate_limit_remaining(headers) == limit

    @pytest.mark.parametrize(
        "text", ["", "many", "nan", "inf", "1e400", "9" * 400, "\u00b2", "\u0666\u0660", "6_0", "é"]
    )
    def test_what_is_no_number_counts_as_absent(self, text: str) -> None:
        headers = {"x-ratelimit-limit": text, "x-ratelimit-remaining": text}
        assert rate_limit(headers) is rate_limit_remaining(headers) is None

    @pytest.mark.parametrize("limit", ["0", "0.5", "-60"])
    def test_a_limit_below_one_request_counts_as_absent(self, limit: str) -> None:
        assert rate_limit({"x-ratelimit-limit": limit}) is None

    def test_an_overdrawn_budget_is_below_zero(self) -> None:
        assert rate_limit_remaining({"x-ratelimit-remaining": "-3"}) == -3.0

    def test_without_headers_there_is_none(self) -> None:
        assert rate_limit({}) is rate_limit_remaining({}) is None


# Which failures of a request are followed by another attempt, and after which wait.


def failed_with(
    status: int, retry_after: str | None = None, detail: str | None = None
) -> errors.OctogenError:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return error_from_response(
        Response(status, headers, json.dumps({"detail": detail}).encode()), "It"
    )


PASSING = [failed_with(429), failed_with(500), failed_with(503, "120"), failed_with(599)]
PASSING += [errors.OctogenConnectionError("cut"), errors.OctogenTimeoutError("late")]
LASTING = [failed_with(status, "1") for status in (307, 400, 401, 402, 403, 404, 409, 422)]
LASTING += [
    errors.OctogenResponseError("a web page", httpx.Response(200)),
    errors.OctogenPagingError("loop"),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_a_missing_response_429_and_5xx_are_retried(error: errors.OctogenError) -> None:
    assert Retries(RetryPolicy()).wait_after(error) is not None
    assert Retries(RetryPolicy(attempts=1)).wait_after(error) is None


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_nothing_else_is_retried(error: errors.OctogenError) -> None:
    assert Retries(RetryPolicy()).wait_after(error) is None


@given(
    failures=st.integers(1, 2000),
    first=st.floats(0.001, 10),
    longest=st.floats(0.001, 100),
    asked=st.integers(0, 120),
)
def test_the_wait_is_retry_after_plus_a_delay_that_doubles_up_to_a_maximum(
    failures: int, first: float, longest: float, asked: int
) -> None:
    policy = RetryPolicy(attempts=10_000, first_delay=first, max_delay=longest)
    step = first * 2.0 ** min(failures - 1, 60)
    assert min(step, longest) - 1e-6 <= policy.delay(failures) <= min(step + first, longest) + 1e-6
    wait = Retries(policy).wait_after(failed_with(503, str(asked)))
    assert wait is not None
    assert asked + min(first, longest) - 1e-6 <= wait <= asked + min(2 * first, longest) + 1e-6
