"""Octogen's MCP server and the login to it.

The `mcp` package speaks both protocols. This file has the four tools for BigQuery, and keeps the
clients, codes and tokens of an authorization server that grants every request.
"""

import json
import re
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    OAuthAuthorizationServerProvider,
    ProviderTokenVerifier,
    RefreshToken,
    construct_redirect_uri,
)
from mcp.server.auth.settings import AuthSettings
from mcp.server.lowlevel import Server
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, TextContent, Tool
from pydantic import AnyUrl, TypeAdapter, ValidationError, validate_call
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import TypedDict

from octogen_dagster.sandbox.listings import HubCall, Listing, Listings, State

MCP_PATH = "/mcp/"
TOKEN_PATH = "/token"  # noqa: S105
CLIENT_ID = "octogen-sandbox-client"
SCOPES: Final = ["openid", "profile", "email", "offline_access"]
_ACCESS_TOKEN_SECONDS = 300
_RATE_LIMITED = -32029
_STATUSES: dict[str, str] = {"STATE_ACTIVE": "active", "STATE_STALE": "source_stale"}

Json = dict[str, Any]
_Grant = TypeVar("_Grant", AuthorizationCode, RefreshToken)


class SubscriberRequest(TypedDict):
    """What `register_bigquery_subscriber` takes."""

    subscriberProjectId: str
    subscriberPrincipal: str


class Tools:
    """The tools, and what Octogen knows of each subscriber and each shared catalog.

    A catalog may be subscribed to as soon as the store says so, but Octogen learns of a
    subscription only when it is told to refresh the cell.
    """

    def __init__(self, store: Listings, take_request: Callable[[], int | None]) -> None:
        self._store = store
        self._take_request = take_request
        self._subscribers: dict[tuple[str, str], Json] = {}
        self._known: dict[tuple[str, str], str] = {}
        self._tools: dict[str, Callable[..., Any]] = {
            "list_bigquery_listing_resources": self.list_listings,
            "list_bigquery_subscribers": self.list_subscribers,
            "register_bigquery_subscriber": self.register,
            "refresh_bigquery_subscription_status": self.refresh,
        }

    async def list_tools(self, ctx: object, params: object) -> ListToolsResult:
        """Answer `tools/list`."""
        return ListToolsResult(
            tools=[
                Tool(
                    name=name,
                    description=tool.__doc__,
                    input_schema=TypeAdapter(tool).json_schema(),  # type: ignore[arg-type]
                )
                for name, tool in self._tools.items()
            ]
        )

    async def call_tool(self, ctx: object, params: CallToolRequestParams) -> CallToolResult:
        """Answer `tools/call`; each takes a request from the rate limit."""
        call = self._store.log(HubCall("mcp", params.name, params.arguments or {}))
        retry_after = self._take_request()
        if retry_after is not None:
            call.outcome = str(_RATE_LIMITED)
            raise MCPError(_RATE_LIMITED, "rate_limit_exceeded", {"retry_after": retry_after})
        call.outcome = "error"
        try:
            value = validate_call(self._tools[params.name])(**call.arguments)
        except (KeyError, ValidationError) as error:
            text = f"Error executing tool {params.name}: {error}"
            return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)
        if "error" not in value:
            call.outcome = "OK"
        return CallToolResult(
            content=[TextContent(type="text", text=json.dumps(value))],
            structured_content={"result": value},
        )

    def list_listings(self, catalogs: list[str] | None = None) -> list[Json] | Json:
        """List the listings of the shared catalogs."""
        shared = [each for each in self._store.listings if each.access != "removed"]
        missing = set(catalogs or ()) - {listing.catalog for listing in shared}
        if missing:
            return _failure("catalog_not_granted", f"{min(missing)!r} has no BigQuery listing")
        return [
            {"catalogKey": listing.catalog, **_place(listing, "<your-project>")}
            for listing in shared
            if catalogs is None or listing.catalog in catalogs
        ]

    def list_subscribers(self) -> Json:
        """List the subscribers and their cells."""
        subscribers = list(self._subscribers.values())
        return {
            "subscribers": subscribers,
            "cells": self._cells(subscribers, self._store.listings),
        }

    def register(self, request: SubscriberRequest) -> Json:
        """Register a subscriber."""
        key = (request["subscriberProjectId"], request["subscriberPrincipal"])
        own_id = f"subscriber-{len(self._subscribers) + 1}"
        new = {"subscriberId": own_id, **request, "desiredState": "enabled"}
        subscriber = self._subscribers.setdefault(key, new)
        cells = self._cells([subscriber], self._store.listings)
        return {"subscriber": subscriber, "cells": cells}

    def refresh(
        self,
        catalog_key: str,
        subscriber_principal: str,
        share_schema: str = "exported_product_view",
        schema_version: str = "v1",
    ) -> Json:
        """Look up whether a subscriber has subscribed to a catalog."""
        subscribers = [
            subscriber
            for (_, principal), subscriber in self._subscribers.items()
            if principal == subscriber_principal
        ]
        shared = [each for each in self._store.listings if each.catalog == catalog_key]
        if not subscribers:
            return _failure("subscriber_not_found", f"{subscriber_principal} is not registered")
        if not shared:
            return _failure("catalog_not_found", f"{catalog_key!r} is not shared")
        for subscription in self._store.subscriptions:
            if subscription.catalog == catalog_key:
                self._known[subscription.project, catalog_key] = subscription.name
        return self._cells(subscribers, shared)[0]

    def _cells(self, subscribers: list[Json], shared: Iterable[Listing]) -> list[Json]:
        states = {each.name: each.state for each in self._store.subscriptions}
        return [
            {
                "subscriberId": subscriber["subscriberId"],
                "catalogKey": listing.catalog,
                **self._status(subscriber, listing, states),
                **_place(listing, subscriber["subscriberProjectId"]),
                "shareSchema": "exported_product_view",
                "schemaVersion": "v1",
            }
            for subscriber in subscribers
            for listing in shared
        ]

    def _status(self, subscriber: Json, listing: Listing, states: dict[str, State]) -> Json:
        if listing.access == "removed":
            return {"status": "removing", "reasonCode": "removing"}
        if listing.access != "granted":
            reason = "scope_revoked" if listing.access == "revoked" else "preparing"
            return {"status": "preparing", "reasonCode": reason}
        known = self._known.get((subscriber["subscriberProjectId"], listing.catalog), "")
        status = _STATUSES.get(states.get(known, ""), "awaiting_subscription")
        return {"status": status, "reasonCode": None}


def _failure(error: str, message: str) -> Json:
    return {"error": error, "message": message}


def _place(listing: Listing, project: str) -> Json:
    """Return the fields that say where a catalog is and how to read it from `project`."""
    dataset = "octogen_" + re.sub(r"[^A-Za-z0-9_]", "_", listing.name.rpartition("/")[2])
    view = f"{project}.{dataset}.products_current_v1"
    return {
        "listingResource": listing.name,
        "linkedDatasetSuggestion": dataset,
        "location": listing.location,
        "sampleQuery": f"SELECT * FROM `{view}` LIMIT 10;",  # noqa: S608
    }


class Login(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    """The clients, codes and tokens. One public client is built in, with tokens from the start.

    If it `rotates`, a refresh token is replaced, and invalid, once it is used.
    """

    def __init__(self, store: Listings, rotates: Callable[[], bool]) -> None:
        self._rotates = rotates
        self._store = store
        self._clients = {
            CLIENT_ID: OAuthClientInformationFull(
                client_id=CLIENT_ID,
                token_endpoint_auth_method="none",  # noqa: S106
                redirect_uris=[AnyUrl("http://127.0.0.1:8765/callback")],
                scope=" ".join(SCOPES),
            )
        }
        self._codes: dict[str, AuthorizationCode] = {}
        self._access: dict[str, AccessToken] = {}
        self._refresh: dict[str, RefreshToken] = {}
        self.refresh_token = self._new_refresh_token(CLIENT_ID, SCOPES)
        self.access_token = self._tokens(CLIENT_ID, SCOPES).access_token

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        return self._clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        self._clients[str(client_info.client_id)] = client_info

    async def authorize(
        self, client: OAuthClientInformationFull, params: AuthorizationParams
    ) -> str:
        code = AuthorizationCode(
            **params.model_dump(exclude={"state", "scopes"}),
            code=secrets.token_urlsafe(24),
            scopes=params.scopes or (client.scope or "").split(),
            expires_at=time.time() + 60,
            client_id=str(client.client_id),
        )
        self._codes[code.code] = code
        return construct_redirect_uri(str(params.redirect_uri), code=code.code, state=params.state)

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        return self._look_up(self._codes, authorization_code, "authorization_code", client)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        del self._codes[authorization_code.code]
        client_id, scopes = authorization_code.client_id, authorization_code.scopes
        lasts = "offline_access" in scopes
        refresh_token = self._new_refresh_token(client_id, scopes) if lasts else None
        return self._tokens(client_id, scopes, refresh_token)

    async def load_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: str
    ) -> RefreshToken | None:
        return self._look_up(self._refresh, refresh_token, "refresh_token", client)

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        new = None
        if self._rotates():
            del self._refresh[refresh_token.token]
            new = self._new_refresh_token(refresh_token.client_id, refresh_token.scopes)
            if refresh_token.token == self.refresh_token:
                self.refresh_token = new
        return self._tokens(refresh_token.client_id, scopes, new)

    async def load_access_token(self, token: str) -> AccessToken | None:
        return self._access.get(token)

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        raise NotImplementedError("the sandbox has no revocation endpoint")

    def _look_up(
        self, kept: dict[str, _Grant], grant: str, kind: str, client: OAuthClientInformationFull
    ) -> _Grant | None:
        found = kept.get(grant)
        shown = {"grant_type": kind, "client_id": client.client_id}
        self._store.log(HubCall("token", "token", shown, "OK" if found else "400"))
        return found

    def _new_refresh_token(self, client_id: str, scopes: list[str]) -> str:
        token = f"sandbox-refresh-{secrets.token_urlsafe(24)}"
        self._refresh[token] = RefreshToken(token=token, client_id=client_id, scopes=scopes)
        return token

    def _tokens(
        self, client_id: str, scopes: list[str], refresh_token: str | None = None
    ) -> OAuthToken:
        token = f"sandbox-access-{secrets.token_urlsafe(24)}"
        expires_at = int(time.time()) + _ACCESS_TOKEN_SECONDS
        self._access[token] = AccessToken(
            token=token, client_id=client_id, scopes=scopes, expires_at=expires_at
        )
        return OAuthToken(
            access_token=token,
            expires_in=_ACCESS_TOKEN_SECONDS,
            scope=" ".join(scopes),
            refresh_token=refresh_token,
        )


def create_app(tools: Tools, login: Login, origin: str, rest: ASGIApp) -> ASGIApp:
    """Return the application that serves the tools, the login, and `rest` below /v1."""
    server: Server[Any] = Server(
        "octogen-sandbox", on_list_tools=tools.list_tools, on_call_tool=tools.call_tool
    )
    settings = {
        "issuer_url": origin,
        "resource_server_url": f"{origin}{MCP_PATH}",
        "validate_token_resource": False,
        "client_registration_options": {
            "enabled": True,
            "valid_scopes": SCOPES,
            "default_scopes": SCOPES,
        },
    }
    app = server.streamable_http_app(
        streamable_http_path=MCP_PATH,
        json_response=True,
        stateless_http=True,
        auth=AuthSettings.model_validate(settings),
        auth_server_provider=login,
        token_verifier=ProviderTokenVerifier(login),
    )

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        is_rest = scope["type"] == "http" and scope["path"].startswith("/v1/")
        await (rest if is_rest else app)(scope, receive, send)

    return choose
