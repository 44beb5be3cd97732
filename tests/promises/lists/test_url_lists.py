"""Coverage URL lists: limits before a request, errors by their codes, retries of what passes."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.spending import Prices, Spending
from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenNotFoundError,
    OctogenServerError,
    OctogenUrlListCapacityError,
    OctogenUrlListError,
    OctogenUrlListNameConflictError,
    OctogenUrlListNotFoundError,
    OctogenUrlListUnavailableError,
    Persistence,
)
from tests.api.clients import QUICK, Transport, open_client
from tests.api.leaks import assert_silent
from tests.api.servers import KEY, RawServer, Received, http, in_turn
from tests.results import octogen_at

pytestmark = pytest.mark.usefixtures("silent_log")

ID = "cul_1"
URL = "https://shop.example/1"
LIST: dict[str, Any] = {
    "urlListId": ID,
    "name": "q3",
    "status": "active",
    "urlCount": 99_500,
    "bigQuery": None,
    "createdAt": "2026-08-05T20:14:03Z",
    "updatedAt": "2026-08-05T20:14:03Z",
}
NO_URLS: dict[str, Any] = {"accepted": [], "rejected": [], "urlCount": 3, "requestId": "r-1"}
EMPTY_PAGE: dict[str, Any] = {"items": [], "nextCursor": None}

Call = Callable[..., Awaitable[Any]]
CALLS: dict[str, Call] = {
    "create": lambda client: client.create_coverage_url_list("q3"),
    "lists": lambda client: client.list_coverage_url_lists(),
    "get": lambda client, list_id=ID: client.get_coverage_url_list(list_id),
    "delete": lambda client, list_id=ID: client.delete_coverage_url_list(list_id),
    "add": lambda client, list_id=ID: client.add_coverage_url_list_urls(list_id, [URL]),
    "remove": lambda client, list_id=ID: client.remove_coverage_url_list_urls(list_id, [URL]),
    "check": lambda client, list_id=ID: client.check_coverage_url_list_urls(list_id, [URL]),
    "urls": lambda client, list_id=ID: client.list_coverage_url_list_urls(list_id),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def answer(request: Received) -> list[bytes]:
    """Answer each operation with nothing in particular."""
    path = request.target.partition("?")[0]
    if request.method == "DELETE":
        return http(202, LIST | {"status": "delete_pending"})
    if path.endswith("/contains"):
        return http(200, {"results": []})
    if request.method == "POST":
        return http(200, LIST if path.endswith("url-lists") else NO_URLS)
    return http(200, LIST if path.endswith(ID) else EMPTY_PAGE)


def refused(status: int, detail: Any, retry_after: str = "") -> list[bytes]:
    return http(status, {"detail": detail}, x_request_id="r-7", retry_after=retry_after)


async def error_of(
    server: RawServer, transport: Transport, call: Call, **settings: Any
) -> OctogenAPIError:
    async with open_client(server, transport, **settings) as client:
        with pytest.raises(OctogenAPIError) as caught:
            await call(client)
    return caught.value


# What the service would refuse is refused before a request.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda client: client.create_coverage_url_list(" \n"),
            "name must have 1 to 80.* got 0 char",
        ),
        (lambda client: client.create_coverage_url_list("x" * 81), "name must have .* got 81"),
        (
            lambda client: client.list_coverage_url_lists(limit=0),
            "`limit` must be between 1 and 100",
        ),
        (lambda client: client.list_coverage_url_list_urls(ID, limit=101), "100; got 101"),
        *(
            (functools.partial(CALLS[name], list_id=list_id), "id")
            for name in ("get", "delete", "add", "remove", "check", "urls")
            for list_id in ("", " ", ".", "..")
        ),
        (lambda client: client.add_coverage_url_list_urls(ID, []), "1 to 1,000 URLs; got 0"),
        (
            lambda client: client.remove_coverage_url_list_urls(ID, [URL] * 1001),
            r"got 1,001\. Split a longer list",
        ),
        (
            lambda client: client.check_coverage_url_list_urls(ID, [URL, "é" * 2049]),
            r"urls\[1\] has 2,049 characters, .* at most 2,048\. .* which begins with 'é",
        ),
        (lambda client: client.add_coverage_url_list_urls(ID, URL), "must be a list, not a string"),
        (lambda client: client.add_coverage_url_list_urls(ID, ["\ud800"]), "surrogate"),
    ],
)
async def test_what_exceeds_a_limit_is_not_sent(call: Call, message: str) -> None:
    with RawServer(answer) as server:
        async with open_client(server, "blocking") as client:
            with pytest.raises(ValueError, match=message):
                await call(client)
    assert server.received == []


async def test_one_connection_deletes_and_reads_in_turn(transport: Transport) -> None:
    def kept_open(request: Received) -> list[bytes]:
        return [part.replace(b"connection: close\r\n", b"") for part in answer(request)]

    order = ["get", "delete", "get", "add", "delete", "create", "urls"]
    with RawServer(kept_open, keep_alive=True) as server:
        async with open_client(server, transport) as client:
            for name in order:
                await CALLS[name](client)
        assert len(server.connections) == 1
    methods = {"delete": "DELETE", "add": "POST", "create": "POST"}
    assert [each.method for each in server.received] == [methods.get(each, "GET") for each in order]
    assert [bool(each.body) for each in server.received] == [
        each in {"add", "create"} for each in order
    ]


# Each code has an error that says what to do.


PERMANENT, PASSING = Persistence.PERMANENT, Persistence.PASSING
CODES: list[tuple[int, str, type[OctogenUrlListError], Persistence, str]] = [
    (404, "url_list_not_found", OctogenUrlListNotFoundError, PERMANENT, "no list with this id"),
    (409, "url_list_deleting", OctogenUrlListError, PERMANENT, "Create a new list"),
    (409, "url_list_migrating", OctogenUrlListUnavailableError, PASSING, "in a few minutes"),
    (409, "url_list_name_conflict", OctogenUrlListNameConflictError, PERMANENT, "another name"),
    (409, "url_list_limit_exceeded", OctogenUrlListError, PERMANENT, "delete one"),
    (409, "list_url_capacity_exceeded", OctogenUrlListCapacityError, PERMANENT, "Add fewer"),
    (400, "invalid_cursor", OctogenUrlListError, PERMANENT, "without a cursor"),
    (503, "url_lists_unavailable", OctogenUrlListUnavailableError, PASSING, "Try again later"),
]


@pytest.mark.parametrize("as_object", [False, True], ids=["a text", "an object"])
@pytest.mark.parametrize(
    ("status", "code", "kind", "persistence", "advice"), CODES, ids=[each[1] for each in CODES]
)
async def test_a_code_is_an_error_with_advice(
    status: int,
    code: str,
    kind: type[OctogenUrlListError],
    persistence: Persistence,
    advice: str,
    as_object: bool,
) -> None:
    detail = {"code": code, "message": "Because."} if as_object else code
    with RawServer(lambda _: refused(status, detail)) as server:
        error = await error_of(server, "blocking", CALLS["urls"])
    assert len(server.received) == 1
    assert isinstance(error, OctogenUrlListError)
    assert (type(error), error.persistence) == (kind, persistence)
    assert (error.code, error.status_code, error.detail) == (code, status, detail)
    begin = f"The URLs of URL list 'cul_1' failed: {status} {code}, request r-7. "
    assert str(error).startswith(begin)
    assert advice in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.code, str(copy)) == (kind, code, str(error))
    assert_silent(error)


def test_the_errors_are_what_callers_already_handle() -> None:
    assert issubclass(OctogenUrlListNotFoundError, OctogenNotFoundError)
    assert issubclass(OctogenUrlListUnavailableError, OctogenServerError)
    assert OctogenUrlListError.__bases__ == (OctogenAPIError,)


SUBJECTS = {
    "create": "Creating URL list 'q3' failed: ",
    "lists": "The list of URL lists failed: ",
    "get": "URL list 'cul_1' failed: ",
    "delete": "Deleting URL list 'cul_1' failed: ",
    "add": "Adding to URL list 'cul_1' failed: ",
    "remove": "Removing from URL list 'cul_1' failed: ",
    "check": "Checking URL list 'cul_1' failed: ",
    "urls": "The URLs of URL list 'cul_1' failed: ",
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("response", "kind", "says"),
    [
        (refused(409, "url_list_frozen"), OctogenAPIError, "409 url_list_frozen, request r-7. See"),
        (
            refused(404, "Not Found"),
            OctogenNotFoundError,
            "or for this API key (404). URL lists require the current API contract. Ask Octogen",
        ),
        (refused(404, "url_list_not_found"), OctogenUrlListNotFoundError, "404 url_list_not_found"),
    ],
    ids=["an unknown code", "a service without lists", "no such list"],
)
async def test_an_error_names_its_list(
    name: str, response: list[bytes], kind: type[OctogenAPIError], says: str
) -> None:
    with RawServer(lambda _: response) as server:
        error = await error_of(server, "blocking", CALLS[name])
    assert type(error) is kind
    assert str(error).startswith(SUBJECTS[name])
    assert says in str(error)


async def test_other_operations_do_not_have_these_errors() -> None:
    with RawServer(lambda _: refused(400, "invalid_cursor")) as server:
        error = await error_of(server, "httpx", lambda client: client.search_products())
    assert type(error) is OctogenAPIError


class TestCapacity:
    async def test_it_says_how_many_fit_and_asks_for_that_only_then(
        self, transport: Transport
    ) -> None:
        full = refused(409, "list_url_capacity_exceeded")
        with RawServer(in_turn(full, http(200, LIST))) as server:
            urls = [f"{URL}{number}" for number in range(700)]
            error = await error_of(
                server, transport, lambda client: client.add_coverage_url_list_urls(ID, urls)
            )
        assert [each.method for each in server.received] == ["POST", "GET"]
        assert isinstance(error, OctogenUrlListCapacityError)
        assert str(error) == (
            "URL list 'q3' (cul_1) has 99,500 URLs and room for 500 more. None of the 700 URLs "
            "in the request were added (409 list_url_capacity_exceeded). Add fewer URLs, "
            "remove some URLs first, or use another list."
        )
        copy = pickle.loads(pickle.dumps(error))
        assert (copy.urls_left, str(copy), copy.code) == (500, str(error), error.code)
        assert error.with_message("other").urls_left == 500

        with RawServer(answer) as server:
            async with open_client(server, transport) as client:
                await CALLS["add"](client)
        assert len(server.received) == 1

    @pytest.mark.parametrize("then", [http(500), http(200, {}), []], ids=["500", "odd", "none"])
    async def test_it_is_told_without_the_number_if_that_cannot_be_got(
        self, transport: Transport, then: list[bytes]
    ) -> None:
        full = refused(409, "list_url_capacity_exceeded")
        with RawServer(in_turn(full, then)) as server:
            error = await error_of(server, transport, CALLS["add"])
        assert isinstance(error, OctogenUrlListCapacityError)
        assert error.urls_left is None
        assert str(error).startswith("Adding to URL list 'cul_1' failed: 409 list_url_capacity")


# What passes by itself is retried, and nothing of it is charged.


@pytest.mark.parametrize(
    "passing",
    [
        refused(409, "url_list_migrating"),
        refused(503, "url_lists_unavailable", retry_after="0"),
        refused(429, "rate_limit_exceeded", retry_after="0"),
        http(500),
        [],
        http(200, LIST, length=10_000),
    ],
    ids=["migrating", "unavailable", "rate limit", "500", "no answer", "cut off"],
)
@pytest.mark.parametrize("name", ["create", "delete", "add", "lists"])
async def test_what_passes_is_sent_again_as_it_was(passing: list[bytes], name: str) -> None:
    left = [passing, passing]
    with RawServer(lambda request: left.pop() if left else answer(request)) as server:
        async with open_client(server, "blocking", retry=QUICK) as client:
            await CALLS[name](client)
    assert len(server.received) == 3
    assert len({(each.method, each.target, each.body) for each in server.received}) == 1


@pytest.mark.parametrize("code", ["url_list_deleting", "url_list_limit_exceeded"])
async def test_what_lasts_is_not_sent_again(code: str) -> None:
    with RawServer(lambda _: refused(409, code)) as server:
        await error_of(server, "blocking", CALLS["add"], retry=QUICK)
    assert len(server.received) == 1


async def test_a_list_whose_creation_was_not_answered_is_a_conflict_of_its_name() -> None:
    lost, conflict = [b"HTTP/1.1 201"], refused(409, "url_list_name_conflict")
    with RawServer(in_turn(lost, conflict)) as server:
        error = await error_of(server, "blocking", CALLS["create"], retry=QUICK)
    assert isinstance(error, OctogenUrlListNameConflictError)
    assert len(server.received) == 2


async def test_a_migration_that_outlasts_the_deadline_is_told_at_once() -> None:
    migrating = refused(409, "url_list_migrating", retry_after="60")
    policy = RetryPolicy(deadline=30)
    with RawServer(lambda _: migrating) as server:
        error = await error_of(server, "blocking", CALLS["add"], retry=policy)
    assert isinstance(error, OctogenUrlListUnavailableError)
    assert (len(server.received), error.retry_after) == (1, 60)


@every_call
async def test_it_is_free(call: Call) -> None:
    spending = Spending(Prices(), budget_usd=0.001)
    with RawServer(answer) as server:
        async with open_client(server, "blocking", spending=spending) as client:
            await call(client)
    assert (spending.requests, spending.charged_requests) == (1, 0)
    assert spending.spent_usd == Decimal(0)


@pytest.mark.parametrize("name", CALLS)
async def test_requests_about_urls_leave_a_share_of_the_rate_limit_to_others(name: str) -> None:
    named = {"x_ratelimit_limit": "6000", "x_ratelimit_remaining": "3000"}

    def limited(request: Received) -> list[bytes]:
        lines = "".join(f"{key.replace('_', '-')}: {value}\r\n" for key, value in named.items())
        (whole,) = answer(request)
        return [whole.replace(b"\r\n\r\n", f"\r\n{lines}\r\n".encode(), 1)]

    with RawServer(limited) as server:
        limiter = RateLimiter(reserved_percent=50)
        async with open_client(server, "blocking", rate_limiter=limiter) as client:
            for _ in range(3):
                await CALLS[name](client)
            waited = client.statistics.rate_limit_wait_seconds
    assert (waited > 0) == (name in {"add", "remove", "check", "urls"})


def test_the_resource_has_the_operations() -> None:
    with RawServer(answer) as server:
        octogen = octogen_at(server)
        assert octogen.create_coverage_url_list("q3").url_list_id == ID
        assert octogen.list_coverage_url_lists(limit=2).items == []
        assert octogen.get_coverage_url_list(ID).url_count == 99_500
        assert octogen.delete_coverage_url_list(ID).status == "delete_pending"
        assert octogen.add_coverage_url_list_urls(ID, [URL]).url_count == 3
        assert octogen.remove_coverage_url_list_urls(ID, [URL]).request_id == "r-1"
        assert octogen.check_coverage_url_list_urls(ID, [URL]).results == []
        assert octogen.list_coverage_url_list_urls(ID, cursor="c", limit=2).next_cursor is None
    root = "/v1/coverage/url-lists"
    assert [(each.method, each.target) for each in server.received] == [
        ("POST", root),
        ("GET", f"{root}?limit=2"),
        ("GET", f"{root}/{ID}"),
        ("DELETE", f"{root}/{ID}"),
        ("POST", f"{root}/{ID}/urls"),
        ("POST", f"{root}/{ID}/urls/remove"),
        ("POST", f"{root}/{ID}/urls/contains"),
        ("GET", f"{root}/{ID}/urls?cursor=c&limit=2"),
    ]
    assert {each.headers["authorization"] for each in server.received} == {f"Bearer {KEY}"}
