from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any

import pytest

from octogen_dagster.control_plane.call_errors import call_error, leaf_errors
from octogen_dagster.control_plane.http_exchange import HttpExchange
from octogen_dagster.control_plane.tools import OctogenMCP
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
)
from tests.api.servers import Received, http
from tests.control_plane.servers import (
    TOKEN,
    Respond,
    mcp,
    octogen_at,
    quick,
    refuse,
    reply,
)
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.hostile_hub import HubFault
from tests.sharing.secrets import leaks

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


def test_the_errors_in_nested_groups_are_found() -> None:
    first, second = ValueError("1"), KeyError("2")
    group = ExceptionGroup("all", [first, ExceptionGroup("some", [second])])
    assert list(leaf_errors(group)) == [first, second]
    assert list(leaf_errors(first)) == [first]


def test_a_defect_of_this_package_is_raised_as_it_is() -> None:
    defect = TypeError("a defect")
    with pytest.raises(TypeError, match="a defect") as caught:
        call_error("A tool", [defect], HttpExchange(), 30.0)
    assert caught.value is defect


def test_a_connection_that_closes_without_a_cause_is_a_connection_error() -> None:
    error = call_error("A tool", [], HttpExchange(), 30.0)
    assert type(error) is OctogenConnectionError
    assert str(error) == (
        "A tool did not answer (the connection was closed): check the address and the network."
    )


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (
            HubFault("html"),
            OctogenMCPError,
            "gave no result (-32600: Unexpected content type: text/html): check the "
            "address of the MCP server, or report it to Octogen.",
        ),
        (HubFault("http_status", 404), OctogenMCPError, "refused with 404 (Not Found): check the"),
        (HubFault("http_status", 403), OctogenMCPError, "refused with 403 (Server returned an"),
        (HubFault("http_status", 503), OctogenMCPError, "failed with 503: try again later."),
        (HubFault("http_status", 429), OctogenMCPRateLimitError, "failed with 429: try again"),
        (
            HubFault("rate_limit", 900),
            OctogenMCPRateLimitError,
            "refused: the organisation's request budget is spent (rate_limit_exceeded). Try again "
            "in 900 s.",
        ),
    ],
)
def test_the_message_names_the_server_the_tool_and_the_problem(
    hub: Hub, octogen: OctogenMCP, fault: HubFault, kind: type[OctogenError], message: str
) -> None:
    hub.inject(fault)
    with pytest.raises(kind) as caught:
        octogen.listings()
    assert type(caught.value) is kind
    assert str(caught.value).startswith(
        f"Octogen's MCP at {hub.mcp_url}, asked for list_bigquery_listing_resources, "
    )
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("response", "kind", "message"),
    [
        ([b""], OctogenConnectionError, "did not answer (RemoteProtocolError): check"),
        (http(length=50), OctogenConnectionError, "did not answer (RemoteProtocolError)"),
        (http(body=b"{nope"), OctogenMCPError, "gave no result (-32700: Failed to parse"),
        (http(302, location="http://x.example/"), OctogenMCPError, "Redirect to http://x."),
        (http(401), OctogenMCPAuthenticationError, "is refused; they live for"),
    ],
)
@pytest.mark.parametrize("first", [False, True])
def test_a_response_that_is_none_of_mcp_shows_no_token(
    response: list[bytes], kind: type[OctogenError], message: str, first: bool
) -> None:
    def respond(_: Received) -> Iterable[bytes]:
        return response

    with octogen_at(respond if first else mcp(respond)) as octogen, pytest.raises(kind) as caught:
        octogen.subscribers()
    assert type(caught.value) is kind
    assert message in str(caught.value)
    assert leaks(caught.value, TOKEN) == []


def test_a_result_of_another_shape_is_reported() -> None:
    respond: Respond = mcp(lambda request: reply(request, {"content": 5}))
    with (
        octogen_at(respond) as octogen,
        pytest.raises(OctogenMCPError, match="gave a result that is none of MCP: report it") as it,
    ):
        octogen.subscribers()
    assert leaks(it.value, TOKEN) == []


def test_an_error_that_quotes_the_token_does_not_show_it() -> None:
    respond: Respond = mcp(lambda request: refuse(request, code=-32600, message=f"bad {TOKEN}"))
    with (
        octogen_at(respond) as octogen,
        pytest.raises(OctogenMCPError, match=r"\(-32600: bad \[access token\]\)") as caught,
    ):
        octogen.subscribers()
    assert leaks(caught.value, TOKEN) == []


@pytest.mark.parametrize("value", ["soon", -1, math.nan, math.inf, 10**400, True, None])
def test_a_rate_limit_without_a_usable_wait_asks_for_one_second(value: Any) -> None:
    respond: Respond = mcp(
        lambda request: refuse(request, code=-32029, message="spent", data={"retry_after": value})
    )
    with (
        octogen_at(respond, retry=quick(deadline=0.5)) as octogen,
        pytest.raises(OctogenMCPRateLimitError, match=r"Try again in 1 s\.") as caught,
    ):
        octogen.subscribers()
    assert caught.value.retry_after == 1.0
