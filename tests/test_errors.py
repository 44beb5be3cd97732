"""What an answer that is no result turns into, by itself: no client, no network."""

from __future__ import annotations

import pickle
from typing import Any

import httpx
import msgspec
import pytest

from octogen_dagster import errors
from octogen_dagster.errors import (
    MissingAPIKeyError,
    OctogenAPIError,
    OctogenAuthenticationError,
    OctogenConnectionError,
    OctogenError,
    OctogenForbiddenError,
    OctogenInsufficientCreditError,
    OctogenNotFoundError,
    OctogenPagingError,
    OctogenRateLimitError,
    OctogenResponseError,
    OctogenServerError,
    OctogenTimeoutError,
    OctogenValidationError,
    error_from_response,
    retry_after_seconds,
    unexpected_body,
)

DATE = "Wed, 21 Oct 2026 07:28:00 GMT"
SUBJECT = "Catalog 'acme'"


def answer(status: int, detail: Any = None, **headers: str) -> httpx.Response:
    return httpx.Response(
        status,
        content=msgspec.json.encode({"detail": detail}),
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        request=httpx.Request("POST", "https://api.octogen.ai/v1/products/search"),
    )


def message(status: int, content: bytes, **headers: str) -> str:
    return str(
        error_from_response(httpx.Response(status, content=content, headers=headers), SUBJECT)
    )


class TestHierarchy:
    @pytest.mark.parametrize(
        ("kind", "parent"),
        [
            (MissingAPIKeyError, OctogenError),
            (OctogenConnectionError, OctogenError),
            (OctogenTimeoutError, OctogenConnectionError),
            (OctogenPagingError, OctogenError),
            (OctogenAPIError, OctogenError),
            (OctogenAuthenticationError, OctogenAPIError),
            (OctogenInsufficientCreditError, OctogenAPIError),
            (OctogenForbiddenError, OctogenAPIError),
            (OctogenNotFoundError, OctogenAPIError),
            (OctogenValidationError, OctogenAPIError),
            (OctogenRateLimitError, OctogenAPIError),
            (OctogenServerError, OctogenAPIError),
            (OctogenResponseError, OctogenAPIError),
        ],
    )
    def test_each_error_stands_below_its_parent_and_in_the_drawing(
        self, kind: type[OctogenError], parent: type[OctogenError]
    ) -> None:
        assert kind.__bases__ == (parent,)
        assert f"* {kind.__name__}" in (errors.__doc__ or "")


class TestStatus:
    @pytest.mark.parametrize(
        ("status", "kind", "advice"),
        [
            (400, OctogenAPIError, "See the detail above."),
            (401, OctogenAuthenticationError, "Check that OCTO_API_KEY holds a current key"),
            (402, OctogenInsufficientCreditError, "top it up"),
            (403, OctogenForbiddenError, "ask Octogen for the permission"),
            (404, OctogenNotFoundError, "Check the name, or ask Octogen for access."),
            (409, OctogenAPIError, "See the detail above."),
            (422, OctogenValidationError, "Correct the field named above."),
            (429, OctogenRateLimitError, "run fewer reads at once or try later"),
            (500, OctogenServerError, "try again later"),
            (502, OctogenServerError, "try again later"),
            (503, OctogenServerError, "try again later"),
            (599, OctogenServerError, "try again later"),
        ],
    )
    def test_the_kind_and_the_text_say_what_happened_and_what_to_do(
        self, status: int, kind: type[OctogenAPIError], advice: str
    ) -> None:
        response = answer(status, "the_reason", x_request_id="r-17", retry_after="9")
        error = error_from_response(response, SUBJECT)
        assert type(error) is kind
        assert (error.status_code, error.detail) == (status, "the_reason")
        assert (error.request_id, error.retry_after) == ("r-17", 9.0)
        assert error.response is response
        assert str(error).startswith(f"{SUBJECT} failed: {status} the_reason, request r-17. ")
        assert advice in str(error)

    def test_without_headers_there_is_no_request_id_and_no_wait(self) -> None:
        error = error_from_response(answer(500, "oops"), SUBJECT)
        assert error.request_id is None
        assert error.retry_after is None
        assert str(error) == f"{SUBJECT} failed: 500 oops. The service failed: try again later."

    def test_a_catalog_that_is_not_granted_is_said_so(self) -> None:
        error = error_from_response(answer(404, "catalog_not_found"), SUBJECT)
        assert type(error) is OctogenNotFoundError
        assert "Catalog 'acme' is not granted to this key (404 catalog_not_found)" in str(error)

    def test_spent_credit_names_where_to_top_up(self) -> None:
        detail = {"code": "insufficient_credit", "top_up_url": "https://octogen.example/top-up"}
        error = error_from_response(answer(402, detail), SUBJECT)
        assert error.detail == detail
        assert "402 insufficient_credit" in str(error)
        assert "top it up at https://octogen.example/top-up" in str(error)

    def test_refused_fields_are_named(self) -> None:
        detail = [
            {"loc": ["body", "facets", 0, "values"], "msg": "too short", "type": "too_short"},
            {"loc": ["body"], "msg": "not an object", "type": "dict"},
        ]
        error = error_from_response(answer(422, detail), SUBJECT)
        assert error.detail == detail
        assert "422 facets.0.values: too short; request: not an object" in str(error)

    @pytest.mark.parametrize(
        "detail", [["text"], [{}], [{"loc": "limit", "msg": "x"}], [{"loc": 7}], [None], 5, {}]
    )
    def test_a_detail_of_another_shape_is_still_that_error(self, detail: Any) -> None:
        error = error_from_response(answer(422, detail), SUBJECT)
        assert type(error) is OctogenValidationError
        assert error.detail == detail

    def test_a_field_named_by_text_is_not_spelled_out(self) -> None:
        error = error_from_response(answer(422, [{"loc": "limit", "msg": "too big"}]), SUBJECT)
        assert "422 limit: too big" in str(error)


class TestBodyThatIsNotJson:
    def test_its_beginning_is_shown(self) -> None:
        text = message(502, b"<h1>Bad\n  gateway</h1>" + b"x" * 5000)
        assert f"{SUBJECT} failed: 502 <h1>Bad gateway</h1>xxx" in text
        assert len(text) < 400

    @pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b'{"detail": '])
    def test_it_is_still_that_error(self, content: bytes) -> None:
        error = error_from_response(httpx.Response(503, content=content), SUBJECT)
        assert type(error) is OctogenServerError
        assert error.detail is None

    def test_an_empty_one_leaves_the_name_of_the_status(self) -> None:
        assert "failed: 503 Service Unavailable." in message(503, b"")


class TestRedirect:
    @pytest.mark.parametrize(
        ("location", "target"),
        [
            ("https://elsewhere.example/v1/catalogs", "elsewhere.example"),
            ("/v2/catalogs", "another address"),
            ("http://a:badport/", "another address"),
            ("", "another address"),
        ],
    )
    def test_the_text_says_where_to_and_why_not(self, location: str, target: str) -> None:
        error = error_from_response(answer(307, location=location), SUBJECT)
        assert type(error) is OctogenAPIError
        assert error.status_code == 307
        assert f"It redirects to {target}, and redirects are not followed" in str(error)
        assert "correct base_url" in str(error)


class TestUnexpectedBody:
    def test_the_text_has_the_problem_the_type_and_the_request(self) -> None:
        response = answer(200, content_type="text/html", x_request_id="r-3")
        error = unexpected_body(response, SUBJECT, "a web page")
        assert type(error) is OctogenResponseError
        assert error.status_code == 200
        assert str(error) == (
            f"{SUBJECT} was answered with 200 and a web page (text/html, request r-3). "
            "Check base_url, or report it to Octogen."
        )

    def test_the_advice_can_be_another(self) -> None:
        error = unexpected_body(answer(200), SUBJECT, "a web page", "Upgrade.")
        assert str(error).endswith(". Upgrade.")


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, None),
            ({"retry-after": ""}, None),
            ({"retry-after": "soon"}, None),
            ({"retry-after": "-5"}, None),
            ({"retry-after": "0"}, 0.0),
            ({"retry-after": " 17 "}, 17.0),
            ({"Retry-After": "120"}, 120.0),
            ({"retry-after": "9" * 400}, float("inf")),
            ({"retry-after": DATE, "date": "Wed, 21 Oct 2026 07:26:30 GMT"}, 90.0),
            ({"retry-after": DATE, "date": "Wed, 21 Oct 2026 09:28:00 +0200"}, 0.0),
            ({"retry-after": DATE, "date": "Wed, 21 Oct 2026 08:00:00 GMT"}, 0.0),
            ({"retry-after": DATE, "date": "yesterday"}, None),
            ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
            ({"retry-after": "Wed, 99 Oct 2026 07:28:00 GMT"}, None),
        ],
    )
    def test_seconds_and_dates(self, headers: dict[str, str], seconds: float | None) -> None:
        assert retry_after_seconds(httpx.Headers(headers)) == seconds

    def test_a_date_without_the_server_s_clock_is_taken_by_ours(self) -> None:
        seconds = retry_after_seconds(
            httpx.Headers({"retry-after": "Fri, 01 Jan 2200 00:00:00 GMT"})
        )
        assert seconds is not None
        assert seconds > 100 * 365 * 24 * 3600


class TestPickling:
    @pytest.mark.parametrize(
        "error",
        [
            OctogenError("text"),
            MissingAPIKeyError(),
            OctogenConnectionError("text"),
            OctogenTimeoutError("text"),
            OctogenPagingError("text"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_an_error_without_an_answer_stays_itself(self, error: OctogenError) -> None:
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)

    @pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422, 429, 503])
    def test_an_error_with_an_answer_keeps_its_attributes(self, status: int) -> None:
        error = error_from_response(
            answer(status, {"code": "c"}, x_request_id="r-1", retry_after="4"), SUBJECT
        )
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert (copy.status_code, copy.detail) == (status, {"code": "c"})
        assert (copy.request_id, copy.retry_after) == ("r-1", 4.0)
        assert copy.response.content == error.response.content
        assert copy.response.request.url == error.response.request.url
