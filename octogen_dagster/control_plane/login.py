"""The login to Octogen's MCP in a browser."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

from octogen_dagster.api.credentials import checked_url, may_use_proxy
from octogen_dagster.control_plane.call_errors import leaf_errors
from octogen_dagster.control_plane.login_callback import listening
from octogen_dagster.control_plane.login_storage import LoginStorage
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenMCPAuthenticationError,
)
from octogen_dagster.settings import require_extras

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mcp.client.auth import OAuthFlowError
    from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata, OAuthMetadata
    from mcp.shared.exceptions import MCPError

    from octogen_dagster.control_plane.login_files import LoginFiles

DEFAULT_REDIRECT_URI = "http://127.0.0.1:8765/callback"
DEFAULT_SCOPE = "openid profile email offline_access"
_REQUEST_TIMEOUT = 30.0
_MAX_REASON_LENGTH = 300


class Login(NamedTuple):
    """A login that has succeeded.

    Attributes:
        client_id: The id of the OAuth client.
        redirect_uri: The URL that the browser returned to.
        token_endpoint: The URL of the token endpoint that accepts the refresh token.
    """

    client_id: str
    redirect_uri: str
    token_endpoint: str


def login(
    files: LoginFiles,
    *,
    show: Callable[[str], None],
    mcp_url: str,
    redirect_uri: str = DEFAULT_REDIRECT_URI,
    client_id: str | None = None,
    resource: str | None = None,
    authorization_server: str | None = None,
    scope: str = DEFAULT_SCOPE,
    timeout: float = 300.0,
) -> Login:
    """Let a person log in, and store what a refresh needs.

    Without an OAuth client, that of the last login is used again if it was registered with the
    same redirect URI, or else a new public one is registered. The files belong together and are
    written when the login has succeeded, not before.

    Args:
        files: The files of the login. Their default folder is created.
        show: Called with the URL of the login page, which the person is to open.
        mcp_url: The URL of the MCP server.
        redirect_uri: The URL on this machine that the browser returns to; port 0 for a free one.
        client_id: The id of an OAuth client that is registered with this redirect URI.
        resource: What the tokens are asked for, unless the MCP server names its resource.
        authorization_server: The URL of the authorization server that the MCP server must name;
            by default any.
        scope: The scopes to ask for, separated by blanks.
        timeout: Seconds that the person has to log in.

    Raises:
        OctogenMCPAuthenticationError: The login did not succeed, or a file cannot be written.
        OctogenConnectionError: The MCP server or the authorization server did not answer.
        ValueError: The MCP URL or the authorization server is not one that a token may be sent to,
            or the redirect URI is not on this machine.
        OSError: The port is taken.
    """
    require_extras("The login to Octogen", "mcp")
    checked_url(mcp_url, "The MCP URL")
    if authorization_server:
        authorization_server = checked_url(authorization_server, "The authorization server")
    files.make_folder()
    with files.refresh_token.locked():
        pass  # a file that cannot be locked is an error before the person logs in
    storage = LoginStorage(files, redirect_uri, client_id)
    login_error: OctogenError
    try:
        return asyncio.run(
            _login(
                mcp_url,
                storage,
                show,
                resource=resource,
                authorization_server=authorization_server,
                scope=scope,
                seconds=timeout,
            )
        )
    except Exception as error:
        found = _login_error(mcp_url, storage, leaf_errors(error))
        if found is None:
            raise
        login_error = found
    # Raised out here, because the frames in the traceback of the first error hold tokens.
    raise login_error


async def _login(
    mcp_url: str,
    storage: LoginStorage,
    show: Callable[[str], None],
    *,
    resource: str | None,
    authorization_server: str | None,
    scope: str,
    seconds: float,
) -> Login:
    import httpx2
    from mcp import Client
    from mcp.client.auth import OAuthClientProvider
    from mcp.client.streamable_http import streamable_http_client

    async def open_login_page(url: str) -> None:
        _check_login(mcp_url, url, provider.context.oauth_metadata, authorization_server)
        callback.expect(url)
        if resource and "resource" not in parse_qs(urlsplit(url).query):
            url = f"{url}&{urlencode({'resource': resource})}"
        await asyncio.to_thread(show, url)

    async def wait_for_callback() -> AuthorizationCodeResult:
        return await callback.wait(seconds)

    async with listening(storage.redirect_uri) as callback:
        storage.redirect_uri = callback.redirect_uri
        provider = OAuthClientProvider(
            mcp_url,
            _public_client(callback.redirect_uri, scope),
            storage,
            redirect_handler=open_login_page,
            callback_handler=wait_for_callback,
        )
        async with (
            httpx2.AsyncClient(
                auth=provider, timeout=_REQUEST_TIMEOUT, trust_env=may_use_proxy(mcp_url)
            ) as http,
            Client(streamable_http_client(mcp_url, http_client=http), mode="legacy", cache=None),
        ):
            pass  # opening a session makes the provider log in
    metadata, client = provider.context.oauth_metadata, provider.context.client_info
    if not storage.is_written or metadata is None or client is None:
        raise OctogenMCPAuthenticationError(
            f"Octogen's MCP at {mcp_url} asked for no login: check the address."
        )
    return Login(str(client.client_id), callback.redirect_uri, str(metadata.token_endpoint))


def _public_client(redirect_uri: str, scope: str) -> OAuthClientMetadata:
    from mcp.shared.auth import OAuthClientMetadata
    from pydantic import AnyUrl

    class PublicClient(OAuthClientMetadata):
        """A client that asks for its own scopes, whichever the server names.

        The `mcp` package sets the scopes that the server names, and none if it names none. A login
        without `offline_access` lasts for minutes.
        """

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, scope if name == "scope" else value)

    return PublicClient(
        client_name="octogen-dagster",
        redirect_uris=[AnyUrl(redirect_uri)],
        token_endpoint_auth_method="none",  # noqa: S106
    )


def _check_login(
    mcp_url: str,
    login_page: str,
    metadata: OAuthMetadata | None,
    authorization_server: str | None,
) -> None:
    """Check the URLs that the MCP server names for the login.

    Raises:
        OctogenMCPAuthenticationError: A token would be sent to one in the clear, or they are those
            of another authorization server.
    """
    issuer = metadata and str(metadata.issuer)
    if authorization_server and issuer and issuer.rstrip("/") != authorization_server.rstrip("/"):
        raise OctogenMCPAuthenticationError(
            f"Octogen's MCP at {mcp_url} logs in at {issuer}, and not at {authorization_server}: "
            "correct --authkit-domain or leave it out, or name the MCP server that logs in there "
            "by --resource."
        )
    try:
        checked_url(login_page.partition("?")[0], "The login page")
        checked_url(str(metadata.token_endpoint) if metadata else "", "The token endpoint")
    except ValueError as error:
        raise OctogenMCPAuthenticationError(
            f"Octogen's MCP at {mcp_url} names a login that cannot be trusted. {error}"
        ) from None


def _login_error(
    mcp_url: str, storage: LoginStorage, failures: Iterable[BaseException]
) -> OctogenError | None:
    """Return the error that the failures of a login stand for; None if they are a defect here."""
    import httpx2
    from mcp.client.auth import OAuthFlowError
    from mcp.shared.exceptions import MCPError

    for failure in failures:
        if isinstance(failure, OctogenError):
            # a copy without the traceback, which holds tokens
            return type(failure)(f"{failure}{storage.advice}")
        if isinstance(failure, httpx2.HTTPError):
            return OctogenConnectionError(
                f"The login to Octogen's MCP at {mcp_url} got no answer "
                f"({type(failure).__name__}): check the address and the network."
            )
        if isinstance(failure, OAuthFlowError | MCPError):
            reason = storage.masked(_reason(failure)) or type(failure).__name__
            return OctogenMCPAuthenticationError(
                f"The login to Octogen's MCP at {mcp_url} failed ({reason}): check the address, "
                f"then try again.{storage.advice}"
            )
    return None


def _reason(failure: OAuthFlowError | MCPError) -> str:
    """Return the message of the `mcp` package without the response in it, which may hold tokens."""
    from mcp.client.auth import OAuthRegistrationError, OAuthTokenError

    message = " ".join(str(failure).split())
    if isinstance(failure, OAuthTokenError | OAuthRegistrationError):
        message, _, response = message.partition(": ")
        status = response[:3]
        return f"{message}: {status}" if status.isdigit() else message
    return message[:_MAX_REASON_LENGTH].rstrip(".")
