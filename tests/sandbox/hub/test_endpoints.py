"""The hub's HTTP endpoints: the log of their calls and the effects of faults."""

import threading

import httpx

from octogen_dagster.sandbox.hub.endpoints import RPC, TOKENS
from octogen_dagster.sandbox.hub.faults import HubFault
from octogen_dagster.sandbox.hub.server import Hub
from octogen_dagster.sandbox.server import Sandbox
from tests.sandbox.hub.calls import (
    LIST_SUBSCRIBERS,
    PRINCIPAL,
    PROJECT,
    SECONDS,
    outcomes,
    post,
    post_tool,
    register,
    value,
    wait_until,
)


class TestLog:
    def test_calls_are_logged_with_their_arguments(self, hub: Hub) -> None:
        register(hub)
        calls = [call for call in hub.calls if call.method == "register_bigquery_subscriber"]
        assert [(call.surface, call.outcome) for call in calls] == [("mcp", "OK")]
        assert calls[0].arguments == {
            "request": {"subscriberProjectId": PROJECT, "subscriberPrincipal": PRINCIPAL}
        }
        assert "initialize" in {call.method for call in hub.calls}

    def test_a_body_that_is_not_json_rpc_is_a_client_error(self, hub: Hub) -> None:
        headers = {"Authorization": f"Bearer {hub.access_token}", "Accept": "application/json"}
        for body in (b"", b"{", b"[]", b"1", b'{"method": 5, "params": []}'):
            response = httpx.post(
                hub.mcp_url,
                content=body,
                headers={**headers, "Content-Type": "application/json"},
            )
            assert 400 <= response.status_code < 500
        assert post_tool(hub).status_code == 200

    def test_the_outcome_of_a_token_request_is_its_status(self) -> None:
        form = b"grant_type=refresh_token&client_id=c&refresh_token=secret"
        call = ("token", {"grant_type": "refresh_token", "client_id": "c"})
        assert TOKENS.parse_call(form) == call
        assert TOKENS.parse_outcome(b"{}") == "OK"

    def test_the_outcome_of_an_mcp_call_is_in_its_body(self) -> None:
        assert RPC.parse_outcome(b'{"error": {"code": -32029}}') == "-32029"
        assert RPC.parse_outcome(b'{"result": {"isError": true}}') == "error"
        failure = b'{"result": {"structuredContent": {"result": {"error": "x"}}}}'
        assert RPC.parse_outcome(failure) == "error"
        assert RPC.parse_outcome(b'{"result": {}}') == "OK"
        assert RPC.parse_outcome(b"") == "OK"


class TestFaults:
    def test_a_web_page(self, hub: Hub) -> None:
        hub.inject(HubFault("html", method=LIST_SUBSCRIBERS, times=1))
        response = post_tool(hub)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/html")
        assert response.text.startswith("<!doctype html>")

    def test_a_status(self, hub: Hub) -> None:
        hub.inject(HubFault("http_status", 502, method="initialize", times=1))
        assert post(hub, "tools/list", {}).status_code == 200
        assert post(hub, "initialize", {}).status_code == 502
        assert outcomes(hub, "initialize") == ["502"]

    def test_an_expired_token(self, hub: Hub) -> None:
        hub.inject(HubFault("unauthorized", times=1))
        response = post_tool(hub)
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith('Bearer error="invalid_token"')
        assert post_tool(hub).status_code == 200

    def test_a_call_with_a_lost_response_was_done(self, hub: Hub) -> None:
        hub.inject(HubFault("lost_response", method="register_bigquery_subscriber", times=1))
        request = {"subscriberProjectId": PROJECT, "subscriberPrincipal": PRINCIPAL}
        assert post_tool(hub, "register_bigquery_subscriber", request=request).status_code == 502
        assert len(value(hub, LIST_SUBSCRIBERS)["subscribers"]) == 1

    def test_a_late_response(self, hub: Hub) -> None:
        hub.inject(HubFault("latency", 0.01))
        assert post_tool(hub).status_code == 200

    def test_it_stops_while_a_client_waits(self) -> None:
        with Sandbox(catalogs=0, hub=True) as sandbox:
            sandbox.hub.inject(HubFault("latency", 3600))
            results: list[object] = []

            def wait() -> None:
                try:
                    results.append(post_tool(sandbox.hub).status_code)
                except httpx.HTTPError as error:
                    results.append(error)

            waiting = threading.Thread(target=wait)
            waiting.start()
            wait_until(lambda: outcomes(sandbox.hub, LIST_SUBSCRIBERS) == ["OK"])
            sandbox.__exit__(None, None, None)
            waiting.join(SECONDS)
        assert len(results) == 1
