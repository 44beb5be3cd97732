"""The login: the token endpoint, and a login of the official client through a browser."""

import base64
import hashlib
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)
from pydantic import AnyUrl

from octogen_dagster.sandbox.hub.faults import HubFault
from octogen_dagster.sandbox.hub.server import Hub
from tests.sandbox.hub.calls import SECONDS, call

REDIRECT = "http://127.0.0.1:9/callback"
LIST = "list_bigquery_subscribers"


def exchange(hub: Hub, **form: str) -> httpx.Response:
    return httpx.post(hub.token_endpoint, data=form, timeout=SECONDS)


def refresh(hub: Hub, refresh_token: str, client_id: str | None = None) -> httpx.Response:
    return exchange(
        hub,
        grant_type="refresh_token",
        refresh_token=refresh_token,
        client_id=client_id or hub.client_id,
    )


def metadata(hub: Hub) -> dict[str, Any]:
    url = f"{hub.authorization_server}/.well-known/oauth-authorization-server"
    document: dict[str, Any] = httpx.get(url, timeout=SECONDS).json()
    return document


def register(hub: Hub, **more: Any) -> httpx.Response:
    body = {"redirect_uris": [REDIRECT], "token_endpoint_auth_method": "none", **more}
    return httpx.post(metadata(hub)["registration_endpoint"], json=body, timeout=SECONDS)


class Login:
    """A login through a browser, up to the authorization code."""

    def __init__(self, hub: Hub, client_id: str, **more: str) -> None:
        self.verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(self.verifier.encode()).digest()
        parameters = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": REDIRECT,
            "state": "some state",
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            **more,
        }
        endpoint = metadata(hub)["authorization_endpoint"]
        self.response = httpx.get(endpoint, params=parameters, timeout=SECONDS)
        location = urlsplit(self.response.headers.get("location", ""))
        self.redirect = location._replace(query="").geturl()
        self.redirected = {key: values[0] for key, values in parse_qs(location.query).items()}

    def form(self, client_id: str, **more: str) -> dict[str, str]:
        return {
            "grant_type": "authorization_code",
            "code": self.redirected["code"],
            "redirect_uri": REDIRECT,
            "client_id": client_id,
            "code_verifier": self.verifier,
            **more,
        }


class TestRefresh:
    def test_a_refresh_token_is_exchanged_for_an_access_token(self, hub: Hub) -> None:
        response = refresh(hub, hub.refresh_token)
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-store"
        tokens = response.json()
        assert tokens["token_type"] == "Bearer"
        assert tokens["expires_in"] == 300
        assert "refresh_token" not in tokens
        assert not call(hub, LIST, token=tokens["access_token"]).is_error
        assert refresh(hub, hub.refresh_token).json()["access_token"] != tokens["access_token"]

    def test_lifetime_is_adjustable(self, hub: Hub) -> None:
        hub.settings.access_token_seconds = 1.5
        assert refresh(hub, hub.refresh_token).json()["expires_in"] == 1

    def test_a_rotated_token_is_invalid_at_once(self, hub: Hub) -> None:
        hub.settings.rotate_refresh_tokens = True
        first = hub.refresh_token
        second = refresh(hub, first).json()["refresh_token"]
        assert second == hub.refresh_token != first
        refused = refresh(hub, first)
        assert refused.status_code == 400
        assert refused.json()["error"] == "invalid_grant"
        assert refresh(hub, second).json()["refresh_token"] == hub.refresh_token

    def test_of_concurrent_requests_one_gets_the_new_token(self, hub: Hub) -> None:
        hub.settings.rotate_refresh_tokens = True
        together, token = threading.Barrier(8), hub.refresh_token

        def try_it(_: int) -> int:
            together.wait(timeout=SECONDS)
            return refresh(hub, token).status_code

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(try_it, range(8))) == [200] + [400] * 7

    def test_a_response_may_be_lost_after_the_rotation(self, hub: Hub) -> None:
        hub.settings.rotate_refresh_tokens = True
        token = hub.refresh_token
        hub.inject(HubFault("lost_response", method="token", times=1))
        assert refresh(hub, token).status_code == 502
        assert refresh(hub, token).json()["error"] == "invalid_grant"
        assert refresh(hub, hub.refresh_token).status_code == 200

    @pytest.mark.parametrize(
        ("form", "status", "error"),
        [
            ({"refresh_token": "wrong"}, 400, "invalid_grant"),
            ({"client_id": "wrong"}, 401, "invalid_client"),
            ({"client_id": ""}, 401, "invalid_client"),
            ({"grant_type": "password"}, 400, "invalid_request"),
            ({"refresh_token": ""}, 400, "invalid_grant"),
        ],
    )
    def test_an_invalid_request_is_refused(
        self, hub: Hub, form: dict[str, str], status: int, error: str
    ) -> None:
        good = {
            "grant_type": "refresh_token",
            "refresh_token": hub.refresh_token,
            "client_id": hub.client_id,
        }
        response = exchange(hub, **(good | form))
        assert (response.status_code, response.json()["error"]) == (status, error)

    def test_faults_hit_the_token_endpoint_by_name_only(self, hub: Hub) -> None:
        hub.inject(HubFault("http_status", 503, method="token", times=1))
        hub.inject(HubFault("html", method="token", times=1))
        assert refresh(hub, hub.refresh_token).status_code == 503
        page = refresh(hub, hub.refresh_token)
        assert (page.status_code, page.text[:9]) == (200, "<!doctype")
        hub.inject(HubFault("html"))
        assert refresh(hub, hub.refresh_token).json()["access_token"]

    def test_the_log_has_no_secret(self, hub: Hub) -> None:
        refresh(hub, hub.refresh_token)
        refresh(hub, "wrong")
        good, bad = [call for call in hub.calls if call.surface == "token"]
        assert good.arguments == {"grant_type": "refresh_token", "client_id": hub.client_id}
        assert (good.outcome, bad.outcome) == ("OK", "400")
        assert "wrong" not in repr(hub.calls)


class TestLogin:
    def test_the_metadata_names_the_endpoints(self, hub: Hub) -> None:
        document = metadata(hub)
        assert document["issuer"] == hub.authorization_server
        assert document["token_endpoint"] == hub.token_endpoint
        assert document["code_challenge_methods_supported"] == ["S256"]
        assert "none" in document["token_endpoint_auth_methods_supported"]

    def test_a_new_client_logs_in(self, hub: Hub) -> None:
        client = register(hub).json()
        assert "client_secret" not in client
        login = Login(hub, client["client_id"], scope="openid offline_access")
        assert login.response.status_code == 302
        assert login.redirect == REDIRECT
        assert login.redirected["state"] == "some state"
        tokens = exchange(hub, **login.form(client["client_id"])).json()
        assert tokens["scope"] == "openid offline_access"
        assert not call(hub, LIST, token=tokens["access_token"]).is_error
        again = refresh(hub, tokens["refresh_token"], client["client_id"])
        assert again.json()["access_token"]
        assert refresh(hub, tokens["refresh_token"]).json()["error"] == "invalid_grant"
        assert hub.refresh_token != tokens["refresh_token"]

    def test_without_offline_access_there_is_no_refresh_token(self, hub: Hub) -> None:
        client_id = register(hub).json()["client_id"]
        login = Login(hub, client_id, scope="openid")
        assert "refresh_token" not in exchange(hub, **login.form(client_id)).json()

    def test_a_code_is_valid_once_and_only_with_its_verifier(self, hub: Hub) -> None:
        client_id = register(hub).json()["client_id"]
        login = Login(hub, client_id)
        for wrong in ({"code_verifier": "x" * 64}, {"code": "wrong"}):
            assert exchange(hub, **login.form(client_id, **wrong)).status_code == 400
        assert exchange(hub, **login.form(client_id)).status_code == 200
        again = exchange(hub, **login.form(client_id))
        assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")

    def test_unknown_clients_and_redirects_are_refused(self, hub: Hub) -> None:
        assert Login(hub, "nobody").response.status_code == 400
        client_id = register(hub).json()["client_id"]
        elsewhere = Login(hub, client_id, redirect_uri="http://evil.example/")
        assert elsewhere.response.status_code == 400
        assert register(hub, redirect_uris=[]).status_code == 400
        assert register(hub, scope="root").status_code == 400

    async def test_the_official_client_logs_in_and_refreshes(self, hub: Hub) -> None:
        hub.settings.rotate_refresh_tokens = True
        storage = _Storage()
        provider = OAuthClientProvider(
            hub.mcp_url,
            OAuthClientMetadata(
                client_name="test",
                redirect_uris=[AnyUrl(REDIRECT)],
                token_endpoint_auth_method="none",
            ),
            storage,
            redirect_handler=storage.browse,
            callback_handler=storage.come_back,
        )
        async with httpx2.AsyncClient(auth=provider, timeout=SECONDS) as http:
            for browsed in (1, 1):
                async with Client(streamable_http_client(hub.mcp_url, http_client=http)) as client:
                    assert not (await client.call_tool(LIST, {})).is_error
                assert storage.browsed == browsed
                provider.context.token_expiry_time = 1  # long ago
        grants = [call.arguments["grant_type"] for call in hub.calls if call.surface == "token"]
        assert grants == ["authorization_code", "refresh_token"]
        assert {call.outcome for call in hub.calls if call.surface == "token"} == {"OK"}


class _Storage:
    """The storage of the official client, and a browser that follows the redirect."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None
        self.browsed = 0

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info

    async def browse(self, url: str) -> None:
        async with httpx.AsyncClient() as browser:
            location = (await browser.get(url)).headers["location"]
        self.redirected = parse_qs(urlsplit(location).query)
        self.browsed += 1

    async def come_back(self) -> AuthorizationCodeResult:
        return AuthorizationCodeResult(
            code=self.redirected["code"][0], state=self.redirected["state"][0]
        )
