from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from octogen_dagster.control_plane.session import McpSession
from octogen_dagster.control_plane.token_refresh import RefreshedToken
from octogen_dagster.control_plane.tokens import GivenToken
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenTimeoutError,
)
from tests.api.servers import RawServer, hanging
from tests.control_plane.servers import PRINCIPAL, PROJECT, QUICK, TOKEN, mcp, quick
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.hostile_hub import HubFault

LISTINGS = "list_bigquery_listing_resources"
REGISTER = "register_bigquery_subscriber"


@pytest.fixture
def session(hub: Hub, refreshed: RefreshedToken) -> Iterator[McpSession]:
    session = McpSession(refreshed, hub.mcp_url, retry=QUICK)
    yield session
    session.close()


def count(hub: Hub, method: str) -> int:
    return [call.method for call in hub.calls].count(method)


def test_all_calls_use_one_connection(hub: Hub, session: McpSession) -> None:
    assert [session.call(LISTINGS, {}) for _ in range(3)] == [[], [], []]
    assert (count(hub, "initialize"), count(hub, LISTINGS), count(hub, "token")) == (1, 3, 1)


def test_a_closed_session_opens_a_new_connection(hub: Hub, session: McpSession) -> None:
    session.close()
    for _ in range(2):
        session.call(LISTINGS, {})
        session.close()
    assert count(hub, "initialize") == 2


def test_an_expired_token_is_replaced(hub: Hub, session: McpSession) -> None:
    session.call(LISTINGS, {})
    hub.inject(HubFault("unauthorized", times=1))
    assert session.call(LISTINGS, {}) == []
    assert count(hub, "token") == 2


def test_a_token_that_stays_refused_is_replaced_once(hub: Hub, session: McpSession) -> None:
    hub.inject(HubFault("unauthorized"))
    with pytest.raises(OctogenMCPAuthenticationError) as caught:
        session.call(LISTINGS, {})
    assert str(caught.value) == (
        f"Octogen's MCP at {hub.mcp_url}, asked for {LISTINGS}, refused the access token (401): "
        "get a new one, or run `octogen-dagster login` again."
    )
    assert count(hub, "token") == 2


def test_a_given_token_that_has_expired_is_an_error(hub: Hub) -> None:
    session = McpSession(GivenToken("expired"), hub.mcp_url)
    with pytest.raises(OctogenMCPAuthenticationError, match="live for some five minutes"):
        session.call(LISTINGS, {})


@pytest.mark.parametrize("kind", ["http_status", "lost_response", "rate_limit"])
def test_failures_that_may_pass_are_retried(hub: Hub, session: McpSession, kind: Any) -> None:
    value = {"http_status": 503, "rate_limit": 0}.get(kind)
    hub.inject(HubFault(kind, value, method=LISTINGS, times=2))
    assert session.call(LISTINGS, {}) == []
    assert count(hub, LISTINGS) == 3


def test_a_call_that_must_not_be_repeated_is_retried_only_if_it_was_not_carried_out(
    hub: Hub, session: McpSession
) -> None:
    request = {"subscriberProjectId": PROJECT, "subscriberPrincipal": PRINCIPAL}
    hub.inject(HubFault("lost_response", method=REGISTER, times=1))
    with pytest.raises(OctogenMCPError, match="failed with 502"):
        session.call(REGISTER, {"request": request}, repeatable=False)
    assert count(hub, REGISTER) == 1
    hub.inject(HubFault("rate_limit", 0, method=REGISTER, times=2))
    session.call(REGISTER, {"request": request}, repeatable=False)
    assert count(hub, REGISTER) == 4


@pytest.mark.parametrize(
    "fault",
    [HubFault("html"), HubFault("http_status", 404), HubFault("rate_limit", 900)],
    ids=lambda fault: fault.kind,
)
def test_a_session_works_again_after_a_failed_call(
    hub: Hub, session: McpSession, fault: HubFault
) -> None:
    hub.inject(fault)
    with pytest.raises(OctogenMCPError):
        session.call(LISTINGS, {})
    hub.clear_faults()
    assert session.call(LISTINGS, {}) == []


@pytest.mark.timeout(20)
def test_the_deadline_bounds_a_single_attempt(hub: Hub) -> None:
    hub.inject(HubFault("latency", 60))
    session = McpSession(GivenToken(hub.access_token), hub.mcp_url, retry=quick(deadline=0.2))
    with pytest.raises(OctogenTimeoutError, match=r"did not answer within 0\.2 s"):
        session.call(LISTINGS, {})


@pytest.mark.parametrize("first", [False, True])
def test_a_server_that_hangs_is_a_timeout(first: bool) -> None:
    server: RawServer

    def hang(_: object) -> Iterator[bytes]:
        return hanging(lambda: server)

    with RawServer(hang if first else mcp(hang)) as server:
        session = McpSession(
            GivenToken(TOKEN), f"{server.origin}/mcp/", timeout=0.2, retry=quick(deadline=0.25)
        )
        with pytest.raises(OctogenTimeoutError, match=r"answer within 0\.2 s: try again"):
            session.call(LISTINGS, {})


def test_an_address_where_nobody_listens_is_an_error() -> None:
    session = McpSession(GivenToken(TOKEN), "http://127.0.0.1:1/mcp/", retry=QUICK)
    with pytest.raises(OctogenConnectionError, match=r"did not answer \(ConnectError\): check the"):
        session.call(LISTINGS, {})


def test_a_token_is_not_sent_to_another_machine_in_the_clear() -> None:
    with pytest.raises(ValueError, match="would send a token over plain http"):
        McpSession(GivenToken(TOKEN), "http://mcp.octogen.ai/mcp/")


def test_this_machine_is_reached_without_a_proxy(
    session: McpSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert session.call(LISTINGS, {}) == []


def test_a_session_works_inside_a_running_event_loop(session: McpSession) -> None:
    async def inside() -> Any:
        return session.call(LISTINGS, {})

    assert asyncio.run(inside()) == []
