"""The login of the hub: an OAuth authorization server that grants every request.

The `mcp` package implements the protocol: client registration, authorization with PKCE and the
token endpoint. This module keeps the clients, codes and tokens.
"""

import secrets
import time
from dataclasses import dataclass
from threading import Lock
from typing import Final

from mcp.server.auth.handlers.authorize import AuthorizationHandler
from mcp.server.auth.handlers.metadata import MetadataHandler
from mcp.server.auth.handlers.register import RegistrationHandler
from mcp.server.auth.handlers.token import TokenHandler
from mcp.server.auth.middleware.client_auth import ClientAuthenticator
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    OAuthAuthorizationServerProvider,
    RefreshToken,
    TokenError,
    construct_redirect_uri,
)
from mcp.server.auth.settings import ClientRegistrationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthMetadata, OAuthToken
from pydantic import AnyUrl
from starlette.routing import Route
from starlette.types import ASGIApp

from octogen_dagster.sandbox.hub.settings import HubSettings

TOKEN_PATH = "/oauth2/token"  # noqa: S105
CLIENT_ID = "octogen-sandbox-client"
SCOPES: Final = ["openid", "profile", "email", "offline_access"]
_CODE_LIFETIME_SECONDS = 60


@dataclass(frozen=True)
class _IssuedAccess:
    access: AccessToken
    expires_at: float


class AuthorizationServer(
    OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]
):
    """Keeps clients, codes and tokens.

    One public client is built in. It has a refresh token and an access token from the start.

    Args:
        settings: The lifetime of access tokens and the rotation of refresh tokens.

    Attributes:
        refresh_token: A valid refresh token of the built-in client.
        access_token: The first access token of the built-in client.
    """

    def __init__(self, settings: HubSettings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._clients = {CLIENT_ID: _builtin_client()}
        self._codes: dict[str, AuthorizationCode] = {}
        self._access: dict[str, _IssuedAccess] = {}
        self._refresh: dict[str, RefreshToken] = {}
        self.refresh_token = self._new_refresh_token(CLIENT_ID, SCOPES)
        self.access_token = self.issue_access_token()

    def issue_access_token(self, client_id: str = CLIENT_ID, scopes: list[str] = SCOPES) -> str:
        """Issue a new access token."""
        token = f"sandbox-access-{secrets.token_urlsafe(24)}"
        access = AccessToken(token=token, client_id=client_id, scopes=scopes)
        expires_at = time.monotonic() + self._settings.access_token_seconds
        with self._lock:
            self._access[token] = _IssuedAccess(access, expires_at)
        return token

    def expire_access_tokens(self) -> None:
        """Make all access tokens expire now."""
        with self._lock:
            self._access.clear()

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        return self._clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        self._clients[client_info.client_id] = client_info

    async def authorize(
        self, client: OAuthClientInformationFull, params: AuthorizationParams
    ) -> str:
        code = AuthorizationCode(
            code=secrets.token_urlsafe(24),
            scopes=params.scopes or (client.scope or "").split(),
            expires_at=time.time() + _CODE_LIFETIME_SECONDS,
            client_id=client.client_id,
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
            resource=params.resource,
        )
        with self._lock:
            self._codes[code.code] = code
        return construct_redirect_uri(str(params.redirect_uri), code=code.code, state=params.state)

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        return self._codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        with self._lock:
            if self._codes.pop(authorization_code.code, None) is None:
                raise TokenError("invalid_grant", "authorization code was used already")
        scopes = authorization_code.scopes
        refresh = None
        if "offline_access" in scopes:
            refresh = self._new_refresh_token(client.client_id, scopes)
        return self._tokens(client.client_id, scopes, refresh)

    async def load_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: str
    ) -> RefreshToken | None:
        return self._refresh.get(refresh_token)

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        if not self._settings.rotate_refresh_tokens:
            return self._tokens(client.client_id, scopes, None)
        with self._lock:
            if self._refresh.pop(refresh_token.token, None) is None:
                raise TokenError("invalid_grant", "refresh token was replaced already")
        new = self._new_refresh_token(client.client_id, refresh_token.scopes)
        if refresh_token.token == self.refresh_token:
            self.refresh_token = new
        return self._tokens(client.client_id, scopes, new)

    async def load_access_token(self, token: str) -> AccessToken | None:
        issued = self._access.get(token)
        if issued is None or time.monotonic() >= issued.expires_at:
            return None
        return issued.access

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        raise NotImplementedError("the sandbox has no revocation endpoint")

    def _new_refresh_token(self, client_id: str, scopes: list[str]) -> str:
        token = f"sandbox-refresh-{secrets.token_urlsafe(24)}"
        with self._lock:
            self._refresh[token] = RefreshToken(token=token, client_id=client_id, scopes=scopes)
        return token

    def _tokens(self, client_id: str, scopes: list[str], refresh_token: str | None) -> OAuthToken:
        return OAuthToken(
            access_token=self.issue_access_token(client_id, scopes),
            expires_in=int(self._settings.access_token_seconds),
            scope=" ".join(scopes),
            refresh_token=refresh_token,
        )


def login_routes(server: AuthorizationServer, origin: str) -> list[Route]:
    """Return the endpoints of the login, except the token endpoint.

    Args:
        server: The authorization server.
        origin: The issuer: its scheme, host and port.
    """
    metadata = OAuthMetadata.model_validate(
        {
            "issuer": origin,
            "authorization_endpoint": f"{origin}/oauth2/authorize",
            "token_endpoint": f"{origin}{TOKEN_PATH}",
            "registration_endpoint": f"{origin}/oauth2/register",
            "scopes_supported": SCOPES,
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_methods_supported": [
                "none",
                "client_secret_post",
                "client_secret_basic",
            ],
            "code_challenge_methods_supported": ["S256"],
        }
    )
    registration = ClientRegistrationOptions(
        enabled=True, valid_scopes=SCOPES, default_scopes=SCOPES
    )
    return [
        Route("/.well-known/oauth-authorization-server", MetadataHandler(metadata).handle),
        Route("/oauth2/authorize", AuthorizationHandler(server).handle, methods=["GET", "POST"]),
        Route(
            "/oauth2/register",
            RegistrationHandler(server, registration).handle,
            methods=["POST"],
        ),
    ]


def token_app(server: AuthorizationServer) -> ASGIApp:
    """Return the token endpoint as an application."""
    handler = TokenHandler(server, ClientAuthenticator(server))
    return Route(TOKEN_PATH, handler.handle, methods=["POST"]).app


def _builtin_client() -> OAuthClientInformationFull:
    return OAuthClientInformationFull(
        client_id=CLIENT_ID,
        token_endpoint_auth_method="none",  # noqa: S106
        redirect_uris=[AnyUrl("http://127.0.0.1:8765/callback")],
        scope=" ".join(SCOPES),
    )
