"""Browser login to Octogen's MCP, with the OAuth client in the `mcp` package."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from pydantic import SecretStr

from octogen_dagster.api.credentials import checked_url, parsed_word
from octogen_dagster.background import Deadline
from octogen_dagster.control_plane.login_places import LoginPlaces
from octogen_dagster.control_plane.tools import leaf_errors, open_client
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenMCPAuthenticationError,
)
from octogen_dagster.validation import require_extras

if TYPE_CHECKING:
    from mcp.shared.auth import (
        AuthorizationCodeResult,
        OAuthClientInformationFull,
        OAuthClientMetadata,
        OAuthMetadata,
        OAuthToken,
    )

DEFAULT_SCOPE = "openid profile email offline_access"
_REQUEST_TIMEOUT = 30.0
_LOCK_TIMEOUT = 120.0
_MAX_REASON_LENGTH = 300


class Login(NamedTuple):
    """A successful login. The refresh token can be exchanged at `token_endpoint`."""

    client_id: str
    redirect_uri: str
    token_endpoint: str


def login(
    places: LoginPlaces,
    *,
    show: Callable[[str], None],
    mcp_url: str,
    redirect_uri: str,
    client_id: str | None = None,
    resource: str | None = None,
    authorization_server: str | None = None,
    scope: str = DEFAULT_SCOPE,
    timeout: float = 300.0,
) -> Login:
    """Pass the login page's URL to `show`, wait for the user, and store the login in `places`.

    If `client_id` is None, a client from the last login with the same redirect URI is reused.
    Without such a client, a new public client is registered. If the port in `redirect_uri` is 0, a
    free port is used. Tokens are requested for `resource` unless the MCP server specifies a
    resource. If you pass `authorization_server`, it must match the authorization server that the
    MCP server specifies. `timeout` is in seconds. Raises `OSError` if the port is taken.
    """
    require_extras("The login to Octogen", "mcp")
    checked_url(mcp_url, "The MCP URL")
    if authorization_server:
        authorization_server = checked_url(authorization_server, "The authorization server")
    with places.refresh_token.locked(Deadline.after(timeout)):
        pass  # if the file cannot be locked, fail before the user logs in
    with _Callback(redirect_uri, timeout) as callback:
        storage = _Storage(places, callback.redirect_uri, client_id)
        logging_in = _login(
            mcp_url,
            storage,
            callback,
            show=show,
            resource=resource,
            authorization_server=authorization_server,
            scope=scope,
        )
        try:
            return asyncio.run(logging_in)
        except Exception as error:
            failures = list(leaf_errors(error))
            failure = _login_error(mcp_url, storage, failures)
            if failure is None:
                raise
    # Raised outside the handler: errors from the `mcp` package hold responses with tokens.
    raise failure


async def _login(
    mcp_url: str,
    storage: _Storage,
    callback: _Callback,
    *,
    show: Callable[[str], None],
    resource: str | None,
    authorization_server: str | None,
    scope: str,
) -> Login:
    from mcp.client.auth import OAuthClientProvider

    async def open_page(url: str) -> None:
        _check_page(mcp_url, url, provider.context.oauth_metadata, authorization_server)
        sent = _parameters(url)
        callback.state = sent.get("state")
        if resource and "resource" not in sent:
            url = f"{url}&{urlencode({'resource': resource})}"
        await asyncio.to_thread(show, url)

    provider = OAuthClientProvider(
        mcp_url,
        _public_client(callback.redirect_uri, scope),
        storage,
        redirect_handler=open_page,
        callback_handler=callback.wait,
    )
    async with open_client(mcp_url, _REQUEST_TIMEOUT, auth=provider):
        pass  # opening a session makes the provider log in
    metadata, client = provider.context.oauth_metadata, provider.context.client_info
    if not storage.is_written or metadata is None or client is None:
        raise OctogenMCPAuthenticationError(
            f"Octogen's MCP at {mcp_url} did not request a login. Check the URL."
        )
    return Login(str(client.client_id), callback.redirect_uri, str(metadata.token_endpoint))


def _public_client(redirect_uri: str, scope: str) -> OAuthClientMetadata:
    from mcp.shared.auth import OAuthClientMetadata
    from pydantic import AnyUrl

    class PublicClient(OAuthClientMetadata):
        """OAuth client metadata with fixed scopes.

        The `mcp` package would replace the scopes with the server's scopes, even if the server does
        not specify scopes. A login without `offline_access` lasts only minutes.
        """

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, scope if name == "scope" else value)

    return PublicClient(
        client_name="octogen-dagster",
        redirect_uris=[AnyUrl(redirect_uri)],
        token_endpoint_auth_method="none",  # noqa: S106
    )


class _Storage:
    """Client and token storage for the `mcp` package.

    Client and tokens must match, so both are written only after the login has succeeded.
    """

    def __init__(self, places: LoginPlaces, redirect_uri: str, client_id: str | None) -> None:
        self._places = places
        self._redirect_uri = redirect_uri
        self._client: OAuthClientInformationFull | None = None
        self._tokens: list[str] = []
        self.is_written = False
        self.advice = ""
        known = client_id or self._saved_client_id()
        if known:
            from mcp.shared.auth import OAuthClientInformationFull

            self._client = OAuthClientInformationFull(
                client_id=known,
                token_endpoint_auth_method="none",  # noqa: S106
            )
            way = "omit the client id" if client_id else f"delete {places.client_id.place}"
            self.advice = (
                f" If the login page does not recognize the client, {way}. The next login then "
                "registers a new client."
            )

    def _saved_client_id(self) -> str | None:
        redirect_uri = self._places.redirect_uri
        with contextlib.suppress(OctogenMCPAuthenticationError):  # there was no login yet
            if redirect_uri and redirect_uri.read().get_secret_value() == self._redirect_uri:
                return self._places.client_id.read().get_secret_value()
        return None

    def masked(self, text: str) -> str:
        for token in self._tokens:
            text = text.replace(token, "[token]")
        return text

    async def get_tokens(self) -> OAuthToken | None:
        return None  # so that the user has to log in

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        if client_info.client_secret:
            raise OctogenMCPAuthenticationError(
                "The login registered a client with a secret, but a public client is required. "
                "Report this to Octogen."
            )
        self._client, self.advice = client_info, ""

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens = [token for token in (tokens.access_token, tokens.refresh_token) if token]
        refresh_token = parsed_word(tokens.refresh_token)
        if refresh_token is None or self._client is None:
            raise OctogenMCPAuthenticationError(
                "The login returned no refresh token. Without a refresh token, a login expires "
                "within minutes. Ask Octogen for offline access."
            )
        places = self._places
        with places.refresh_token.locked(Deadline.after(_LOCK_TIMEOUT)):
            places.client_id.write(SecretStr(str(self._client.client_id)))
            if places.redirect_uri:
                places.redirect_uri.write(SecretStr(self._redirect_uri))
            places.refresh_token.write(refresh_token)
        self.is_written = True


class _Callback(ThreadingTCPServer):
    """A local web server that receives the OAuth redirect.

    The redirect must contain the login's `state`.
    """

    allow_reuse_address = True
    daemon_threads = True  # browsers open connections that they never use

    def __init__(self, redirect_uri: str, seconds: float) -> None:
        self._seconds = seconds
        host, port, self.path = _split_redirect_uri(redirect_uri)
        self.state: str | None = None
        self.parameters: Future[dict[str, str]] = Future()
        super().__init__(("127.0.0.1", port), _CallbackHandler)
        self.redirect_uri = f"http://{host}:{self.server_address[1]}{self.path}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    async def wait(self) -> AuthorizationCodeResult:
        """Wait for the redirect and return its authorization code."""
        import anyio
        from mcp.shared.auth import AuthorizationCodeResult

        try:
            with anyio.fail_after(self._seconds):
                parameters = await asyncio.wrap_future(self.parameters)
        except TimeoutError:
            raise OctogenMCPAuthenticationError(
                f"Nobody logged in within {self._seconds:g} s. Run `octogen-dagster login` again."
            ) from None
        if "code" not in parameters:
            reason = ": ".join(
                parameters[name] for name in ("error", "error_description") if name in parameters
            )
            raise OctogenMCPAuthenticationError(
                f"The login was rejected ({reason[:_MAX_REASON_LENGTH] or 'no reason given'}). Log "
                "in again and give your consent, or ask Octogen for access."
            )
        return AuthorizationCodeResult.model_validate(parameters)

    def handle_error(self, *_: object) -> None:
        """Log nothing, because browsers often close connections early."""


class _CallbackHandler(BaseHTTPRequestHandler):
    server: _Callback
    timeout = _REQUEST_TIMEOUT

    def do_GET(self) -> None:
        sent, callback = _parameters(self.path), self.server
        is_expected = callback.state is not None and sent.get("state") == callback.state
        is_callback = is_expected and urlsplit(self.path).path == callback.path
        answer = "Octogen has received your answer. You can close this window."
        self.send_response(200 if is_callback else 404)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write((answer if is_callback else "Not found.").encode())
        if is_callback:
            with contextlib.suppress(InvalidStateError):  # the first one counts
                callback.parameters.set_result(sent)

    def log_message(self, *_: object) -> None:
        """Log nothing, because the URLs contain authorization codes."""


def _split_redirect_uri(redirect_uri: str) -> tuple[str, int, str]:
    with contextlib.suppress(ValueError):
        parts = urlsplit(redirect_uri)
        host, port = parts.hostname, parts.port
        is_here = parts.scheme == "http" and host in ("127.0.0.1", "localhost")
        if is_here and host and port is not None and parts.path and not parts.query:
            return host, port, parts.path
    raise ValueError(
        f"The redirect URI {redirect_uri!r} does not point to this machine. Use "
        "http://127.0.0.1:PORT/PATH or http://localhost:PORT/PATH."
    )


def _check_page(
    mcp_url: str, page: str, metadata: OAuthMetadata | None, authorization_server: str | None
) -> None:
    """Raise an error if the login page uses plain HTTP or an unexpected authorization server."""
    issuer = metadata and str(metadata.issuer)
    if authorization_server and issuer and issuer.rstrip("/") != authorization_server.rstrip("/"):
        raise OctogenMCPAuthenticationError(
            f"Octogen's MCP at {mcp_url} uses the authorization server {issuer}, not "
            f"{authorization_server}. Correct or omit --authkit-domain, or pass the matching MCP "
            "server as --resource."
        )
    try:
        checked_url(page.partition("?")[0], "The login page")
        checked_url(str(metadata.token_endpoint) if metadata else "", "The token endpoint")
    except ValueError as error:
        raise OctogenMCPAuthenticationError(
            f"Octogen's MCP at {mcp_url} points to an untrusted login page. {error}"
        ) from None


def _login_error(
    mcp_url: str, storage: _Storage, failures: Iterable[BaseException]
) -> OctogenError | None:
    """Return the error for a failed login, or None if the failure is a defect in this package."""
    import httpx2
    from mcp.client.auth import OAuthFlowError, OAuthRegistrationError, OAuthTokenError
    from mcp.shared.exceptions import MCPError

    for failure in failures:
        if isinstance(failure, OctogenError):
            return type(failure)(f"{failure}{storage.advice}")  # a copy without the traceback
        if isinstance(failure, httpx2.HTTPError):
            return OctogenConnectionError(
                f"The login to Octogen's MCP at {mcp_url} got no response "
                f"({type(failure).__name__}). Check the URL and the network."
            )
        if isinstance(failure, OAuthFlowError | MCPError):
            reason = " ".join(storage.masked(str(failure)).split())
            if isinstance(failure, OAuthTokenError | OAuthRegistrationError):
                # Their message ends with the response, which might contain tokens.
                reason, _, response = reason.partition(": ")
                reason += f": {response[:3]}" if response[:3].isdigit() else ""
            reason = reason[:_MAX_REASON_LENGTH].rstrip(".") or type(failure).__name__
            return OctogenMCPAuthenticationError(
                f"The login to Octogen's MCP at {mcp_url} failed ({reason}). Check the URL, then "
                f"try again.{storage.advice}"
            )
    return None


def _parameters(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
